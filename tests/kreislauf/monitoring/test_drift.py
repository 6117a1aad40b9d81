import dataclasses
import functools
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from kreislauf.evaluation.intervals import Interval
from kreislauf.monitoring import calibration, drift, limits, measurement, regret, window
from kreislauf.monitoring.diagnosis import Diagnosis, judge
from kreislauf.monitoring.limits import FALSE_ALARM_RATE, Measured, Signal
from kreislauf.monitoring.statistics import (
    fault_interval,
    frequency_correlation,
    new_label_shares,
    standardised_mean,
    stretch_means,
)
from kreislauf.monitoring.window_quality import WindowQuality
from models.session_recommender import SPEC
from models.session_recommender.schema import EVENT_TYPES
from models.spec import Policy


def frame(rows: int, shift: float, seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame({"length": rng.poisson(5 + shift, rows), "share": rng.random(rows)})


def test_equal_data_does_not_drift(tmp_path):
    comparison = drift.compare(frame(5000, 0, 1), frame(3000, 0, 2), tmp_path / "drift.html")
    assert max(comparison.values.values()) < drift.THRESHOLD
    assert set(comparison.values) == {"length", "share"}
    assert comparison.report.stat().st_size > 100_000


def test_a_moved_column_is_named(tmp_path):
    comparison = drift.compare(frame(5000, 3, 1), frame(3000, 0, 2), tmp_path / "drift.html")
    assert [name for name, psi in comparison.values.items() if psi >= drift.THRESHOLD] == ["length"]


@pytest.mark.parametrize("dtype", [pl.UInt8, pl.UInt32, pl.UInt64])
def test_numbers_without_a_sign_are_compared_too(dtype, tmp_path):
    past, now = (
        frame(2000, shift, 1).with_columns(pl.col("length").cast(dtype)) for shift in (0, 3)
    )
    values = drift.compare(now, past, tmp_path / "drift.html").values
    assert values["length"] >= drift.THRESHOLD > values["share"]


def test_a_missing_column_is_an_error_and_not_a_silent_gap(tmp_path):
    with pytest.raises(ValueError, match="the reference"):
        drift.compare(frame(100, 0, 1).drop("share"), frame(100, 0, 2), tmp_path / "drift.html")


def test_limits_keep_the_rate_of_false_alarms_that_they_state():
    rng, false, runs = np.random.default_rng(0), 0, 4_000
    for _ in range(runs):
        drawn = rng.normal(5, 2, (3, 9))
        signals = compare(
            dict(zip("abc", drawn[:, 0], strict=True)),
            dict(zip("abc", drawn[:, 1:].tolist(), strict=True)),
        )
        false += any(signal.alarm for signal in signals.values())
    assert 0 < false < runs * FALSE_ALARM_RATE * 1.6


def test_a_shift_beyond_the_limit_is_an_alarm_and_what_has_no_past_is_left_out():
    history = [0.078, 0.079, 0.077, 0.078, 0.080, 0.076]
    signals = compare(
        {"carts_share": 0.128, "new": 1.0}, {"carts_share": history, "new": [1.0] * 4}
    )
    assert [s.name for s in signals.values() if s.alarm] == ["carts_share"]
    assert signals["carts_share"].windows == 6
    constant = compare({"carts_share": 0.0}, {"carts_share": [0.0] * 6})["carts_share"]
    assert not constant.alarm
    assert compare({"carts_share": 0.001}, {"carts_share": [0.0] * 6})["carts_share"].alarm


def test_quality_is_compared_at_the_same_mix():
    kinds = np.array(["long"] * 3 + ["short"])
    assert standardised_mean(np.array([1.0, 1, 1, 0]), kinds, {"long": 0.5, "short": 0.5}) == 0.5
    assert standardised_mean(np.array([1.0, 1, 1, 0]), kinds, {"long": 0.5, "never": 0.5}) == 1.0
    assert np.isnan(standardised_mean(np.array([1.0]), np.array(["new"]), {"long": 1.0}))


def signal(name: str, value: float, mean: float, tolerance: float) -> Signal:
    return Signal(name=name, value=value, mean=mean, tolerance=tolerance, windows=8)


def compare(values: dict[str, float], histories: dict[str, list[float]]) -> dict[str, Signal]:
    measured = {
        name: Measured(value=value, history=histories.get(name, []))
        for name, value in values.items()
    }
    return limits.compare(measured)


CALM = {
    "live": 0.50,
    "refit": 0.40,
    "refit_tail": 0.40,
    "gain": 0.002,
    "worst": 0.9,
    "top": 0.01,
    "new": (0.001, 0.1),
}


@pytest.mark.parametrize(
    ("seen", "verdict"),
    {
        "nothing": ({}, "stable"),
        "only the live model fell": ({"live": 0.30, "worst": 0.5}, "concept drift"),
        "retraining is worth it": ({"live": 0.48, "gain": 0.030}, "concept drift"),
        "it is not": ({"live": 0.48, "gain": 0.009}, "stable"),
        "all fell, and learning does not help": (
            {"live": 0.3, "refit": 0.2, "refit_tail": 0.2, "gain": 0.01},
            "data fault",
        ),
        "all fell, and learning helps": (
            {"live": 0.3, "refit": 0.3, "refit_tail": 0.3, "gain": 0.15},
            "concept drift",
        ),
        "two worlds in one window": ({"live": 0.3, "refit": 0.3, "gain": 0.01}, "concept drift"),
        "ids mean something else": (
            {"live": 0.2, "gain": 0.3, "worst": 0.3, "label_correlation": 0.1},
            "data fault",
        ),
        "other ways between the same": ({"live": 0.2, "gain": 0.3, "worst": 0.3}, "concept drift"),
        "a placeholder": ({"top": 0.10, "gain": 0.03}, "data fault"),
        "a fashion": ({"top": 0.03, "gain": 0.03}, "concept drift"),
        "a new placeholder": ({"new": (0.009, 0.012), "gain": 0.03}, "data fault"),
        "a new assortment": ({"new": (0.009, 0.300), "gain": 0.03}, "concept drift"),
        "other favourites": ({"live": 0.46, "label_correlation": 0.3}, "concept drift"),
        "other favourites, answered as well": (
            {"live": 0.50, "label_correlation": 0.3},
            "covariate shift",
        ),
        "fewer visitors": ({"volume": 5.0}, "covariate shift"),
    }.values(),
)
def test_each_pattern_has_its_diagnosis(seen, verdict):
    s = CALM | {"volume": 6.0, "label_correlation": 0.9} | seen
    quality = WindowQuality(
        live=signal("recall@20", s["live"], 0.5, 0.05),
        refit=signal("refit_baseline", s["refit"], 0.4, 0.05),
        refit_tail=signal("refit_baseline_tail", s["refit_tail"], 0.4, 0.05),
        gain=Interval(mean=s["gain"], low=s["gain"] - 0.001, high=s["gain"] + 0.001),
        worst_stretch=s["worst"],
        new_label_shares=s["new"],
    )
    readings = {
        "top_label": (np.log(s["top"]), np.log(0.01), 0.4),
        "volume": (s["volume"], 6.0, 0.1),
        "label_correlation": (s["label_correlation"], 0.9, 0.2),
    }
    data = {name: signal(name, *reading) for name, reading in readings.items()}
    diagnosis = judge(data, quality, min_gain=0.01)
    assert diagnosis.verdict == verdict
    assert diagnosis.noise_only == (verdict == "data fault" and s["refit"] < 0.35)
    assert all(sentence.endswith((".", "?")) for sentence in diagnosis.evidence)


def test_a_faulty_window_is_kept_only_if_it_is_surely_worth_it():
    fault = Diagnosis(verdict="data fault", evidence=["Noise."], noise_only=True, fault=(1, 2))
    kept = fault.keeping_window(Interval(mean=0.02, low=0.01, high=0.03))
    assert (kept.verdict, kept.fault) == ("data fault", None)
    assert kept.evidence[1].startswith("A baseline still gains +0.0200")
    for low in (0.0, -0.01, float("nan")):
        gain = Interval(mean=low, low=low, high=low)
        assert fault.keeping_window(gain) == fault


def test_a_live_quality_that_is_not_defined_does_not_hide_noise():
    quality = WindowQuality(
        live=signal("recall@20", float("nan"), 0.5, 0.05),
        refit=signal("refit_baseline", 0.2, 0.4, 0.05),
        refit_tail=signal("refit_baseline_tail", 0.2, 0.4, 0.05),
        gain=Interval(mean=-0.01, low=-0.02, high=0.0),
        worst_stretch=0.9,
        new_label_shares=(0.0, 0.0),
    )
    assert judge({}, quality, min_gain=0.01).verdict == "data fault"


def test_what_is_not_defined_is_no_signal():
    past = {"refit_tail": [0.4, 0.41, 0.39, 0.4, float("nan"), 0.4], "refit": [0.4] * 6}
    signals = compare({"refit_tail": 0.4, "refit": float("nan")}, past)
    assert list(signals) == ["refit_tail"]
    assert signals["refit_tail"].windows == 5


HOUR = 3_600_000
DAY = 24 * HOUR


def visits(days: int, a_day: int = 240, first: int = 0) -> pl.DataFrame:
    """Sessions of two clicks, evenly over some days; a session's articles are its number and the
    next."""
    number = np.arange(first, first + days * a_day)
    return pl.DataFrame(
        {
            "session": np.repeat(number, 2),
            "aid": np.stack([number % 50, (number + 1) % 50], 1).ravel(),
            "ts": np.stack(
                [START + number * DAY // a_day, START + number * DAY // a_day + 1000], 1
            ).ravel(),
            "type": pl.repeat("clicks", 2 * len(number), eager=True, dtype=pl.Enum(EVENT_TYPES)),
        }
    )


START = 1_767_225_600_000


def test_a_window_is_counted_whole_and_sampled_in_whole_groups(monkeypatch):
    monkeypatch.setattr(window, "SAMPLE_ROWS", 300)
    monkeypatch.setattr(type(SPEC), "policy", Policy(min_groups=100))
    rows = visits(4)
    profile = SPEC.training_profile(rows.filter(pl.col("aid") < 40).lazy()).collect()
    contents = window.read_window(
        SPEC, window.TrustedRows.of(SPEC.table, rows), profile, START + DAY, START + 3 * DAY - 1
    )
    assert contents.groups == 480
    assert contents.statistics["rows_per_group"] == 2
    assert contents.statistics["duration"] == pytest.approx(np.log(2))
    assert contents.statistics["volume"] == pytest.approx(np.log(240))
    assert contents.statistics["unseen"] == pytest.approx(0.2, abs=0.01)
    assert 0 < contents.sample.height < 600
    assert contents.sample.group_by("session").len()["len"].unique().to_list() == [2]
    assert contents.sample["ts"].is_between(START + DAY, START + 3 * DAY - 1).all()


def test_of_long_groups_as_many_are_sampled_as_the_policy_wants(monkeypatch):
    monkeypatch.setattr(window, "SAMPLE_ROWS", 1_000)
    monkeypatch.setattr(type(SPEC), "policy", Policy(min_groups=100))
    # 1,200 groups of 40 rows, of which 1,000 rows would be 25 groups.
    groups = visits(4, a_day=12_000).with_columns(session=pl.col("session") // 20)
    trusted = window.TrustedRows.of(SPEC.table, groups)
    profile = SPEC.training_profile(groups.lazy()).collect()
    contents = window.read_window(SPEC, trusted, profile, START + DAY, START + 3 * DAY - 1)
    assert 100 <= contents.sample["session"].n_unique() < 300, "and no more than it takes"
    assert contents.sample.group_by("session").len()["len"].unique().to_list() == [40]
    reference = Interval(mean=0.5, low=0.4, high=0.6)
    probe = SimpleNamespace(model_type=SPEC, reference=reference, holdout=groups)
    head = measurement.begin("recommender", 1, probe, trusted, [], (0, 0), False)
    assert not measurement.of_window(head, SPEC, contents).shortage
    calibrated = [
        (earlier.sample.height, amount)
        for earlier, _, amount in calibration.calibration_windows(
            SPEC, trusted, START, START + 4 * DAY - 1, DAY
        )
    ]
    assert calibrated
    assert all(amount == height for height, amount in calibrated)


def test_a_group_that_began_before_the_window_is_not_in_its_sample():
    rows = visits(2).with_columns(
        session=pl.when(pl.col("session") == 240).then(239).otherwise("session")
    )
    profile = SPEC.training_profile(rows.lazy()).collect()
    contents = window.read_window(
        SPEC, window.TrustedRows.of(SPEC.table, rows), profile, START + DAY, START + 2 * DAY - 1
    )
    assert contents.groups == 240
    assert set(contents.sample["session"]) == set(range(241, 480))


def test_groups_of_a_large_window_are_counted_in_some_of_them(monkeypatch):
    rows = visits(4, a_day=5_000)
    profile = SPEC.training_profile(rows.lazy()).collect()
    look = functools.partial(
        window.read_window,
        SPEC,
        window.TrustedRows.of(SPEC.table, rows),
        profile,
        START,
        START + 4 * DAY - 1,
    )
    assert look().groups == 20_000
    monkeypatch.setattr(window, "COUNTED_ROWS", 10_000)
    contents = look()
    assert contents.groups != 20_000
    assert contents.groups == pytest.approx(20_000, rel=0.05)
    assert contents.statistics["volume"] == pytest.approx(np.log(5_000), abs=0.05)
    assert contents.statistics["rows_per_group"] == pytest.approx(2, rel=0.05)


def test_a_night_is_not_taken_for_fewer_visitors():
    by_day = visits(6).filter(pl.col("ts") % DAY >= 12 * HOUR)
    profile = SPEC.training_profile(by_day.lazy()).collect()
    trusted = window.TrustedRows.of(SPEC.table, by_day)
    for days in (1, 1.5, 3.5):
        end = START + 6 * DAY - 1 - 12 * HOUR
        contents = window.read_window(SPEC, trusted, profile, end + 1 - int(days * DAY), end)
        assert contents.statistics["volume"] == pytest.approx(np.log(120))
    contents = window.read_window(SPEC, trusted, profile, START + DAY, START + DAY + 14 * HOUR)
    assert contents.groups == 21
    assert not {"volume", "silence"} & set(contents.statistics)


def test_silence_is_measured_and_an_excluded_interval_is_none():
    rows = visits(4).filter(~pl.col("ts").is_between(START + DAY, START + DAY + 10 * HOUR - 1))
    profile = SPEC.training_profile(rows.lazy()).collect()
    gap = (START + DAY, START + DAY + 10 * HOUR - 1)
    for without, hours, volume in (((), 10, 1 - 10 / 96), ((gap,), 3, 1)):
        trusted = dataclasses.replace(window.TrustedRows.of(SPEC.table, rows), excluded=without)
        contents = window.read_window(SPEC, trusted, profile, START, START + 4 * DAY - 1)
        assert contents.statistics["silence"] == hours
        assert contents.statistics["volume"] == pytest.approx(np.log(240 * volume))


def test_what_is_lost_is_counted_once_and_from_the_last_training_on():
    loss = {1: 0.02, 2: 0.5, 3: 0.1, 4: 0.3}
    loss_rows = [
        (1, 6 * DAY, 1, "stable", "regret"),
        (3 * DAY, 7 * DAY, 2, "stable", "regret"),
        (6 * DAY + 1, 8 * DAY, 3, "concept drift", "regret"),
        (6 * DAY + 1, 8 * DAY, 2, "concept drift", "gain"),
        (8 * DAY, 9 * DAY, 4, "concept drift", "regret"),
        (1, 6 * DAY, 2, "calibration", "regret"),
    ]
    rows = [
        ("m", 1, start, end, verdict, signal, loss[n])
        for start, end, n, verdict, signal in loss_rows
    ]
    rows += [
        ("m", 2, 1, 8 * DAY, "stable", "regret", 1.0),
        ("n", 1, 1, 8 * DAY, "stable", "regret", 1.0),
    ]
    table = pl.DataFrame(
        rows, ["model", "version", "start", "end", "verdict", "signal", "value"], orient="row"
    )
    for since, windows, expected in (
        (0, [0.1, 0.02], 0.32),
        (4 * DAY, [0.1, 0.02], 0.24),
        (6 * DAY, [0.1], 0.2),
    ):
        seen = regret.non_overlapping(
            table, "m", 1, since, (6 * DAY + 1, 8 * DAY, "concept drift", 0.1)
        )
        assert seen["regret"].to_list() == windows
        assert regret.accumulated_regret(seen, since) == pytest.approx(expected)
    for before in ((1, DAY, "stable", -0.4), (1, DAY, "data fault", 0.4)):
        rows = [(DAY + 1, 2 * DAY, "concept drift", 0.1), before]
        assert regret.accumulated_regret(
            pl.DataFrame(rows, seen.schema, orient="row"), 0
        ) == pytest.approx(0.1)


def test_the_newest_rows_are_read_from_as_few_days_as_have_enough(monkeypatch):
    monkeypatch.setattr(calibration, "LEARN_ROWS", 1_000)
    rows = visits(30)
    newest = calibration.newest_rows(
        SPEC, window.TrustedRows.of(SPEC.table, rows), START, START + 30 * DAY - 1
    )
    assert newest["ts"].min() >= START + 26 * DAY
    assert 500 < newest.height <= 1_920
    assert (
        calibration.newest_rows(
            SPEC, window.TrustedRows.of(SPEC.table, rows[:400]), START, START + DAY
        ).height
        == 400
    )


def test_the_stretches_of_a_window_follow_the_order_in_which_groups_began():
    began = pl.DataFrame({"session": np.arange(400)[::-1], "ts": START + np.arange(400)})
    groups = np.repeat(np.arange(400), 2)
    means = stretch_means(np.where(groups >= 350, 0.0, 1.0), groups, began)
    assert means == [(START + 50 * i, float(i > 0)) for i in range(8)]
    assert stretch_means(np.ones(10), np.arange(10), began.head(10)) == [], (
        "a stretch of few groups says nothing"
    )


def test_only_the_faulty_stretch_of_a_window_and_its_neighbours_are_excluded():
    def interval_of(*means: float) -> tuple[int, int]:
        return fault_interval(
            [(100 * i, mean) for i, mean in enumerate(means)],
            mean=0.5,
            tolerance=0.1,
            start=0,
            end=799,
        )

    assert interval_of(0.5, 0.5, 0.5, 0.5, 0.2, 0.2, 0.5, 0.5) == (300, 699)
    assert interval_of(0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.2) == (600, 799)
    assert interval_of(0.2, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5) == (0, 199)
    assert interval_of(0.2, 0.22, 0.21, 0.2, 0.2, 0.2, 0.2, 0.2) == (0, 799)
    assert interval_of() == interval_of(0.2) == (0, 799)


def test_the_frequency_correlation_of_two_samples():
    then = np.repeat([1, 2, 3, 4], [40, 30, 20, 10])
    assert frequency_correlation(np.repeat([1, 2, 3, 4], [4, 3, 2, 1]), then, 0) == pytest.approx(1)
    assert frequency_correlation(np.repeat([4, 3, 2, 1], [4, 3, 2, 1]), then, 0) == pytest.approx(
        -1
    )
    assert np.isnan(frequency_correlation(np.array([]), then, 0))
    assert np.isnan(frequency_correlation(np.array([1, 1]), np.array([1, 1, 1]), 0))
    rng = np.random.default_rng(0)
    few = [rng.choice(1_000, 300) for _ in range(2)]
    assert frequency_correlation(*few, 0) < -0.1, "as if what neither has seen could not be"
    assert abs(frequency_correlation(*few, 1_000)) < 0.1
    assert frequency_correlation(few[0], np.r_[few[0], few[1]], 1_000) > 0.5


def test_a_newcomer_is_what_the_hold_out_did_not_have():
    then = np.array([1] * 50 + [2] * 50)
    assert new_label_shares(np.array([1] * 45 + [2] * 45 + [0] * 10), then) == (0.1, 0.1)
    assert new_label_shares(np.array([1, 1, 3, 4]), then) == (0.25, 0.5)
    assert new_label_shares(np.array([[True], [False]]), np.array([[True], [False]])) == (0.0, 0.0)
