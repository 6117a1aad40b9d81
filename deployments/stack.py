"""The whole loop on one machine's loopback: Postgres, Prefect, MLflow, Triton, gateway, worker.

`python -m deployments.stack up|down|status`. State and `run.json` live under `KREISLAUF_HOME`
(default .kreislauf). Ports are free ones that the home keeps. A second `up` starts what is missing,
and anew what has other settings or code now.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deployments import (
    environment,
    first_model,
    grafana_server,
    observability,
    processes,
    renewal,
    sources,
    status,
    triton_server,
)
from deployments.environment import ROOT
from kreislauf import plain_names

STARTUP_SECONDS = 180
OBSERVERS = ("bridge", "alertmanager", "prometheus", "grafana")
"""Servers without which the loop works."""
OBSERVER_SECONDS = 30
SERVER_SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_API_URL": "/api",
    "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "10",
    # In memory, a restart would forget who holds a deployment's slot: it would end runs that are
    # well, and never free the slot of one that has not begun.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
        "prefect.server.concurrency.lease_storage.filesystem"
    ),
}
"""Environment of Prefect's server; one of your own needs them, too."""


def up(home: Path, services: tuple[str, ...] = (), reset: bool = False) -> dict[str, dict]:
    """Start the servers that do not run yet, by default the embedded ones, and deploy the flows;
    with `reset` also what people have changed on Prefect's server.

    Returns `run.json`. Raises StartError.
    """
    home = plain_names.link_to(home.absolute())
    recorded = processes.read(home)
    running = {name: record for name, record in recorded.items() if processes.find(record)}
    selected = [name for name in SERVICES if name in (services or EMBEDDED)]
    reasons = renewal.reasons(SERVICES, running, selected)
    for name in reversed(reasons):  # The worker before the servers that its runs need.
        print(f"{name} starts anew, {reasons[name]}.")
        processes.stop(running.pop(name))
    missing = [name for name in selected if name not in running]
    for name in missing:
        # A run that its worker has left behind may finish.
        if name in recorded and name != "worker":
            processes.stop(recorded[name])
    for name in missing:
        if name not in ("worker", *OBSERVERS):
            running[name] = start(name, home, running)
            processes.write(home, recorded | running)
    for name in missing:
        if "probe" in running.get(name, {}):
            processes.wait(running[name], running[name]["probe"], STARTUP_SECONDS)
    if "worker" in selected:
        put_worker(home, running, reset)
    processes.write(home, running)
    for name in filter(missing.__contains__, OBSERVERS):
        try:
            running[name] = start(name, home, running)
            processes.write(home, running)
            processes.wait(running[name], running[name]["probe"], OBSERVER_SECONDS)
        except processes.StartError as error:
            print(f"The loop works, but is not watched as it should be. {error}")
            break
    return running


def start(name: str, home: Path, running: dict[str, dict]) -> dict:
    """Start a server. Returns its record, with digests of before: a file may change meanwhile."""
    return {"environment": renewal.digests(name), **SERVICES[name](home, running)}


def put_worker(home: Path, running: dict[str, dict], reset: bool) -> None:
    """Put the deployments in place, if they are others now, and start the worker, if none runs."""
    digest = renewal.digest(renewal.DEPLOYMENTS)
    record = running.get("worker", {})
    if reset or record.get("deployments") != digest:
        if record:
            print("The deployments are put in place anew.")
        deploy(home, running, reset)
    running["worker"] = (record or start("worker", home, running)) | {"deployments": digest}


def down(home: Path) -> None:
    """Stop everything in `run.json`; the state stays.

    The worker goes first, because its runs need the servers, and Postgres last, because the servers
    need it. They stop side by side.
    """
    running = processes.read(home)
    servers = [name for name in running if name not in ("worker", "postgres")]
    with ThreadPoolExecutor() as pool:
        for names in (["worker"], servers, ["postgres"]):
            records = [running[name] for name in names if name in running]
            list(pool.map(processes.stop, records))
    processes.write(home, {})


def client_env(home: Path, running: dict[str, dict]) -> dict[str, str]:
    """Environment of everything that talks to this stack: flows, workers, the command line."""
    return {
        **environment.without_prefect(),
        "DO_NOT_TRACK": "true",
        "KREISLAUF_HOME": str(home),
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_API_URL": running["prefect"]["api"],
        "PREFECT_API_SSL_CERT_FILE": str(environment.one_certificate(home / "prefect")),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "PYTHONPATH": environment.python_path(),
    }


