import dataclasses
import functools

import numpy as np
import polars as pl
import pytest

from kreislauf.monitoring import calibration, drift, regret, window
from kreislauf.monitoring.diagnosis import Quality, diagnose
from kreislauf.monitoring.limits import FALSE_ALARMS, Signal, at_mix, signals
from kreislauf.monitoring.statistics import alike, faulty, in_parts, newcomer
from models.session_recommender import SPEC
from models.session_recommender.schema import EVENT_TYPES


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
            dict(zip("abc", drawn[:, 0], strict=True)),
            dict(zip("abc", drawn[:, 1:].tolist(), strict=True)),
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


CALM = {
    "live": 0.50,
    "fresh": 0.40,
    "late": 0.40,
    "gain": 0.002,
    "worst": 0.9,
    "top": 0.01,
    "new": (0.001, 0.1),
}


@pytest.mark.parametrize(
    ("seen", "verdict"),
    {
        "nothing": ({}, "quiet"),
        "only the live model fell": ({"live": 0.30, "worst": 0.5}, "world changed"),
        "learning anew is worth it": ({"live": 0.48, "gain": 0.030}, "world changed"),
        "it is not": ({"live": 0.48, "gain": 0.009}, "quiet"),
        "all fell, and learning does not help": (
            {"live": 0.3, "fresh": 0.2, "late": 0.2, "gain": 0.01},
            "data broken",
        ),
        "all fell, and learning helps": (
            {"live": 0.3, "fresh": 0.3, "late": 0.3, "gain": 0.15},
            "world changed",
        ),
        "two worlds in one window": ({"live": 0.3, "fresh": 0.3, "gain": 0.01}, "world changed"),
        "ids mean something else": (
            {"live": 0.2, "gain": 0.3, "worst": 0.3, "familiar": 0.1},
            "data broken",
        ),
        "other ways between the same": ({"live": 0.2, "gain": 0.3, "worst": 0.3}, "world changed"),
        "a placeholder": ({"top": 0.10, "gain": 0.03}, "data broken"),
        "a fashion": ({"top": 0.03, "gain": 0.03}, "world changed"),
        "a new placeholder": ({"new": (0.009, 0.012), "gain": 0.03}, "data broken"),
        "a new assortment": ({"new": (0.009, 0.300), "gain": 0.03}, "world changed"),
        "other favourites": ({"live": 0.46, "familiar": 0.3}, "world changed"),
        "other favourites, answered as well": ({"live": 0.50, "familiar": 0.3}, "season or mix"),
        "fewer visitors": ({"volume": 5.0}, "season or mix"),
    }.values(),
)
def test_each_pattern_has_its_diagnosis(seen, verdict):
    s = CALM | {"volume": 6.0, "familiar": 0.9} | seen
    quality = Quality(
        live=signal("recall@20", s["live"], 0.5, 0.05), fresh=signal("fresh", s["fresh"], 0.4, 0.05),
        late=signal("late", s["late"], 0.4, 0.05), gain=s["gain"], gain_low=s["gain"] - 0.001,
        worst_part=s["worst"], newcomer=s["new"],
    )  # fmt: skip
    usual = {
        "top_label": (np.log(s["top"]), np.log(0.01), 0.4),
        "volume": (s["volume"], 6.0, 0.1),
        "familiar": (s["familiar"], 0.9, 0.2),
    }
    data = {name: signal(name, *told) for name, told in usual.items()}
    found = diagnose(data, quality, worth=0.01)
    assert found.verdict == verdict
    assert found.noise == (verdict == "data broken" and s["fresh"] < 0.35)
    assert all(sentence.endswith((".", "?")) for sentence in found.evidence)


