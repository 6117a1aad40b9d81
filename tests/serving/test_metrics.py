"""The monitor's status as series, also of a file with the names of yesterday."""

import json
from pathlib import Path

from prometheus_client import generate_latest

from kreislauf.monitoring import status
from kreislauf.settings import settings
from serving.metrics import Metrics


def test_a_status_with_former_names_is_shown_with_today_s_labels(home: Path):
    folder = Path(settings().releases) / "tiny"
    folder.mkdir(parents=True)
    signals = {"fresh": {"value": 0.3, "usual": 0.2, "limit": 0.05}}
    content = {"model": "tiny", "version": 1, "end": 5_000, "at": 9_000, "signals": signals}
    (folder / "monitor.json").write_text(json.dumps(content | {"verdict": "world changed"}))
    metrics = Metrics()
    newest = status.read("tiny")
    assert newest
    metrics.show_monitor(newest)
    lines = generate_latest(metrics.registry).decode().splitlines()
    series = [line for line in lines if line.startswith("kreislauf_monitor_")]
    assert {
        'kreislauf_monitor_verdict{model="tiny",verdict="concept drift"} 1.0',
        'kreislauf_monitor_signal{model="tiny",part="value",signal="refit_baseline"} 0.3',
        'kreislauf_monitor_signal{model="tiny",part="mean",signal="refit_baseline"} 0.2',
        'kreislauf_monitor_signal{model="tiny",part="tolerance",signal="refit_baseline"} 0.05',
    } <= set(series)
    assert len(series) == 6
