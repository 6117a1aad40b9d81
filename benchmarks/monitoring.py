"""How often is the monitor right? On shops in which one known thing happens, and on real sessions
in which nothing does.

`python -m benchmarks.monitoring --data path/to/diginetica` simulates SEEDS shops
(benchmarks/worlds.py says what can happen and what the right answer is). In each, QUIET windows
pass without any change, and, in other futures of the same shop, WINDOWS windows for each kind of
change, which begins a quarter into the first of them and stays. Each window is diagnosed by the
flow's own code, with limits learnt from the shop's own past. A false alarm is any verdict but
`stable` in a window without change; a change is detected if one of its windows has another verdict
than `stable`, and the diagnosis is right if the first of these is the one fixed in advance. On real
sessions, drawn in random order so that nothing changes, windows pass in the same way. Evidently
compares the same windows with the hold-out, with its defaults.

The champion is the co-visitation table, whose file is asked as any other, so that SEEDS trainings
are not needed. The last line is JSON; `detected` and `diagnosis_right` are those of the worst kind.
"""

import argparse
import json
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks import worlds
from benchmarks.window_diagnosis import History, calibrate, diagnose_window
from kreislauf.clock import DAY_MS
from kreislauf.evaluation import scoring, split
from kreislauf.evaluation.intervals import interval
from kreislauf.monitoring.probe import Probe
from kreislauf.monitoring.window import Window
from models.session_recommender import SPEC

SEEDS = 20
QUIET = 12
WINDOWS = 2
WINDOW = 4
HOLDOUT = 4
HISTORY = 132
"""Days."""
ARTICLES = 500
SESSIONS = 300
"""Of a shop; sessions a day."""
REAL_WINDOWS = 100
PROCESSES = 2
EVIDENTLY_ROWS = 2_000
EVIDENTLY_REAL = 10
"""Rows of each side, and windows of real sessions, that Evidently compares: it takes long over many
articles."""
Outcome = tuple[str, str, bool | None]
"""Kind, verdict, and whether Evidently said that something drifted; None: it was not asked."""


@dataclass(frozen=True)
class Watch:
    """A champion with the history of its signals."""

    probe: Probe
    history: History
    reference: pl.DataFrame
    """The hold-out as Evidently is given it."""

    @classmethod
    def start(cls, rows: pl.DataFrame, holdout: int, length: int, folder: Path) -> "Watch":
        """A table that learnt from `rows` before `holdout`, and was judged by the others; windows
        are `length` ms long."""
        time = pl.col(SPEC.table.time)
        last = int(rows[SPEC.table.time].max())  # type: ignore[arg-type]
        learnt = rows.filter(time < holdout)
        judged = split.started(rows, SPEC.table, holdout, last)
        onnx = SPEC.baseline(learnt, folder)
        examples = SPEC.examples(judged)
        scores = SPEC.score(examples, scoring.answer(onnx, examples.inputs))
        reference = interval(scores, examples.groups, SPEC.policy.confidence)
        profile = SPEC.training_profile(learnt.lazy()).collect()
        probe = Probe(SPEC, onnx, onnx, profile, judged, reference)
        first = int(learnt[SPEC.table.time].min())  # type: ignore[arg-type]
        history = calibrate(probe, learnt, first, holdout - 1, length)
        return cls(probe, history, for_evidently(judged))

    def diagnose(
        self, rows: pl.DataFrame, start: int, end: int, ask: bool = True
    ) -> tuple[str, bool | None]:
        """The verdict on a window (ms, inclusive), and whether Evidently, if asked, says that
        something drifted."""
        min_gain = SPEC.policy.decay
        diagnosed = diagnose_window(self.probe, rows, start, end, self.history, min_gain)
        verdict = diagnosed.diagnosis.verdict
        if not ask:
            return verdict, None
        return verdict, drifted(diagnosed.window, self.reference)


def for_evidently(rows: pl.DataFrame) -> pl.DataFrame:
    """What its user would give: the events as they are, and how long their sessions were."""
    columns = rows.select(
        pl.col("aid").cast(pl.String),
        pl.col("type").cast(pl.String),
        length=pl.len().over("session"),
    )
    return columns.sample(min(EVIDENTLY_ROWS, columns.height), seed=0)


