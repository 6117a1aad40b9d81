"""A run of the tests that loses a process fails, and ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

CONFTEST = """
import os, signal, time
from tests.conftest import pytest_sessionfinish, pytest_testnodedown

def pytest_collection_modifyitems():
    if os.environ["WHEN"] == "collecting" and os.environ.get("PYTEST_XDIST_WORKER") == "gw1":
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)
"""
TEST = """
import os, signal

def test_1():
    if os.environ["WHEN"] == "testing" and {number} == 40:
        os.kill(os.getpid(), signal.SIGKILL)

def test_2():
    pass
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["collecting", "testing"])
def test_a_run_that_loses_a_worker_fails_and_ends(tmp_path: Path, when: str):
    (tmp_path / "conftest.py").write_text(CONFTEST)
    for number in range(50):
        (tmp_path / f"test_{number}.py").write_text(TEST.format(number=number))
    options = [f"--rootdir={tmp_path}", f"--config-file={ROOT / 'pyproject.toml'}"]
    # These tests may run in a worker themselves.
    env = {name: value for name, value in os.environ.items() if "XDIST" not in name}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-p", "no:cacheprovider", str(tmp_path)],
        cwd=ROOT,
        env=env | {"WHEN": when, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    assert "ended with -9" in done.stdout
    names_the_test = "test_40.py::test_1" in done.stdout
    assert names_the_test == (when == "testing")
