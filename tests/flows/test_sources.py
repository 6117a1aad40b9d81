"""Two sources of one table: the slower one is learnt from, and one that stops is an alarm."""

from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from flows.ingest import ingest
from flows.monitor import monitor
from flows.retrain import retrain
from kreislauf import events, lake, registry
from kreislauf.clock import DAY_MS
from kreislauf.evaluation import split
from kreislauf.lake import journal
from kreislauf.monitoring import stops
from kreislauf.training import inputs
from models import spec
from tasks.train import new_groups
from tests.flows.test_loop import newest_page

pytestmark = pytest.mark.usefixtures("prefect_harness", "mlflow_store", "triton")

START = 1_700_000_000_000
SOURCES = ("web", "app")


@pytest.fixture
def deliver(tiny: str, tmp_path: Path):
    """Ingests days [first, last) of a source: `web` has the even orders of a day, `app` the odd
    ones; those above a price are mostly sent back."""

    def bring(source: str, first: int, last: int) -> None:
        path = tmp_path / source / f"{first}.jsonl"
        path.parent.mkdir(exist_ok=True)
        rng = np.random.default_rng(first)
        lines = []
        for number in range(first * 200 + SOURCES.index(source), last * 200, 2):
            price = float(rng.integers(1, 200))
            returned = bool((price > 50) ^ (rng.random() < 0.1))
            order = {"order": number, "ts": START + number * DAY_MS // 200, "price": price}
            lines.append(msgspec.json.encode(order | {"returned": returned}))
        path.write_bytes(b"\n".join(lines))
        ingest(str(path), tiny)

    return bring


@pytest.fixture
def emitted(monkeypatch) -> list[dict]:
    """Payloads of the events about sources that have stopped."""
    payloads: list[dict] = []
    emit = events.emit_event

    def note(event: str, **given):
        if event == events.SOURCE_STOPPED:
            payloads.append(given["payload"])
        return emit(event=event, **given)

    monkeypatch.setattr(events, "emit_event", note)
    return payloads


def both(deliver, first: int, last: int) -> None:
    """Days [first, last) of both sources, day by day."""
    for day in range(first, last):
        for source in SOURCES:
            deliver(source, day, day + 1)


def alarms() -> list[tuple]:
    rows = journal.read("alarms")
    if rows.is_empty():
        return []
    of_sources = rows.filter(verdict=stops.SOURCE_STOPPED).sort("end")
    return of_sources.select("source", "action").rows()


@pytest.mark.slow
def test_a_source_that_stops_is_an_alarm_once_until_it_delivers_again(
    tiny, deliver, emitted, tmp_path
):
    deliver("web", 0, 18)
    deliver("app", 0, 18)
    both(deliver, 18, 20)
    retrain(tiny)
    for day in range(20, 25):
        deliver("web", day, day + 1)
    app = str(tmp_path / "app")
    finding = monitor(tiny)
    (remark,) = finding.remarks
    assert remark.startswith(
        f"The source {app} has stopped: its newest event is of 2023-12-04 22:06 (UTC), 4 d 23 h "
        "behind the furthest source, and usually it delivers after 23 h 52 min at most. "
    )
    assert f"- {remark}" in newest_page("monitor-tiny")
    assert finding.verdict == "stable", finding.reason
    assert "volume" not in {signal.name for signal in finding.signals}
    monitor(tiny)
    assert alarms() == [(app, stops.REPORTED)], "once, not at each look"
    assert [(e["source"], e["model"], e["table"]) for e in emitted] == [(app, tiny, "orders")]

    for day in range(20, 25):
        deliver("app", day, day + 1)
    assert monitor(tiny).remarks == []
    monitor(tiny)
    assert alarms() == [(app, stops.REPORTED), (app, stops.DELIVERS_AGAIN)]
    both(deliver, 25, 29)
    for day in range(29, 34):
        deliver("web", day, day + 1)
    monitor(tiny)
    assert alarms()[2:] == [(app, stops.REPORTED)]
    assert len(emitted) == 2


def test_late_sessions_are_learnt_from_and_none_is_left_out_for_ever(tiny, deliver):
    deliver("web", 0, 18)
    deliver("app", 0, 15)
    deliver("app", 16, 18)  # One day is missing.
    both(deliver, 18, 20)
    deliver("web", 20, 21)
    model_type = spec.load(tiny)
    data = inputs.read_newest(model_type)
    assert data.newest.time == last_event("app", 19), "what only the faster source has waits"
    assert data.newest.agreed == last_event("web", 20)
    assert sources_of(data.rows) == {"web": 2_000, "app": 1_900}

    retrain(tiny)
    parent = registry.get(tiny, 1).lineage
    assert parent.watermark == last_event("app", 19)
    deliver("app", 15, 16)
    deliver("app", 20, 21)
    deliver("web", 21, 22)
    data = inputs.read_newest(model_type)
    assert data.newest.time == last_event("app", 20)
    assert sources_of(data.rows) == {"web": 2_100, "app": 2_100}, "all rows until then"
    lineage = data.lineage("orders", "key", parent=1)
    learnt = data.rows.filter(pl.col("ts") < lineage.holdout)
    judged = split.started(data.rows, model_type.table, lineage.holdout, lineage.watermark)
    assert learnt.height + judged.height == data.rows.height, "each row is in one of them"
    late = set(range(15 * 200 + 1, 16 * 200, 2))
    assert late < set(learnt["order"])
    since = set(learnt.filter(pl.col("ts") >= parent.holdout)["order"])
    assert set(new_groups(model_type, learnt, lineage)) == late | since

    for day in (22, 23, 24, 25):
        deliver("web", day, day + 1)
    assert lake.watermark(model_type.table) == last_event("web", 25), "the app has stopped"
    for day in (21, 22, 23, 24, 25):
        deliver("app", day, day + 1)
    assert sources_of(inputs.read_newest(model_type).rows)["app"] >= 26 * 100 - 1


def last_event(source: str, day: int) -> int:
    """Time of the last order of a source on a day, ms."""
    return START + (day * 200 + 198 + SOURCES.index(source)) * DAY_MS // 200


def sources_of(rows: pl.DataFrame) -> dict[str, int]:
    """Number of orders of each source."""
    odd = int((rows["order"] % 2).sum())
    return {"web": rows.height - odd, "app": odd}
