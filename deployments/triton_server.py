"""The real Triton, out of its wheel, as a process on this machine."""

import os
import shutil
import sysconfig
from pathlib import Path

import fsspec

from deployments import processes
from kreislauf.settings import settings

FOLDER = Path(__file__).resolve().parent


def start(home: Path, _: dict) -> dict:
    """The real Triton, out of its wheel, in its own environment; loads what the repository holds.

    The repository is in `home`, or where `KREISLAUF_TRITON_REPOSITORY` says, if that is on S3.
    """
    before = processes.read(home).get("triton", {})
    http, grpc, metrics = (
        processes.free_port(before.get(name, "")) for name in ("url", "grpc", "metrics")
    )
    repository, models = _open_repository(home)
    site = environment() / "lib/python3.11/site-packages"
    command: list[str | Path] = [
        site / "pytriton/tritonserver/bin/tritonserver",
        f"--model-repository={repository}",
        f"--backend-directory={_copy_backends(home, site)}",
        "--model-control-mode=explicit",
        "--exit-on-error=false",
        "--strict-readiness=false",
        "--exit-timeout-secs=3",
        *(f"--load-model={model}" for model in models),
        "--http-address=127.0.0.1",
        "--grpc-address=127.0.0.1",
        "--metrics-address=127.0.0.1",
        f"--http-port={http}",
        f"--grpc-port={grpc}",
        f"--metrics-port={metrics}",
    ]
    env = {
        **os.environ,
        "LD_LIBRARY_PATH": f"{site / 'nvidia_pytriton.libs'}:{sysconfig.get_config_var('LIBDIR')}",
        "PYTHONPATH": str(site),
        "PATH": f"{environment() / 'bin'}:{os.environ['PATH']}",
    }
    url = f"http://127.0.0.1:{http}"
    record = processes.spawn("triton", command, home, env)
    urls = {
        "url": url,
        "grpc": f"127.0.0.1:{grpc}",
        "metrics": f"http://127.0.0.1:{metrics}/metrics",
    }
    return {**record, **urls, "probe": f"{url}/v2/health/live"}


def _open_repository(home: Path) -> tuple[str, list[str]]:
    """Address of the repository as Triton wants it, and the models in it."""
    repository = settings().triton_repository
    is_on_s3 = repository.startswith("s3://")
    if not is_on_s3:
        repository = str(home / "triton")
    fs, root = fsspec.core.url_to_fs(repository)
    fs.makedirs(root, exist_ok=True)
    models = sorted(path.split("/")[-2] for path in fs.glob(f"{root}/*/config.pbtxt"))
    if is_on_s3:
        # Triton takes a prefix without objects for a mistake, and wants the address of the S3
        # server inside the repository's.
        fs.pipe_file(f"{root.rstrip('/')}/.keep", b"Kreislauf")
        repository = "/".join(filter(None, ["s3:/", os.environ.get("AWS_ENDPOINT_URL"), root]))
    return repository, models


def environment() -> Path:
    """The virtual environment that `make setup` made for Triton."""
    folder = FOLDER.parent / ".venv-triton"
    if not folder.exists():
        raise processes.StartError(f"Triton is not installed in {folder}: run `make setup` first.")
    return folder


def _copy_backends(home: Path, site: Path) -> Path:
    """A writable backends folder: Triton's python backend with its stub, and our onnxruntime."""
    folder = home / "triton-backends"
    triton = site / "pytriton/tritonserver"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(triton / "backends/python", folder / "python")
    shutil.copy2(triton / "python_backend_stubs/3.11/triton_python_backend_stub", folder / "python")
    shutil.copytree(FOLDER / "triton/onnxruntime", folder / "onnxruntime")
    return folder
