import numpy as np
import polars as pl
import pytest

from tasks import drift


def frame(rows: int, shift: float, seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame({"length": rng.poisson(5 + shift, rows), "share": rng.random(rows)})


def test_equal_data_does_not_drift(tmp_path):
    found = drift.compare(frame(5000, 0, 1), frame(3000, 0, 2), tmp_path / "drift.html")
    assert found.drifted == []
    assert set(found.values) == {"length", "share"}
    assert found.report.stat().st_size > 100_000


def test_a_moved_column_is_named(tmp_path):
    found = drift.compare(frame(5000, 3, 1), frame(3000, 0, 2), tmp_path / "drift.html")
    assert found.drifted == ["length"]
    assert found.sentence().startswith("Drift: length (PSI ")


def test_a_missing_column_is_an_error_and_not_a_quiet_gap(tmp_path):
    with pytest.raises(ValueError, match="the reference"):
        drift.compare(frame(100, 0, 1).drop("share"), frame(100, 0, 2), tmp_path / "drift.html")
