"""Each window has what the first version that was ever live would answer, beside the live one."""

import polars as pl
import pytest

from flows.ingest import ingest
from flows.monitor import monitor
from flows.retrain import retrain
from kreislauf import registry
from kreislauf.lake import journal
from kreislauf.monitoring import tables
from tests.flows.test_loop import one_release

pytestmark = pytest.mark.usefixtures("prefect_harness", "mlflow_store", "triton")


@pytest.mark.slow
def test_each_window_has_what_the_first_version_and_the_baseline_would_answer(
    prepared, tiny, orders
):
    prepared(one_release)
    ingest(orders(20, 60, threshold=120), tiny)
    monitor(tiny)
    (live, first) = recorded(1)
    assert first == live < 0.8
    better = retrain(tiny)
    assert better.release == 2
    ingest(orders(60, 70, threshold=120), tiny)
    monitor(tiny)
    (live, first) = recorded(better.version)
    assert live > 0.8 > first > 0
    registry.delete(registry.get(tiny, 1))
    ingest(orders(70, 80, threshold=120), tiny)
    monitor(tiny)
    (live, first) = recorded(better.version)
    assert live > 0.8
    assert first is None, "it was deleted, and no look fails for that"


def recorded(version: int) -> tuple[float, float | None]:
    """Quality of the live version and of the first one in the newest window of a version."""
    rows = tables.read(tables.WINDOWS, version=version)
    looks = rows.filter(pl.col("verdict") != "calibration")
    newest = looks.filter(pl.col("end") == looks["end"].max())
    values = dict(newest.select("signal", "value").rows())
    assert 0 < values[tables.BASELINE] < 1
    return values["accuracy"], values.get(tables.FIRST_VERSION)


@pytest.mark.slow
def test_a_look_at_a_recorded_window_asks_the_first_version_no_more(
    prepared, tiny, orders, monkeypatch
):
    prepared(one_release)
    ingest(orders(20, 60, threshold=120), tiny)
    better = retrain(tiny)
    ingest(orders(60, 70, threshold=120), tiny)
    monitor(tiny)
    before = journal.read(tables.WINDOWS).height
    first = registry.get(tiny, 1)
    asked = []
    onnx_file = registry.onnx_file

    def note(version):
        asked.append(version.number)
        return onnx_file(version)

    monkeypatch.setattr(registry, "onnx_file", note)
    monitor(tiny)
    assert first.number not in asked
    assert better.version in asked
    assert journal.read(tables.WINDOWS).height == before