def test_what_is_not_defined_is_no_signal():
    past = {"late": [0.4, 0.41, 0.39, 0.4, float("nan"), 0.4], "fresh": [0.4] * 6}
    found = signals({"late": 0.4, "fresh": float("nan")}, past)
    assert list(found) == ["late"]
    assert found["late"].windows == 5


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
    rows = visits(4)
    known = SPEC.training_profile(rows.filter(pl.col("aid") < 40).lazy()).collect()
    found = window.look(
        SPEC, window.Rows.of(SPEC.table, rows), known, START + DAY, START + 3 * DAY - 1
    )
    assert found.groups == 480
    assert found.values["rows_per_group"] == 2
    assert found.values["volume"] == pytest.approx(np.log(240))
    assert found.values["unseen"] == pytest.approx(0.2, abs=0.01)
    assert 0 < found.sample.height < 600
    assert found.sample.group_by("session").len()["len"].unique().to_list() == [2]
    assert found.sample["ts"].is_between(START + DAY, START + 3 * DAY - 1).all()


def test_a_group_that_began_before_the_window_is_not_in_its_sample():
    rows = visits(2).with_columns(
        session=pl.when(pl.col("session") == 240).then(239).otherwise("session")
    )
    known = SPEC.training_profile(rows.lazy()).collect()
    found = window.look(
        SPEC, window.Rows.of(SPEC.table, rows), known, START + DAY, START + 2 * DAY - 1
    )
    assert found.groups == 240
    assert set(found.sample["session"]) == set(range(241, 480))


def test_groups_of_a_large_window_are_counted_in_some_of_them(monkeypatch):
    rows = visits(4, a_day=5_000)
    known = SPEC.training_profile(rows.lazy()).collect()
    look = functools.partial(
        window.look, SPEC, window.Rows.of(SPEC.table, rows), known, START, START + 4 * DAY - 1
    )
    assert look().groups == 20_000
    monkeypatch.setattr(window, "COUNTED_ROWS", 10_000)
    found = look()
    assert found.groups != 20_000
    assert found.groups == pytest.approx(20_000, rel=0.05)
    assert found.values["volume"] == pytest.approx(np.log(5_000), abs=0.05)
    assert found.values["rows_per_group"] == pytest.approx(2, rel=0.05)


def test_a_night_is_not_taken_for_fewer_visitors():
    by_day = visits(6).filter(pl.col("ts") % DAY >= 12 * HOUR)
    known = SPEC.training_profile(by_day.lazy()).collect()
    trusted = window.Rows.of(SPEC.table, by_day)
    for days in (1, 1.5, 3.5):
        end = START + 6 * DAY - 1 - 12 * HOUR
        found = window.look(SPEC, trusted, known, end + 1 - int(days * DAY), end)
        assert found.values["volume"] == pytest.approx(np.log(120))
    found = window.look(SPEC, trusted, known, START + DAY, START + DAY + 14 * HOUR)
    assert found.groups == 21
    assert not {"volume", "silence"} & set(found.values)


def test_silence_is_told_and_what_was_left_out_is_none():
    rows = visits(4).filter(~pl.col("ts").is_between(START + DAY, START + DAY + 10 * HOUR - 1))
    known = SPEC.training_profile(rows.lazy()).collect()
    gap = (START + DAY, START + DAY + 10 * HOUR - 1)
    for without, hours, volume in (((), 10, 1 - 10 / 96), ((gap,), 3, 1)):
        trusted = dataclasses.replace(window.Rows.of(SPEC.table, rows), without=without)
        found = window.look(SPEC, trusted, known, START, START + 4 * DAY - 1)
        assert found.values["silence"] == hours
        assert found.values["volume"] == pytest.approx(np.log(240 * volume))


