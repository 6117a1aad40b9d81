"""Past windows are loaded, answered and monitored as one run, and not twice."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from prefect.client.orchestration import get_client

from flows.backfill import BackfillError, Window, backfill, cut
from flows.ingest import ingest
from flows.retrain import retrain
from kreislauf import lake
from kreislauf.batch import answers
from kreislauf.lake import journal
from kreislauf.monitoring import status
from models import spec

pytestmark = pytest.mark.usefixtures("prefect_harness", "mlflow_store", "triton")
START = datetime.fromtimestamp(1_700_000_000, UTC)


def day(number: int) -> datetime:
    """Beginning of a day of the orders."""
    return START + timedelta(days=number)


def test_windows_cover_the_time_and_no_more():
    windows = cut(day(0), day(0) + timedelta(hours=30), timedelta(hours=12))
    assert [(w.start, w.end) for w in windows] == [
        (day(0), day(0) + timedelta(hours=12)),
        (day(0) + timedelta(hours=12), day(1)),
        (day(1), day(1) + timedelta(hours=6)),
    ]
    assert cut(day(0), day(1), timedelta(days=9)) == [Window(day(0), day(1))]
    berlin = ZoneInfo("Europe/Berlin")
    spring = cut(
        datetime(2022, 3, 27, tzinfo=berlin),
        datetime(2022, 3, 28, tzinfo=berlin),
        timedelta(hours=1),
    )
    assert len(spring) == 23
    assert all(window.end - window.start == timedelta(hours=1) for window in spring)


@pytest.mark.slow
def test_past_windows_are_done_once_and_as_one_run(tiny, orders, tmp_path):
    for number in range(0, 30, 5):
        folder = tmp_path / "raw" / f"{day(number):%Y-%m-%d}"
        folder.mkdir(parents=True)
        Path(orders(number, number + 5, threshold=50)).rename(folder / "orders.jsonl")
    files = {"source": str(tmp_path / "raw" / "{start:%Y-%m-%d}"), "hours": 5 * 24}
    loaded = backfill("ingest", day(0), day(20), tiny, **files)
    assert len(loaded) == 4
    assert all(report.outcome.startswith("1000 rows kept; 1 files loaded") for report in loaded)
    again = backfill("ingest", day(0), day(20), tiny, **files, side_by_side=4)
    assert all("0 files loaded, 1 were there" in report.outcome for report in again)
    assert lake.read(spec.load(tiny).table).height == 4_000
    assert retrain(tiny).release == 1

    backfill("ingest", day(20), day(30), tiny, **files)
    with pytest.raises(BackfillError, match=r"2 of 3 windows failed") as failure:
        backfill("ingest", day(25), day(40), tiny, **files)
    assert "does not exist" in str(failure.value)

    answered = backfill("score", day(20), day(23), tiny)
    assert ["answered 200 requests" in report.outcome for report in answered] == [True] * 3
    first = answers.scan().collect()
    assert first.height == 600
    assert first["batch"].n_unique() == 3
    backfill("score", day(20), day(23), tiny)
    assert answers.scan().collect().sort("request_id").equals(first.sort("request_id"))

    ahead = backfill("monitor", day(60), day(67), tiny, hours=7 * 24)
    assert ahead[0].outcome == "There are no rows yet."
    judged_windows = backfill("monitor", day(6), day(27), tiny, hours=7 * 24)
    assert judged_windows[0].outcome == "Nothing was live."
    assert judged_windows[1].outcome.startswith("Version 1: not enough data")
    assert judged_windows[2].outcome.startswith("Version 1: stable")
    windows = journal.read("windows")
    (end,) = windows.filter(pl.col("verdict") == "stable")["end"].unique()
    assert day(26) < datetime.fromtimestamp(end / 1000, UTC) < day(27)
    assert status.read(tiny) is None, "what was is no news"
    assert journal.read("alarms").is_empty()
    backfill("monitor", day(20), day(27), tiny, hours=7 * 24)
    assert journal.read("windows").equals(windows)


def test_what_cannot_be_done_is_said(tiny):
    with pytest.raises(ValueError, match="There is no time between"):
        backfill("score", day(1), day(1), tiny)
    with pytest.raises(ValueError, match="more than 0"):
        backfill("score", day(1), day(2), tiny, hours=0)
    with pytest.raises(ValueError, match="say where each one's files are"):
        backfill("ingest", day(1), day(2), tiny)
    with pytest.raises(ValueError, match="No model type is called"):
        backfill("score", day(1), day(2), "nobody")


def test_the_runs_of_windows_are_below_the_run_of_the_backfill(tiny, orders, tmp_path):
    raw = tmp_path / "raw" / "{start:%Y-%m-%d}"
    for number in range(2):
        folder = Path(str(raw).format(start=day(number)))
        folder.mkdir(parents=True)
        Path(orders(number, number + 1, threshold=50)).rename(folder / "orders.jsonl")
    ingest(str(raw).format(start=day(0)), tiny)
    backfill("ingest", day(0), day(2), tiny, source=str(raw), side_by_side=2)
    with get_client(sync_client=True) as client:
        runs = {run.id: run for run in client.read_flow_runs()}
        backfills = {
            run.id for run in runs.values() if client.read_flow(run.flow_id).name == "backfill"
        }
        task_runs = client.read_task_runs()
    parents = {task.id for task in task_runs if task.flow_run_id in backfills}
    below = [run for run in runs.values() if run.parent_task_run_id in parents]
    assert len(below) >= 2
