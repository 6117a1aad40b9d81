"""Processes that are told on standard input what to do, one JSON line each, and answer each with
one."""

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
def teller(module: str, elsewhere: Path) -> Iterator[subprocess.Popen]:
    """A process of `tests.flows.<module>` that knows the model types in `elsewhere`, ready to be
    told."""
    env = os.environ | {
        "PYTHONPATH": f"{ROOT}:{elsewhere}",
        "PREFECT_API_URL": str(PREFECT_API_URL.value()),
    }
    env["PREFECT_LOGGING_LEVEL"] = "CRITICAL"
    command = [sys.executable, "-W", "ignore", "-m", f"tests.flows.{module}"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stdin=pipe, stdout=pipe, text=True
    ) as process:
        try:
            assert answer(process) == "ready"
            yield process
        finally:
            process.kill()


def tell(process: subprocess.Popen, what: dict) -> None:
    """Returns at once."""
    process.stdin.write(json.dumps(what) + "\n")
    process.stdin.flush()


def answer(process: subprocess.Popen) -> str:
    """Waits for it."""
    line = process.stdout.readline()
    assert line, "the process has died: see its standard error"
    return json.loads(line)


def ask(process: subprocess.Popen, what: dict) -> str:
    """Tells it, and waits for the answer."""
    tell(process, what)
    return answer(process)
