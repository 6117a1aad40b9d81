import numpy as np
import polars as pl
import pytest

from tasks import drift
from tasks.drift.diagnosis import Quality, diagnose
from tasks.drift.limits import FALSE_ALARMS, Signal, at_mix, signals


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


def test_limits_keep_the_rate_of_false_alarms_that_they_state():
    rng, false, runs = np.random.default_rng(0), 0, 4_000
    for _ in range(runs):
        drawn = rng.normal(5, 2, (3, 9))
        found = signals(
            dict(zip("abc", drawn[:, 0], strict=True)), dict(zip("abc", drawn[:, 1:].tolist(), strict=True))
        )
        false += any(signal.alarm for signal in found.values())
    assert 0 < false < runs * FALSE_ALARMS * 1.6


def test_a_shift_beyond_the_limit_is_an_alarm_and_what_has_no_past_is_left_out():
    usual = [0.078, 0.079, 0.077, 0.078, 0.080, 0.076]
    found = signals({"carts_share": 0.128, "new": 1.0}, {"carts_share": usual, "new": [1.0] * 4})
    assert [s.name for s in found.values() if s.alarm] == ["carts_share"]
    assert found["carts_share"].windows == 6
    constant = signals({"carts_share": 0.0}, {"carts_share": [0.0] * 6})["carts_share"]
    assert not constant.alarm
    assert signals({"carts_share": 0.001}, {"carts_share": [0.0] * 6})["carts_share"].alarm


def test_quality_is_compared_at_the_same_mix():
    kinds = np.array(["long"] * 3 + ["short"])
    assert at_mix(np.array([1.0, 1, 1, 0]), kinds, {"long": 0.5, "short": 0.5}) == 0.5
    assert at_mix(np.array([1.0, 1, 1, 0]), kinds, {"long": 0.5, "never": 0.5}) == 1.0
    assert np.isnan(at_mix(np.array([1.0]), np.array(["new"]), {"long": 1.0}))


def signal(name: str, value: float, usual: float, limit: float) -> Signal:
    return Signal(name=name, value=value, usual=usual, limit=limit, windows=8)


@pytest.mark.parametrize(
    ("live", "fresh", "gain", "worst", "top", "volume", "verdict"),
    [
        (0.50, 0.40, 0.002, 0.9, 0.01, 6.0, "quiet"),
        (0.30, 0.40, 0.002, 0.5, 0.01, 6.0, "world changed"),  # only the live model fell
        (0.48, 0.40, 0.030, 0.9, 0.01, 6.0, "world changed"),  # learning anew is worth it
        (0.48, 0.40, 0.009, 0.9, 0.01, 6.0, "quiet"),  # it is not
        (0.30, 0.20, 0.010, 0.5, 0.01, 6.0, "data broken"),  # both fell, and learning does not help
        (0.30, 0.30, 0.150, 0.5, 0.01, 6.0, "world changed"),  # both fell, and learning helps
        (0.20, 0.40, 0.300, 0.0, 0.01, 6.0, "data broken"),  # all ids are new
        (0.50, 0.40, 0.030, 0.9, 0.10, 6.0, "data broken"),  # a placeholder
        (0.50, 0.40, 0.030, 0.9, 0.03, 6.0, "world changed"),  # a fashion
        (0.50, 0.40, 0.000, 0.9, 0.01, 5.0, "season or mix"),
    ],
)
def test_each_pattern_has_its_diagnosis(live, fresh, gain, worst, top, volume, verdict):
    quality = Quality(
        live=signal("recall@20", live, 0.5, 0.05), fresh=signal("fresh", fresh, 0.4, 0.05),
        gain=gain, gain_low=gain - 0.001, worst_part=worst,
    )  # fmt: skip
    data = {"top_label": signal("top_label", top, 0.01, 0.005), "volume": signal("volume", volume, 6.0, 0.1)}
    found = diagnose(data, quality, worth=0.01)
    assert found.verdict == verdict
    assert all(sentence.endswith((".", "?")) for sentence in found.evidence)
