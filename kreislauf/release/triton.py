"""Triton's model repository, and questions to exact versions. The repository is made from the ONNX
file alone.

A load status is never trusted (Triton has answered 200 for a failed load): who publishes asks the
loaded version.
"""

import json
import posixpath
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec

from kreislauf import object_store
from kreislauf.release import wire
from kreislauf.settings import settings
from models import asking, text
from models.spec import MAX_BATCH, Tensors

DEADLINE_SECONDS = 60.0
"""Longest wait for an answer."""
LOAD_SECONDS = 120.0
"""Longest wait for a load."""
PROBE_SECONDS = 5.0
"""Longest wait for the word that Triton lives."""
RESTART_SECONDS = 60.0
"""Longest wait for a Triton that ended to be started anew."""
SHAPES = "shapes.json"
"""File beside a kept request: the shape of each of its tensors, without the batch."""


class TritonError(RuntimeError):
    """Triton cannot be reached, refused a load, or did not answer."""


def add_version(model: str, version: int, onnx: Path) -> None:
    """Copy `onnx` to `<repository>/<model>/<version>/model.onnx`, at once; a version is never
    overwritten.

    Raises TritonError when another file is there under this number.
    """
    fs, folder = _folder(model)
    path = f"{folder}/{version}/model.onnx"
    content = onnx.read_bytes()
    if not fs.exists(path):
        object_store.replace(fs, path, content)
    elif fs.cat_file(path) != content:
        raise TritonError(
            f"{path} holds another file than {model} version {version}: remove its folder."
        )


def keep_file(model: str, version: int, name: str, content: bytes) -> None:
    """Store a file of a version beside its model, where Triton does not look at it."""
    fs, folder = _folder(model)
    object_store.replace(fs, f"{folder}/{version}/{name}", content)


def kept_file(model: str, version: int, name: str) -> bytes | None:
    """Content of the file `name` beside a version; None if there is none."""
    fs, folder = _folder(model)
    path = f"{folder}/{version}/{name}"
    if not fs.exists(path):
        return None
    return fs.cat_file(path)


def holds(model: str, version: int) -> bool:
    """Whether the repository has the file of a version."""
    fs, folder = _folder(model)
    return fs.exists(f"{folder}/{version}/model.onnx")


def keep_warm_up(model: str, version: int, inputs: Tensors) -> None:
    """Store one request, the last of `inputs`, which Triton asks a version before it may serve.

    Without it the first people after a release would wait for what a runtime does only once.
    """
    fs, folder = _folder(model)
    shapes = {name: array.shape[1:] for name, array in inputs.items()}
    for name, array in inputs.items():
        object_store.replace(fs, f"{folder}/warmup/{version}/{name}", text.to_bytes(array[-1:]))
    object_store.replace(fs, f"{folder}/warmup/{version}/{SHAPES}", json.dumps(shapes).encode())


def remove_version(model: str, version: int) -> None:
    """Delete the files of a version that must not be served."""
    fs, folder = _folder(model)
    for path in (f"{folder}/{version}", f"{folder}/warmup/{version}"):
        if fs.exists(path):
            fs.rm(path, recursive=True)


def load(model: str, versions: list[int]) -> None:
    """Make exactly `versions` resident, for as long as this Triton runs.

    One that starts anew loads what `keep` wrote. So a version that ends the server is not loaded
    again with the next one.

    Raises TritonError with Triton's words; what was resident then stays.
    """
    from google.protobuf import json_format

    text_of_config = json_format.MessageToJson(
        configuration(model, versions), preserving_proto_field_name=True
    )
    with _client(f"load {model}, versions {versions}") as client:
        client.load_model(model, config=text_of_config, client_timeout=LOAD_SECONDS)


def keep(model: str, versions: list[int]) -> None:
    """Write down that a Triton that starts anew loads exactly `versions`."""
    from google.protobuf import text_format

    fs, folder = _folder(model)
    message = configuration(model, versions)
    object_store.replace(
        fs, f"{folder}/config.pbtxt", text_format.MessageToString(message).encode()
    )


def serve(model: str, versions: list[int]) -> None:
    """Make exactly `versions` resident for good, and delete the files of all others.

    Raises TritonError with Triton's words; what was resident then stays.
    """
    keep(model, versions)
    with _client(f"load {model}, versions {versions}") as client:
        client.load_model(model, client_timeout=LOAD_SECONDS)
    remove_others(model, versions)


def remove_others(model: str, versions: list[int]) -> None:
    """Delete the files of all but these versions, which the registry has, too."""
    fs, folder = _folder(model)
    for name in map(posixpath.basename, fs.ls(folder, detail=False)):
        if name.isdigit() and int(name) not in versions:
            remove_version(model, int(name))


