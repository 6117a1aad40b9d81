"""How `46dd79c.tar.xz` was made, with the code of that commit and the names that it had.

It is not run by the tests. To make it again: check that commit out, put this file into its folder
`tests/flows` as `test_make.py`, run it with pytest, and pack what it leaves in /tmp/stored.
"""

import json
import shutil
import sqlite3
from pathlib import Path

import polars as pl
import pytest

from demo import raw_files
from demo.shop import Plan, simulate

pytestmark = pytest.mark.usefixtures("prefect_harness", "mlflow_store", "triton")
DAY = 86_400_000


def test_make(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from flows.ingest import ingest
    from flows.monitor import monitor
    from flows.retrain import retrain
    from flows.train import train
    from flows.tune import tune
    from models import spec
    from models.spec import Policy
    from tasks import lake  # the lake of that commit

    kind = spec.load("session_recommender")
    monkeypatch.setattr(type(kind), "policy", Policy(min_effect=0.1, baseline_margin=0.05))
    shop = simulate(Plan(days=30, sessions_per_day=60, articles=120, change_day=22))
    start = shop["ts"].min()
    params = kind.Params.tiny().model_dump()

    def days(first: int, last: int) -> str:
        inside = pl.col("ts").is_between(start + first * DAY, start + last * DAY - 1)
        return str(raw_files.write(shop.filter(inside), home / "raw" / f"{first}.jsonl"))

    history = days(0, 16)
    with open(history, "a") as file:
        event = {"aid": -4, "ts": 1659304800025, "type": "clicks"}
        file.write(json.dumps({"session": 9, "events": [event]}) + "\nnonsense\n")
    ingest(history)
    retrain("session_recommender", params=params)
    ingest(days(16, 20))
    monitor(window_days=4)
    for name, lines in reactions(lake.watermark(kind.table)).items():
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join(json.dumps(line) for line in lines))
        ingest(str(path), table=name)
    ingest(days(20, 26))
    monitor(window_days=4, cost=0.0)
    retrain("session_recommender", params=params, cooldown_days=0.5)
    ingest(days(26, 30))
    lake.distrust("events", start + 27 * DAY, start + 27 * DAY + 3_600_000, "a shop's clock")
    fixed = {name: params[name] for name in ("dim", "epochs", "batch_size", "ranker_epochs")}
    tune(trials=2, params=fixed, workers=1)
    train("session_recommender", params | {"seed": 3})
    keep(home, Path("/tmp/stored"))


def reactions(newest: int) -> dict[str, list[dict]]:
    """Lines of exposures, and of feedback to a third of them."""
    shown = []
    clicked = []
    for number in range(300):
        about = {
            "request_id": f"r{number}",
            "ts": newest - 2 * DAY + number * 60_000,
            "model": "session_recommender",
            "version": 1,
            "variant": "champion",
        }
        shown.append(about | {"user": f"u{number}", "items": "[1, 2]", "latency_ms": 1.0})
        if number % 3 == 0 or number == 299:
            clicked.append(about | {"kind": "click", "item": "1"})
    return {"exposures": shown, "feedback": clicked}


def keep(home: Path, folder: Path) -> None:
    """Copy what is state, without caches, raw files and reports."""
    shutil.copytree(home, folder)
    for name in ("cache", "raw", "spool", "training", "search"):
        shutil.rmtree(folder / name)
    for pattern in ("monitor", "card"):
        for reports in folder.glob(f"mlflow/artifacts/*/artifacts/{pattern}"):
            shutil.rmtree(reports)
    with sqlite3.connect(folder / "mlflow" / "mlflow.db") as database:
        database.execute("vacuum")
