"""Let a temporary Prefect server end with the process that started it, however that one ends.

Prefect stops such a server when its process exits. A process that is killed does not get there.
"""

import os
import subprocess
import sys
import uuid
from contextlib import suppress

import psutil

CALLER = "KREISLAUF_CALLER"
"""Environment variable that children of a process have from it."""
TEMPORARY = "PREFECT__SERVER_EPHEMERAL"
"""Environment variable that Prefect gives its temporary servers."""
WATCHERS: list[subprocess.Popen] = []
"""Keeps the pipe to the watching process open as long as this process lives."""


def stop_with_this_process() -> None:
    """Start a small process that stops the temporary servers of this one once it is gone."""
    token = uuid.uuid4().hex
    os.environ[CALLER] = token
    watcher = subprocess.Popen(
        [sys.executable, "-m", "kreislauf.temporary_server", token],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    WATCHERS.append(watcher)


def stop(token: str) -> None:
    """Stop the temporary servers that a process with this token has started."""
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            variables = process.environ()
            if variables.get(CALLER) == token and TEMPORARY in variables:
                process.terminate()


if __name__ == "__main__":
    sys.stdin.read()  # Nobody writes to the pipe: it ends with the process that holds it.
    stop(sys.argv[1])
