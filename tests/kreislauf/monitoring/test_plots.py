"""Pictures of the monitor's page."""

import matplotlib.text
import polars as pl
import pytest

from kreislauf.clock import DAY_MS
from kreislauf.monitoring import plots

DAYS = 90


def windows(versions: int) -> pl.DataFrame:
    """A window of each day, with a new version every so often."""
    return pl.DataFrame(
        [
            {
                "version": 1 + day * versions // DAYS,
                "start": (day - 7) * DAY_MS,
                "end": day * DAY_MS,
                "signal": "recall",
                "value": 0.4 + day % 5 / 100,
                "verdict": "stable",
            }
            for day in range(DAYS)
        ]
    )


def test_the_curve_stays_readable_after_many_versions(monkeypatch: pytest.MonkeyPatch):
    drawn: list[str] = []
    original = matplotlib.text.Text.draw

    def draw(text: matplotlib.text.Text, renderer) -> None:
        drawn.append(text.get_text())
        original(text, renderer)

    monkeypatch.setattr(matplotlib.text.Text, "draw", draw)
    plots.history(windows(1), "recall")
    of_one = len(drawn)
    drawn.clear()
    plots.history(windows(13), "recall")
    assert len(drawn) == of_one
    assert "live quality by window (red: not stable); version 1 to 13" in drawn
