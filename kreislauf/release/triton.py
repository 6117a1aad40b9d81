"""Triton's model repository, and questions to exact versions. The repository is made from the ONNX
file alone.

A load status is never trusted (Triton has answered 200 for a failed load): who publishes asks the
loaded version.
"""

import fcntl
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import numpy as np

from kreislauf import object_store
from kreislauf.settings import settings
from models.spec import MAX_BATCH, Tensors

DEADLINE_SECONDS = 60.0
"""Longest wait for an answer."""
LOAD_SECONDS = 120.0
"""Longest wait for a load."""


class TritonError(RuntimeError):
    """Triton cannot be reached, refused a load, or did not answer."""


@contextmanager
def exclusive(model: str) -> Iterator[None]:
    """Hold off every other publisher of this model repository; the lock ends with the process.

    A repository on S3 holds off those on this machine; between machines the release log decides
    alone.
    """
    fs, path = _folder(model)
    folder = settings().home / "locks" / model
    if object_store.is_local(fs):
        folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


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


def keep_warm_up(model: str, inputs: Tensors) -> None:
    """Store one request, the last of `inputs`, which Triton asks a version before it may serve.

    Without it the first people after a release would wait for what a runtime does only once.
    """
    fs, folder = _folder(model)
    for name, array in inputs.items():
        object_store.replace(
            fs, f"{folder}/warmup/{name}", np.ascontiguousarray(array[-1:]).tobytes()
        )


def remove_version(model: str, version: int) -> None:
    """Delete the folder of a version that must not be served."""
    fs, folder = _folder(model)
    if fs.exists(f"{folder}/{version}"):
        fs.rm(f"{folder}/{version}", recursive=True)


def serve(model: str, versions: list[int]) -> None:
    """Make exactly `versions` resident, and delete the folders of all others, which the registry
    has, too.

    Raises TritonError with Triton's words; what was resident then stays.
    """
    fs, folder = _folder(model)
    newest = fs.cat_file(f"{folder}/{max(versions)}/model.onnx")
    warm = {posixpath.basename(path) for path in fs.find(f"{folder}/warmup")}
    object_store.replace(
        fs, f"{folder}/config.pbtxt", config(model, newest, versions, warm).encode()
    )
    with _client(f"load {model}, versions {versions}") as client:
        client.load_model(model, client_timeout=LOAD_SECONDS)
    for name in map(posixpath.basename, fs.ls(folder, detail=False)):
        if name.isdigit() and int(name) not in versions:
            remove_version(model, int(name))


def unload(model: str) -> None:
    """Take the model out of memory: for a first version that turned out bad, when nothing was live
    before."""
    fs, folder = _folder(model)
    if fs.exists(f"{folder}/config.pbtxt"):
        fs.rm_file(f"{folder}/config.pbtxt")
    with _client(f"unload {model}") as client:
        client.unload_model(model)


def config(model: str, onnx: bytes, versions: list[int], warm: set[str]) -> str:
    """Text of config.pbtxt: names, types and shapes read from the graph; `warm` are the inputs of
    the kept request."""
    import onnx as onnx_format
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    graph = onnx_format.load_from_string(onnx).graph
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
    if warm.issuperset(tensor.name for tensor in message.input):
        sample = message.model_warmup.add(name="a real request", batch_size=1)
        for tensor in message.input:
            sample.inputs[tensor.name].data_type = tensor.data_type
            sample.inputs[tensor.name].dims.extend(tensor.dims)
            sample.inputs[tensor.name].input_data_file = tensor.name
    return text_format.MessageToString(message)


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
    # No rows are still one request, whose answer has no rows.
    rows = max(1, len(next(iter(inputs.values()))))
    batches = []
    with _client(f"answer as {model} version {version}") as client:
        for first in range(0, rows, batch):
            request = {name: array[first : first + batch] for name, array in inputs.items()}
            batches.append(_infer(client, model, version, request))
    return {name: np.concatenate([answer[name] for answer in batches]) for name in batches[0]}


def _infer(client, model: str, version: int, inputs: Tensors) -> Tensors:
    from tritonclient.grpc import InferInput
    from tritonclient.utils import np_to_triton_dtype

    tensors = []
    for name, array in inputs.items():
        tensor = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(np.ascontiguousarray(array))
        tensors.append(tensor)
    result = client.infer(
        model, tensors, model_version=str(version), client_timeout=DEADLINE_SECONDS
    )
    return {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}


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
