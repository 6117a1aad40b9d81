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

from kreislauf.settings import settings
from models.spec import MAX_BATCH, Tensors

DEADLINE_SECONDS = 60.0
LOAD_SECONDS = 120.0


class TritonError(RuntimeError):
    """Triton cannot be reached, refused a load, or did not answer."""


@contextmanager
def exclusive(model: str) -> Iterator[None]:
    """Hold off every other publisher of this model repository; the lock ends with the process.

    A repository on S3 holds off those on this machine; between machines the release log decides
    alone.
    """
    fs, path = _folder(model)
    folder = Path(path) if _is_local(fs) else settings().home / "locks" / model
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
        _write(fs, path, content)
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
        _write(fs, f"{folder}/warmup/{name}", np.ascontiguousarray(array[-1:]).tobytes())


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
    _write(fs, f"{folder}/config.pbtxt", config(model, newest, versions, warm).encode())
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
    from tritonclient.grpc import model_config_pb2
    from tritonclient.utils import np_to_triton_dtype

    graph = onnx_format.load_from_string(onnx).graph
    message = model_config_pb2.ModelConfig(
        name=model, backend="onnxruntime", max_batch_size=MAX_BATCH
    )
    message.version_policy.specific.versions.extend(versions)
    message.dynamic_batching.SetInParent()
    device = "KIND_GPU" if settings().triton_gpu else "KIND_CPU"
    message.instance_group.add(count=1, kind=model_config_pb2.ModelInstanceGroup.Kind.Value(device))
    for tensors, target in ((graph.input, message.input), (graph.output, message.output)):
        for tensor in tensors:
            kind = tensor.type.tensor_type
            name = np_to_triton_dtype(onnx_format.helper.tensor_dtype_to_np_dtype(kind.elem_type))
            dims = [d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim][1:]
            target.add(
                name=tensor.name,
                data_type=f"TYPE_{'STRING' if name == 'BYTES' else name}",
                dims=dims,
            )
    if warm.issuperset(tensor.name for tensor in message.input):
        sample = message.model_warmup.add(name="a real request", batch_size=1)
        for tensor in message.input:
            sample.inputs[tensor.name].data_type = tensor.data_type
            sample.inputs[tensor.name].dims.extend(tensor.dims)
            sample.inputs[tensor.name].input_data_file = tensor.name
    from google.protobuf import text_format

    return text_format.MessageToString(message)


def ask(model: str, version: int, inputs: Tensors, batch: int = MAX_BATCH) -> Tensors:
    """Answers of exactly this version for all rows of `inputs`, by output name. Raises
    TritonError."""
    # No rows are still one request, whose answer has no rows.
    rows = len(next(iter(inputs.values()))) or 1
    with _client(f"answer as {model} version {version}") as client:
        parts = [
            _infer(
                client,
                model,
                version,
                {name: array[i : i + batch] for name, array in inputs.items()},
            )
            for i in range(0, rows, batch)
        ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _infer(client, model: str, version: int, inputs: Tensors) -> Tensors:
    from tritonclient.grpc import InferInput
    from tritonclient.utils import np_to_triton_dtype

    tensors = []
    for name, array in inputs.items():
        tensors.append(InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)))
        tensors[-1].set_data_from_numpy(np.ascontiguousarray(array))
    result = client.infer(
        model, tensors, model_version=str(version), client_timeout=DEADLINE_SECONDS
    )
    return {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}


@contextmanager
def _client(what: str) -> Iterator:
    """A client, closed afterwards; its errors become a TritonError that says what Triton did not
    do."""
    from tritonclient.grpc import InferenceServerClient
    from tritonclient.utils import InferenceServerException

    url = settings().triton_url
    if not url:
        raise TritonError(
            "No Triton is known: start one with `make up`, or set KREISLAUF_TRITON_URL to its host:port."
        )
    try:
        with InferenceServerClient(url) as client:
            yield client
    except InferenceServerException as error:
        raise TritonError(f"Triton at {url} did not {what}: {error.message()}") from error


def _folder(model: str) -> tuple[fsspec.AbstractFileSystem, str]:
    fs, root = fsspec.core.url_to_fs(settings().triton_repository)
    fs.invalidate_cache()
    return fs, f"{root.rstrip('/')}/{model}"


def _is_local(fs: fsspec.AbstractFileSystem) -> bool:
    return "file" in fs.protocol


def _write(fs: fsspec.AbstractFileSystem, path: str, content: bytes) -> None:
    """The whole of it at once, on disk as on S3."""
    if not _is_local(fs):
        fs.pipe_file(path, content)
        return
    draft = Path(f"{path}.tmp")
    draft.parent.mkdir(parents=True, exist_ok=True)
    draft.write_bytes(content)
    draft.replace(path)