def deploy(home: Path, running: dict[str, dict], reset: bool) -> None:
    """`make deploy`, on this stack's server. Raises StartError."""
    command = [sys.executable, "-m", "deployments.deploy", *["--reset"] * reset]
    done = subprocess.run(
        command, cwd=ROOT, env=client_env(home, running), capture_output=True, text=True
    )
    if done.returncode:
        raise processes.StartError(
            f"The deployments could not be put in place:\n{done.stdout}{done.stderr}"
        )
    print(done.stdout, end="")


def start_postgres(home: Path, _: dict) -> dict:
    """Prefect's database. SQLite locks up under bursts of events: see `benchmarks.burst`."""
    import psutil
    from pgserver import PostgresServer, psql, utils  # type: ignore[attr-defined]

    data = home / "postgres"
    data.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        # Postgres then runs as a user of its own, who has to get to where a link leads.
        utils.ensure_prefix_permissions(data.resolve())
    server = PostgresServer(data, cleanup_mode=None)
    pid = server.get_pid()
    assert pid is not None
    # Not by the server's own psql(): its shell would break the path of a checkout at spaces.
    if "prefect" not in psql(["-c", "SELECT datname FROM pg_database;", server.get_uri()]):
        psql(["-c", "CREATE DATABASE prefect;", server.get_uri()])
    url = server.get_uri("prefect").replace("postgresql:", "postgresql+asyncpg:")
    return {
        "pid": pid,
        "started": psutil.Process(pid).create_time(),
        "log": str(data / "log"),
        "url": url,
    }


def start_prefect(home: Path, running: dict) -> dict:
    """The Prefect server with its UI."""
    port = processes.lasting_port(home, "prefect")
    env = environment.without_prefect() | SERVER_SETTINGS | {"PREFECT_HOME": str(home / "prefect")}
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
    port = processes.lasting_port(home, "mlflow")
    folder = home / "mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = [_bin("mlflow"), "server"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", folder / "artifacts"]
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "DO_NOT_TRACK": "true"}
    url = f"http://127.0.0.1:{port}"
    return {**processes.spawn("mlflow", command, home, env), "url": url, "probe": f"{url}/health"}


def start_gateway(home: Path, running: dict) -> dict:
    """The gateway, which may start before anything is live."""
    port = processes.lasting_port(home, "gateway")
    command: list[str | Path] = [sys.executable, "-m", "serving.app", "--port", str(port)]
    env = {
        **os.environ,
        "KREISLAUF_HOME": str(home),
        "KREISLAUF_TRITON_URL": running["triton"]["grpc"],
        "PYTHONPATH": environment.python_path(),
    }
    url = f"http://127.0.0.1:{port}"
    return {**processes.spawn("gateway", command, home, env), "url": url, "probe": f"{url}/health"}


def start_worker(home: Path, running: dict) -> dict:
    """A Prefect worker that takes the runs of the deployments, one process per run."""
    command = [sys.executable, "-m", "deployments.worker"]
    return processes.spawn("worker", command, home, client_env(home, running))


def _bin(name: str) -> Path:
    return Path(sys.executable).parent / name


SERVICES: dict[str, Callable[[Path, dict], dict]] = {
    "postgres": start_postgres,
    "prefect": start_prefect,
    "mlflow": start_mlflow,
    "triton": triton_server.start,
    "gateway": start_gateway,
    "worker": start_worker,
    "bridge": observability.start_bridge,
    "alertmanager": observability.start_alertmanager,
    "prometheus": observability.start_prometheus,
    "grafana": grafana_server.start,
}
EMBEDDED = ("postgres", "prefect", "mlflow", "triton", "gateway", "worker")
"""Servers that are installed with Kreislauf."""


def main() -> None:
    """Run the command, and show the servers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["up", "down", "status"])
    parser.add_argument("--reset", action="store_true", help="undo what people changed in Prefect")
    parser.add_argument("--data", help="a shop's events, of which a first model is made")
    parser.add_argument("--mapping", help="a YAML file that says what their columns are")
    given = parser.parse_args()
    home = environment.home()
    if given.command == "up":
        first_model.check(given.data, given.mapping)
        try:
            running = up(home, (*EMBEDDED, *observability.installed()), given.reset)
        except processes.StartError as error:
            sys.exit(f"{error}\n`make down` stops what did start; `make up` tries again.")
        if given.data:
            first_model.make(client_env(home, running), given.data, given.mapping)
    if given.command == "down":
        down(home)
    if given.command == "up" and observability.hint():
        print(observability.hint())
    running = processes.read(home)
    if not running:
        print(f"Nothing of {home} runs.")
    landing = sources.show() if given.command == "status" else []
    if running or landing:
        print(status.show(running, landing))


if __name__ == "__main__":
    main()