def test_what_is_lost_is_counted_once_and_from_the_last_training_on():
    loss = {1: 0.02, 2: 0.5, 3: 0.1, 4: 0.3}
    noted = [
        (1, 6 * DAY, 1, "quiet", "loss"), (3 * DAY, 7 * DAY, 2, "quiet", "loss"),
        (6 * DAY + 1, 8 * DAY, 3, "world changed", "loss"), (6 * DAY + 1, 8 * DAY, 2, "world changed", "gain"),
        (8 * DAY, 9 * DAY, 4, "world changed", "loss"), (1, 6 * DAY, 2, "calibration", "loss"),
    ]  # fmt: skip
    rows = [
        ("m", 1, start, end, verdict, signal, loss[n]) for start, end, n, verdict, signal in noted
    ]
    rows += [("m", 2, 1, 8 * DAY, "quiet", "loss", 1.0), ("n", 1, 1, 8 * DAY, "quiet", "loss", 1.0)]
    table = pl.DataFrame(
        rows, ["model", "version", "start", "end", "verdict", "signal", "value"], orient="row"
    )
    for since, windows, gone in (
        (0, [0.1, 0.02], 0.32),
        (4 * DAY, [0.1, 0.02], 0.24),
        (6 * DAY, [0.1], 0.2),
    ):
        seen = regret.apart(table, "m", 1, since, (6 * DAY + 1, 8 * DAY, "world changed", 0.1))
        assert seen["loss"].to_list() == windows
        assert regret.lost(seen, since) == pytest.approx(gone)
    for before in ((1, DAY, "quiet", -0.4), (1, DAY, "data broken", 0.4)):
        rows = [(DAY + 1, 2 * DAY, "world changed", 0.1), before]
        assert regret.lost(pl.DataFrame(rows, seen.schema, orient="row"), 0) == pytest.approx(0.1)


def test_the_newest_rows_are_read_from_as_few_days_as_have_enough(monkeypatch):
    monkeypatch.setattr(calibration, "LEARN_ROWS", 1_000)
    rows = visits(30)
    found = calibration.newest(SPEC, window.Rows.of(SPEC.table, rows), START, START + 30 * DAY - 1)
    assert found["ts"].min() >= START + 26 * DAY
    assert 500 < found.height <= 1_920
    assert (
        calibration.newest(SPEC, window.Rows.of(SPEC.table, rows[:400]), START, START + DAY).height
        == 400
    )


def test_the_parts_of_a_window_follow_the_order_in_which_groups_began():
    began = pl.DataFrame({"session": np.arange(400)[::-1], "ts": START + np.arange(400)})
    groups = np.repeat(np.arange(400), 2)
    found = in_parts(np.where(groups >= 350, 0.0, 1.0), groups, began)
    assert found == [(START + 50 * i, float(i > 0)) for i in range(8)]
    assert in_parts(np.ones(10), np.arange(10), began.head(10)) == [], (
        "a part of few groups says nothing"
    )


def test_only_the_faulty_part_of_a_window_and_what_is_beside_it_is_distrusted():
    def told(*means: float) -> tuple[int, int]:
        return faulty(
            [(100 * i, mean) for i, mean in enumerate(means)],
            usual=0.5,
            limit=0.1,
            start=0,
            end=799,
        )

    assert told(0.5, 0.5, 0.5, 0.5, 0.2, 0.2, 0.5, 0.5) == (300, 699)
    assert told(0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.2) == (600, 799)
    assert told(0.2, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5) == (0, 199)
    assert told(0.2, 0.22, 0.21, 0.2, 0.2, 0.2, 0.2, 0.2) == (0, 799)
    assert told() == told(0.2) == (0, 799)


def test_how_alike_two_samples_are():
    then = np.repeat([1, 2, 3, 4], [40, 30, 20, 10])
    assert alike(np.repeat([1, 2, 3, 4], [4, 3, 2, 1]), then, 0) == pytest.approx(1)
    assert alike(np.repeat([4, 3, 2, 1], [4, 3, 2, 1]), then, 0) == pytest.approx(-1)
    assert np.isnan(alike(np.array([]), then, 0))
    assert np.isnan(alike(np.array([1, 1]), np.array([1, 1, 1]), 0))
    rng = np.random.default_rng(0)
    few = [rng.choice(1_000, 300) for _ in range(2)]
    assert alike(*few, 0) < -0.1, "as if what neither has seen could not be"
    assert abs(alike(*few, 1_000)) < 0.1
    assert alike(few[0], np.r_[few[0], few[1]], 1_000) > 0.5


def test_a_newcomer_is_what_the_hold_out_did_not_have():
    then = np.array([1] * 50 + [2] * 50)
    assert newcomer(np.array([1] * 45 + [2] * 45 + [0] * 10), then) == (0.1, 0.1)
    assert newcomer(np.array([1, 1, 3, 4]), then) == (0.25, 0.5)
    assert newcomer(np.array([[True], [False]]), np.array([[True], [False]])) == (0.0, 0.0)