def unload(model: str) -> None:
    """Take the model out of memory: its first version turned out bad."""
    fs, folder = _folder(model)
    if fs.exists(f"{folder}/config.pbtxt"):
        fs.rm_file(f"{folder}/config.pbtxt")
    with _client(f"unload {model}") as client:
        client.unload_model(model)


def configuration(model: str, versions: list[int]) -> Any:
    """Triton's ModelConfig for `versions`, whose files are in the repository.

    The newest one's graph has names, types and shapes; its kept request warms all of them up.
    """
    import onnx
    from tritonclient.grpc import model_config_pb2

    fs, folder = _folder(model)
    newest = max(versions)
    graph = onnx.load_from_string(fs.cat_file(f"{folder}/{newest}/model.onnx")).graph
    message = model_config_pb2.ModelConfig(
        name=model, backend="onnxruntime", max_batch_size=MAX_BATCH
    )
    message.version_policy.specific.versions.extend(versions)
    message.dynamic_batching.SetInParent()
    device = "KIND_CPU"
    if settings().triton_gpu:
        device = "KIND_GPU"
    message.instance_group.add(count=1, kind=model_config_pb2.ModelInstanceGroup.Kind.Value(device))
    for tensor in graph.input:
        message.input.add(**_tensor_config(tensor))
    for tensor in graph.output:
        message.output.add(**_tensor_config(tensor))
    shapes = f"{folder}/warmup/{newest}/{SHAPES}"
    if fs.exists(shapes):
        sample = message.model_warmup.add(name="a real request", batch_size=1)
        kept = json.loads(fs.cat_file(shapes))
        for tensor in message.input:
            sample.inputs[tensor.name].data_type = tensor.data_type
            sample.inputs[tensor.name].dims.extend(kept[tensor.name])
            sample.inputs[tensor.name].input_data_file = f"{newest}/{tensor.name}"
    return message


def _tensor_config(tensor) -> dict:
    """Name, type and shape, without the batch, of an ONNX graph's input or output; -1 is any
    length."""
    from onnx.helper import tensor_dtype_to_np_dtype
    from tritonclient.utils import np_to_triton_dtype

    tensor_type = tensor.type.tensor_type
    dtype = np_to_triton_dtype(tensor_dtype_to_np_dtype(tensor_type.elem_type))
    if dtype == "BYTES":
        dtype = "STRING"
    dims = []
    for dim in tensor_type.shape.dim[1:]:
        dims.append(dim.dim_value if dim.HasField("dim_value") else -1)
    return {"name": tensor.name, "data_type": f"TYPE_{dtype}", "dims": dims}


def ask(model: str, version: int, inputs: Tensors, batch: int = MAX_BATCH) -> Tensors:
    """Answers of exactly this version for all rows of `inputs`, by output name. Raises
    TritonError."""
    with _client(f"answer as {model} version {version}") as client:

        def infer(request: Tensors) -> Tensors:
            result = client.infer(
                model,
                wire.encode(request),
                model_version=str(version),
                client_timeout=DEADLINE_SECONDS,
            )
            return wire.decode(result)

        metadata = client.get_model_metadata(model, str(version))
        return asking.in_batches(infer, wire.wanted(metadata, inputs), batch)


def is_resident(model: str, version: int) -> bool:
    """Whether Triton serves exactly this version. Raises TritonError."""
    with _client(f"say whether it serves {model} version {version}") as client:
        return client.is_model_ready(model, str(version), client_timeout=PROBE_SECONDS)


def is_live() -> bool:
    """Whether a Triton answers at the address that is set."""
    try:
        wait_until_live(0)
    except TritonError:
        return False
    return True


def wait_until_live(seconds: float) -> None:
    """Return as soon as a Triton answers. Raises TritonError if none does for `seconds`."""
    end = time.monotonic() + seconds
    while True:
        try:
            with _client("answer") as client:
                client.is_server_live(client_timeout=PROBE_SECONDS)
            return
        except TritonError:
            if time.monotonic() >= end:
                raise
        time.sleep(0.2)


@contextmanager
def _client(action: str) -> Iterator:
    """A client, closed afterwards; its errors become a TritonError that says what Triton did not
    do."""
    from tritonclient.grpc import InferenceServerClient
    from tritonclient.utils import InferenceServerException

    url = settings().triton_url
    if not url:
        raise TritonError(
            "No Triton is known: start one with `make up`, or set KREISLAUF_TRITON_URL to its "
            "host:port."
        )
    try:
        with InferenceServerClient(url) as client:
            yield client
    except InferenceServerException as error:
        raise TritonError(f"Triton at {url} did not {action}: {error.message()}") from error


def _folder(model: str) -> tuple[fsspec.AbstractFileSystem, str]:
    return object_store.locate(settings().triton_repository, model)
