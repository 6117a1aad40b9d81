"""The whole loop on one machine: Postgres, Prefect, MLflow, Triton, the gateway and a worker, on
loopback.

`python -m deployments.stack up|down|status`. State and `run.json` live under `KREISLAUF_HOME`
(default .kreislauf). Ports are free ones. A second `up` keeps what still runs and replaces what
does not.
"""

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import fsspec

from deployments import processes
from kreislauf.settings import settings

ROOT = Path(__file__).resolve().parent.parent
WORK_POOL = "local"
STARTUP_SECONDS = 180


def up(home: Path, services: tuple[str, ...] = ()) -> dict[str, dict]:
    """Start what does not run yet, deploy the flows, and return `run.json`. Raises StartError."""
    home = home.absolute()
    recorded = processes.read(home)
    running = {name: record for name, record in recorded.items() if processes.find(record)}
    selected = services or tuple(SERVICES)
    for name, needed in NEEDS.items():
        if name in running and needed in selected and needed not in running:
            processes.stop(running.pop(name))
    wanted = [name for name in selected if name not in running]
    for name in wanted:
        if name != "worker":
            running[name] = SERVICES[name](home, running)
            # Who is still to start finds its old ports: clients keep the address.
            processes.write(home, recorded | running)
    for name in wanted:
        if "probe" in running.get(name, {}):
            processes.wait(running[name], running[name]["probe"], STARTUP_SECONDS)
    if "worker" in wanted:
        deploy(home, running)
        running["worker"] = start_worker(home, running)
    processes.write(home, running)
    return running


def down(home: Path) -> None:
    """Stop everything in `run.json`, in the order opposite to the start; the state stays."""
    running = processes.read(home)
    for name in reversed(running):
        processes.stop(running[name])
    processes.write(home, {})


def client_env(home: Path, running: dict[str, dict]) -> dict[str, str]:
    """Environment of everything that talks to this stack: flows, workers, the command line."""
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")},
        "DO_NOT_TRACK": "true",
        "KREISLAUF_HOME": str(home),
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_API_URL": running["prefect"]["api"],
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }


def deploy(home: Path, running: dict[str, dict]) -> None:
    """`make deploy`, on this stack's server."""
    command = [sys.executable, "-m", "deployments.deploy"]
    done = subprocess.run(
        command, cwd=ROOT, env=client_env(home, running), capture_output=True, text=True
    )
    if done.returncode:
        raise processes.StartError(
            f"The deployments could not be put in place:\n{done.stdout}{done.stderr}"
        )


def start_postgres(home: Path, _: dict) -> dict:
    """Prefect's database. SQLite locks up under bursts of events: `python -m benchmarks.burst`
    shows both."""
    import psutil
    from pgserver import get_server

    data = home / "postgres"
    data.parent.mkdir(parents=True, exist_ok=True)
    server = get_server(data, cleanup_mode=None)
    pid = server.get_pid()
    assert pid is not None
    if "prefect" not in server.psql("SELECT datname FROM pg_database;"):
        server.psql("CREATE DATABASE prefect;")
    url = server.get_uri("prefect").replace("postgresql:", "postgresql+asyncpg:")
    return {
        "pid": pid,
        "started": psutil.Process(pid).create_time(),
        "log": str(data / "log"),
        "url": url,
    }


def start_prefect(home: Path, running: dict) -> dict:
    """The Prefect server with its UI."""
    port = processes.free_port()
    env = {
        **{k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")},
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_API_URL": "/api",
        "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "10",
    }
    if "postgres" in running:
        env["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = running["postgres"]["url"]
    server: list[str | Path] = [_bin("prefect"), "--no-prompt", "server", "start"]
    url = f"http://127.0.0.1:{port}"
    record = processes.spawn(
        "prefect", [*server, "--host", "127.0.0.1", "--port", str(port)], home, env
    )
    return {**record, "url": url, "api": f"{url}/api", "probe": f"{url}/api/health"}


def start_mlflow(home: Path, _: dict) -> dict:
    """The MLflow tracking server and registry; its job queue, ten more processes, stays off."""
    port = processes.free_port()
    folder = home / "mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = [
        _bin("mlflow"), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", folder / "artifacts",
    ]  # fmt: skip
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "DO_NOT_TRACK": "true"}
    url = f"http://127.0.0.1:{port}"
    return {**processes.spawn("mlflow", command, home, env), "url": url, "probe": f"{url}/health"}


