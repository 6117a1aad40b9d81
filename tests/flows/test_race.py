"""Two publishers at once: one wins, and registry and Triton agree with the release log afterwards."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from prefect.settings import PREFECT_API_URL

from flows.ingest import ingest
from flows.promote import promote
from flows.retrain import retrain
from flows.train import train
from serving import live
from tasks import registry, releases
from tests.conftest import ROOT

pytestmark = pytest.mark.usefixtures("prefect_harness", "mlflow_store", "triton")


@contextmanager
def publisher(elsewhere: Path) -> Iterator[subprocess.Popen]:
    """A process of `publisher.py` that knows the model types in `elsewhere`."""
    env = os.environ | {"PYTHONPATH": f"{ROOT}:{elsewhere}", "PREFECT_API_URL": str(PREFECT_API_URL.value())}
    env["PREFECT_LOGGING_LEVEL"] = "CRITICAL"
    command = [sys.executable, "-W", "ignore", "-m", "tests.flows.publisher"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=env, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            assert answer(process) == "ready"
            yield process
        finally:
            process.kill()


def answer(process: subprocess.Popen) -> str:
    line = process.stdout.readline()
    assert line, "the publisher has died: see its standard error"
    return json.loads(line)


@pytest.mark.parametrize("rounds", [10, pytest.param(200, marks=pytest.mark.long)])
def test_of_two_publishers_exactly_one_wins(rounds, tiny, orders, other_models, tmp_path, monkeypatch):
    ingest(orders(0, 20, threshold=50), tiny)
    retrain(tiny)
    ingest(orders(20, 60, threshold=120), tiny)
    rivals = [train(tiny).number, train(tiny, {"steps": 30}).number]
    assert [promote(tiny, number).outcome for number in rivals] == ["promote", "promote"]
    with publisher(other_models.parent) as one, publisher(other_models.parent) as other:
        for number in range(rounds):
            log = str(tmp_path / "logs" / str(number))
            monkeypatch.setenv("KREISLAUF_RELEASES", log)
            releases.append(tiny, 1, "the first", "a test", after=None)
            for process, version in zip((one, other), rivals, strict=True):
                told = {"model": tiny, "version": version, "releases": log}
                process.stdin.write(json.dumps(told) + "\n")
                process.stdin.flush()
            found = answer(one), answer(other)
            assert found.count("published") == 1, found
            winner = rivals[found.index("published")]
            assert [release.champion for release in releases.history(tiny)] == [1, winner]
            assert registry.aliases(tiny) == {"champion": winner, "previous": 1}
            assert live.answer(tiny, {"price": np.array([[60.0]], np.float32)})[0] == winner
