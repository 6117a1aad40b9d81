"""A worker that takes the runs of the deployments, on this machine or on another.

`python -m deployments.worker`, or `make worker`, for the Prefect server of PREFECT_API_URL. Where
the lake and the servers are, the environment says here, not that of whoever deployed.
"""

import atexit
import gc
import os
import socket
import sys
import tempfile
from pathlib import Path
from uuid import UUID

from deployments.environment import ROOT, prefect_api_url, python_path
from kreislauf.settings import settings

WORK_POOL = "local"
ADDRESSES = (
    "KREISLAUF_LAKE",
    "KREISLAUF_RELEASES",
    "KREISLAUF_MLFLOW_URL",
    "KREISLAUF_TRITON_URL",
    "KREISLAUF_TRITON_REPOSITORY",
    "KREISLAUF_SPOOL",
)
"""What a worker has to be told that has no folder with all of it."""
PROMPTNESS = {"PREFECT_WORKER_QUERY_SECONDS": "1", "PREFECT_WORKER_PREFETCH_SECONDS": "6"}
"""Settings with which a run's process starts up to 6 seconds before the run is due, and then waits.
The trigger of `retrain` puts its runs off as long, so that imports are done while it folds further
events in. A run without a free concurrency slot is tried again 10 - 6 seconds later, because the
server puts it off by 10."""


class WorkerError(RuntimeError):
    """What a run needs is not where the worker runs."""


def enter_checkout() -> dict[str, str]:
    """The pull step of every deployment: go to the worker's own checkout, whose path need not be
    that of the one which deployed.

    Returns the folder, as Prefect wants it. If something is missing, the run has failed, with that
    as its message, and is not taken up as a crashed one would be; raises WorkerError.
    """
    os.chdir(ROOT)
    # The garbage collection at exit would keep the run's process alive for two seconds more.
    atexit.register(gc.freeze)
    complaint = missing()
    if complaint:
        fail_run(complaint)
        raise WorkerError(complaint)
    return {"directory": str(ROOT)}


def fail_run(complaint: str) -> None:
    """Let the run of this process end with the complaint, which Prefect's UI shows."""
    from prefect.client.orchestration import get_client
    from prefect.runtime import flow_run
    from prefect.states import Failed

    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(flow_run.get_id()), Failed(message=complaint))


def missing() -> str:
    """What runs would lack here, and what to do, in a sentence; empty if nothing."""
    host = socket.gethostname()
    if os.environ.get("KREISLAUF_HOME"):
        home = settings().home
        if home.is_dir():
            return ""
        return (
            f"KREISLAUF_HOME is {home}, and the worker on {host} has no such folder: mount or make "
            "it there, and start the worker anew."
        )
    unset = [name for name in ADDRESSES if not os.environ.get(name)]
    if not unset or settings().running:
        return ""
    return (
        f"The worker on {host} was not told where things are, and no stack of "
        f"{settings().home.resolve()} runs: set {', '.join(unset)} there, or KREISLAUF_HOME to the "
        "folder with all of it, and start the worker anew."
    )


def scratch(home: Path) -> dict[str, str]:
    """The variable with which the worker keeps its files in the home, where the machine's temporary
    folder is closed to it: Prefect's workers of all users want the same folder there."""
    shared = Path(tempfile.gettempdir()) / "runner_storage"
    if not shared.exists() or os.access(shared, os.W_OK | os.X_OK):
        return {}
    own = home / "tmp"
    own.mkdir(parents=True, exist_ok=True)
    return {"TMPDIR": str(own)}


def main() -> None:
    """Become a worker of Prefect's that starts each run with this interpreter and checkout."""
    os.chdir(ROOT)
    complaint = missing()
    if complaint:
        sys.exit(complaint)
    variables = {
        **PROMPTNESS,
        **os.environ,
        **scratch(settings().home),
        "KREISLAUF_PYTHON": sys.executable,
        "PREFECT_API_URL": prefect_api_url(),
        "PYTHONPATH": python_path(),
    }
    prefect = str(Path(sys.executable).parent / "prefect")
    os.execve(prefect, [prefect, "--no-prompt", "worker", "start", "--pool", WORK_POOL], variables)


if __name__ == "__main__":
    main()
