"""The real Triton, out of its wheel, as a process on this machine that is watched over.

`python -m deployments.triton_server HOME HTTP GRPC METRICS` runs Triton on these ports, and starts
it anew when it ended by a signal, as a crash does. What it then loads is what the repository says.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import fsspec
import psutil

from deployments import processes
from deployments.environment import python_path
from kreislauf.settings import settings

FOLDER = Path(__file__).resolve().parent
VERSION = sysconfig.get_python_version()
"""Of Python, such as `3.12`; `make setup` makes both environments with the same."""
STUB = "triton_python_backend_stub"
"""The program in which Triton runs a Python backend; there is one for each Python."""
PAUSES = (1.0, 60.0)
"""Shortest and longest pause, in seconds, before Triton is started anew; each is twice the last."""
END_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of prctl(2)."""
ADOPT_ORPHANS = 36
"""PR_SET_CHILD_SUBREAPER of prctl(2)."""


def start(home: Path, _: dict) -> dict:
    """The real Triton, out of its wheel, in its own environment; loads what the repository holds.

    The repository is in `home`, or where `KREISLAUF_TRITON_REPOSITORY` says. The process is the one
    that watches over Triton; Triton ends with it.
    """
    environment()
    end_left_over(home)
    names = ("triton", "triton_grpc", "triton_metrics")
    http, grpc, metrics = (processes.lasting_port(home, name) for name in names)
    command: list[str | Path] = [sys.executable, "-m", "deployments.triton_server"]
    command += [home, str(http), str(grpc), str(metrics)]
    url = f"http://127.0.0.1:{http}"
    env = {**os.environ, "PYTHONPATH": python_path(), "KREISLAUF_HOME": str(home)}
    record = processes.spawn("triton", command, home, env)
    urls = {
        "url": url,
        "grpc": f"127.0.0.1:{grpc}",
        "metrics": f"http://127.0.0.1:{metrics}/metrics",
    }
    return {**record, **urls, "probe": f"{url}/v2/health/live"}


def watch(home: Path, http: str, grpc: str, metrics: str) -> int:
    """Run Triton, and start it anew when it ended by a signal; returns the code of its exit."""
    shortest, longest = PAUSES
    pause = shortest
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ctypes.CDLL(None).prctl(ADOPT_ORPHANS, 1)
    while True:
        began = time.monotonic()
        code = _run(home, http, grpc, metrics)
        end_orphans()
        if code >= 0:
            return code
        if time.monotonic() - began > longest:
            pause = shortest
        print(f"Triton ended by signal {-code}; it starts anew in {pause:g} s.", flush=True)
        time.sleep(pause)
        pause = min(2 * pause, longest)


def _run(home: Path, http: str, grpc: str, metrics: str) -> int:
    """Run Triton until it ends; the code of its exit, below 0 for a signal."""
    repository, models = _open_repository()
    site = environment() / f"lib/python{VERSION}/site-packages"
    command: list[str | Path] = [
        site / "pytriton/tritonserver/bin/tritonserver",
        f"--model-repository={repository}",
        f"--backend-directory={_copy_backends(home, site)}",
        "--model-control-mode=explicit",
        "--exit-on-error=false",
        "--strict-readiness=false",
        # Else each version starts a process more, which reads the configuration and ends.
        "--disable-auto-complete-config",
        # A version's process that starts beside others may get no processor for a second. Triton
        # takes it for dead, and then ends itself (triton-inference-server/server#8882).
        "--model-load-thread-count=1",
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
    with subprocess.Popen(command, env=env, preexec_fn=_end_with_parent) as triton:
        try:
            return triton.wait()
        finally:
            triton.terminate()


def end_left_over(home: Path) -> None:
    """End what an earlier Triton of this home has left running because its watcher was killed."""
    backends = f"{home / 'triton-backends'}{os.sep}"
    for process in psutil.process_iter(["cmdline"]):
        program = (process.info["cmdline"] or [""])[0]
        if program.startswith(backends):
            processes.kill(process.pid)


def end_orphans() -> None:
    """End what a Triton that crashed has left running: a process for each model, with its memory.

    This process has adopted them.
    """
    orphans = psutil.Process().children(recursive=True)
    for orphan in orphans:
        processes.kill(orphan.pid)
    psutil.wait_procs(orphans, timeout=10)


def _end_with_parent() -> None:
    """Nobody is left to stop a Triton whose watcher was killed."""
    ctypes.CDLL(None).prctl(END_WITH_PARENT, signal.SIGKILL)


def _open_repository() -> tuple[str, list[str]]:
    """Address of the repository as Triton wants it, and the models in it."""
    repository = settings().triton_repository
    is_on_s3 = repository.startswith("s3://")
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
    shutil.copy2(triton / "python_backend_stubs" / VERSION / STUB, folder / "python")
    shutil.copytree(FOLDER / "triton/onnxruntime", folder / "onnxruntime")
    return folder


if __name__ == "__main__":
    home, *ports = sys.argv[1:]
    sys.exit(watch(Path(home), *ports))