def start_triton(home: Path, _: dict) -> dict:
    """The real Triton, out of its wheel, in its own environment; loads what the repository holds.

    That is in `home`, or where `KREISLAUF_TRITON_REPOSITORY` says, if that is on S3.
    """
    before = processes.read(home).get("triton", {})
    http, grpc, metrics = (
        processes.free_port(before.get(name, "")) for name in ("url", "grpc", "metrics")
    )
    repository, models = _triton_repository(home)
    site = triton_environment() / "lib/python3.11/site-packages"
    command: list[str | Path] = [
        site / "pytriton/tritonserver/bin/tritonserver",
        f"--model-repository={repository}", f"--backend-directory={_triton_backends(home, site)}",
        "--model-control-mode=explicit", "--exit-on-error=false", "--strict-readiness=false", "--exit-timeout-secs=3",
        *(f"--load-model={model}" for model in models),
        "--http-address=127.0.0.1", "--grpc-address=127.0.0.1", "--metrics-address=127.0.0.1",
        f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}",
    ]  # fmt: skip
    env = {
        **os.environ,
        "LD_LIBRARY_PATH": f"{site / 'nvidia_pytriton.libs'}:{sysconfig.get_config_var('LIBDIR')}",
        "PYTHONPATH": str(site),
        "PATH": f"{triton_environment() / 'bin'}:{os.environ['PATH']}",
    }
    url = f"http://127.0.0.1:{http}"
    record = processes.spawn("triton", command, home, env)
    urls = {
        "url": url,
        "grpc": f"127.0.0.1:{grpc}",
        "metrics": f"http://127.0.0.1:{metrics}/metrics",
    }
    return {**record, **urls, "probe": f"{url}/v2/health/live"}


def _triton_repository(home: Path) -> tuple[str, list[str]]:
    """Address of the repository as Triton wants it, and the models in it."""
    told = settings().triton_repository
    repository = told if told.startswith("s3://") else str(home / "triton")
    fs, root = fsspec.core.url_to_fs(repository)
    fs.makedirs(root, exist_ok=True)
    models = sorted(path.split("/")[-2] for path in fs.glob(f"{root}/*/config.pbtxt"))
    if repository.startswith("s3://"):
        # Triton takes a prefix without objects for a mistake, and wants the server's address inside
        # its own.
        fs.pipe_file(f"{root.rstrip('/')}/.keep", b"Kreislauf")
        repository = "/".join(filter(None, ["s3:/", os.environ.get("AWS_ENDPOINT_URL"), root]))
    return repository, models


def start_gateway(home: Path, running: dict) -> dict:
    """The gateway, which may start before anything is live."""
    port = processes.free_port(processes.read(home).get("gateway", {}).get("url", ""))
    command: list[str | Path] = [sys.executable, "-m", "serving.app", "--port", str(port)]
    env = {
        **os.environ,
        "KREISLAUF_HOME": str(home),
        "KREISLAUF_TRITON_URL": running["triton"]["grpc"],
    }
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    url = f"http://127.0.0.1:{port}"
    return {**processes.spawn("gateway", command, home, env), "url": url, "probe": f"{url}/health"}


def start_worker(home: Path, running: dict) -> dict:
    """A Prefect worker that takes the runs of the deployments, one process per run.

    A run's process starts up to 6 seconds before the run is due, and waits then: that is as long as
    the trigger of `retrain` puts its runs off, so that imports are done while further events are
    folded in. A run that found no free concurrency slot is tried again 10 - 6 seconds later,
    because the server puts it off by 10.
    """
    env = client_env(home, running) | {
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_WORKER_PREFETCH_SECONDS": "6",
    }
    return processes.spawn(
        "worker",
        [_bin("prefect"), "--no-prompt", "worker", "start", "--pool", WORK_POOL],
        home,
        env,
    )


def triton_environment() -> Path:
    """The virtual environment that `make setup` made for Triton."""
    folder = ROOT / ".venv-triton"
    if not folder.exists():
        raise processes.StartError(f"Triton is not installed in {folder}: run `make setup` first.")
    return folder


def _triton_backends(home: Path, site: Path) -> Path:
    """A writable backends folder: Triton's python backend with its stub, and our onnxruntime beside
    it."""
    folder = home / "triton-backends"
    triton = site / "pytriton/tritonserver"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(triton / "backends/python", folder / "python")
    shutil.copy2(triton / "python_backend_stubs/3.11/triton_python_backend_stub", folder / "python")
    shutil.copytree(ROOT / "deployments/triton/onnxruntime", folder / "onnxruntime")
    return folder


def _bin(name: str) -> Path:
    return Path(sys.executable).parent / name


SERVICES: dict[str, Callable[[Path, dict], dict]] = {
    "postgres": start_postgres,
    "prefect": start_prefect,
    "mlflow": start_mlflow,
    "triton": start_triton,
    "gateway": start_gateway,
    "worker": start_worker,
}


NEEDS = {"prefect": "postgres", "worker": "prefect", "gateway": "triton"}
"""Who holds the address of whom, and has to start anew with it."""


def show(running: dict[str, dict]) -> str:
    """One line per service: where it answers, and whether it runs."""
    return "\n".join(
        f"{name:9} {'runs' if processes.find(record) else 'gone'}  {record.get('url', '')}"
        for name, record in running.items()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["up", "down", "status"])
    command = parser.parse_args().command
    home = settings().home
    if command == "up":
        try:
            up(home)
        except processes.StartError as error:
            sys.exit(f"{error}\n`make down` stops what did start; `make up` tries again.")
    if command == "down":
        down(home)
    print(show(processes.read(home)) or f"Nothing of {home} runs.")


if __name__ == "__main__":
    main()
