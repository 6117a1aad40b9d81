"""The data of the tiny model type, and a stack as `make up` starts it."""

import subprocess
import sys
from pathlib import Path

from deployments import processes
from tests.conftest import ROOT
from tests.flows.conftest import orders  # noqa: F401


def start(home: Path, services: tuple[str, ...]) -> dict[str, dict]:
    """Start the servers in a process of its own, as the command does: what starts Postgres keeps in
    mind that it runs. Returns `run.json`."""
    code = f"from deployments import stack; stack.up(stack.Path({str(home)!r}), {services!r})"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    return processes.read(home)