def drifted(window: Window, reference: pl.DataFrame) -> bool:
    """Whether Evidently's preset, with its defaults, says that a column drifted."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    about = DataDefinition(numerical_columns=["length"], categorical_columns=["aid", "type"])
    now, then = (
        Dataset.from_pandas(frame.to_pandas(), data_definition=about)
        for frame in (for_evidently(window.sample), reference)
    )
    report = Report([DataDriftPreset()], include_tests=True).run(now, then)
    return any(test.status.name == "FAIL" for test in report.tests_results)


def one_shop(seed: int) -> list[Outcome]:
    """Every window of a shop, in their order."""
    rng = np.random.default_rng(seed)
    shop = worlds.shop(seed, ARTICLES, SESSIONS)
    history = worlds.days(shop, 0, HISTORY, rng)
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as folder:
        watch = Watch.start(history, worlds.at(HISTORY - HOLDOUT), WINDOW * DAY_MS, Path(folder))
        for number, (name, kind) in enumerate(worlds.KINDS.items()):
            count = WINDOWS if name != "none" else QUIET
            days = (HISTORY, HISTORY + WINDOW // 4, HISTORY + count * WINDOW)
            rows = pl.concat(
                [history, worlds.future(shop, kind, *days, np.random.default_rng([seed, number]))]
            )
            for i in range(count):
                start = worlds.at(HISTORY + i * WINDOW)
                now = rows.filter(pl.col("ts") < start + WINDOW * DAY_MS)
                outcomes.append((name, *watch.diagnose(now, start, start + WINDOW * DAY_MS - 1)))
    return outcomes


def real(rows: pl.DataFrame, windows: int, seed: int = 0) -> list[Outcome]:
    """Windows of real sessions in random order, each as if it were the first after the history, two
    fifths of them all: more to learn from would be a reason to train, though nothing has
    changed."""
    starts = rows.group_by("session").agg(start=pl.col("ts").min()).sort("session")
    shuffled = starts.with_columns(moved=pl.col("start").shuffle(seed))
    rows = rows.join(shuffled, on="session").with_columns(
        ts=pl.col("ts") - pl.col("start") + pl.col("moved")
    )
    rows = rows.select(list(SPEC.table.dtypes)).sort("session", "ts", "aid", "type")
    first = int(rows["ts"].min())  # type: ignore[arg-type]
    last = int(rows["ts"].max())  # type: ignore[arg-type]
    until = first + int(0.4 * (last - first))
    length = (last - until) // windows
    history = rows.filter(pl.col("ts") < until)
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as folder:
        watch = Watch.start(history, until - 2 * DAY_MS, length, Path(folder))
        for i in range(windows):
            begin = until + i * length
            window = split.started(rows, SPEC.table, begin, begin + length - 1).with_columns(
                pl.col("ts") - i * length
            )
            outcome = watch.diagnose(
                pl.concat([history, window]), until, until + length - 1, i < EVIDENTLY_REAL
            )
            outcomes.append(("real", *outcome))
    return outcomes


def rates(outcomes: list[Outcome], name: str, windows: int) -> tuple[float, float]:
    """Share of the changes of a kind that were detected, and whose first alarm was the right
    one."""
    verdicts = np.array([verdict for kind, verdict, _ in outcomes if kind == name])
    first_alarms = []
    for change in verdicts.reshape(-1, windows):
        alarms = change[change != "stable"]
        first_alarms.append(str(alarms[0]) if len(alarms) else "stable")
    detected = [alarm != "stable" for alarm in first_alarms]
    right = [alarm == worlds.KINDS[name].verdict for alarm in first_alarms]
    return float(np.mean(detected)), float(np.mean(right))


def alarms_per_100(outcomes: list[Outcome]) -> float:
    """Windows with another verdict than `stable`, per 100; NaN without any."""
    if not outcomes:
        return float("nan")
    return round(100 * float(np.mean([verdict != "stable" for _, verdict, _ in outcomes])), 2)


def summary(outcomes: list[Outcome], windows: int) -> dict:
    """The JSON line."""
    kinds = [name for name in worlds.KINDS if name != "none"]
    by_kind = {name: rates(outcomes, name, windows) for name in kinds}
    unchanged = [outcome for outcome in outcomes if outcome[0] in ("none", "real")]
    real = [outcome for outcome in unchanged if outcome[0] == "real"]
    evidently = [drift for _, _, drift in unchanged if drift is not None]
    evidently_by_kind = {
        name: np.mean([drift for kind, _, drift in outcomes if kind == name]) for name in kinds
    }
    return {
        "false_alarms_per_100": alarms_per_100(unchanged),
        "detected": min(detected for detected, _ in by_kind.values()),
        "diagnosis_right": min(right for _, right in by_kind.values()),
        "evidently_false_alarms_per_100": round(100 * float(np.mean(evidently)), 2),
        "windows_without_change": len(unchanged),
        "real_windows": len(real),
        "real_false_alarms_per_100": alarms_per_100(real) if real else None,
        "evidently_detected": {
            name: round(float(share), 2) for name, share in evidently_by_kind.items()
        },
        "by_kind": {
            name: {"detected": detected, "right": right}
            for name, (detected, right) in by_kind.items()
        },
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.monitoring", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of Diginetica's sessions.jsonl.gz")
    data = parser.parse_args().data
    with ProcessPoolExecutor(PROCESSES) as pool:
        jobs = [pool.submit(one_shop, seed) for seed in range(SEEDS)]
        if data:
            jobs.append(pool.submit(real, read(data), REAL_WINDOWS))
        outcomes = []
        for number, job in enumerate(jobs):
            outcomes += job.result()
            verdicts = Counter(outcome[:2] for outcome in job.result())
            print(
                number,
                ", ".join(f"{name}: {v} {n}" for (name, v), n in verdicts.items()),
                flush=True,
            )
    print(json.dumps(summary(outcomes, WINDOWS)))


def read(data: Path) -> pl.DataFrame:
    """Rows of Diginetica's sessions."""
    from kreislauf import sources
    from kreislauf.lake.validate import validate_lines

    return validate_lines(
        SPEC.table,
        list(sources.open_file(str(data / "sessions.jsonl.gz"), SPEC.table).chunks()),
    ).rows


if __name__ == "__main__":
    main()
