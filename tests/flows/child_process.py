"""Processes that take JSON lines on standard input, and answer each with one."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect.settings import PREFECT_API_URL

from tests.conftest import ROOT


@contextmanager
def started(module: str, elsewhere: Path) -> Iterator[subprocess.Popen]:
    """A process of `tests.flows.<module>` that finds the model types in `elsewhere`, ready for
    orders."""
    env = os.environ | {
        "PYTHONPATH": f"{ROOT}:{elsewhere}",
        "PREFECT_API_URL": str(PREFECT_API_URL.value()),
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
    }
    command = [sys.executable, "-W", "ignore", "-m", f"tests.flows.{module}"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stdin=pipe, stdout=pipe, text=True
    ) as process:
        try:
            assert receive(process) == "ready"
            yield process
        finally:
            process.kill()


def send(process: subprocess.Popen, order: dict) -> None:
    """Send an order, and return at once."""
    process.stdin.write(json.dumps(order) + "\n")
    process.stdin.flush()


def receive(process: subprocess.Popen) -> str:
    """Wait for the answer to an order."""
    line = process.stdout.readline()
    assert line, "the process has died: see its standard error"
    return json.loads(line)


def ask(process: subprocess.Popen, order: dict) -> str:
    """Send an order, and wait for the answer."""
    send(process, order)
    return receive(process)
