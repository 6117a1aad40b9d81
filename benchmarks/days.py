"""How much does a hold-out of one day say about the other days of its week?

`python -m benchmarks.days --data FOLDER` (FOLDER as for benchmarks.recommender) fits the
co-visitation table at the end of each of the newest weeks, and a week earlier. It asks both on each
day of the week after. The gain of the later table over the earlier one, and its
recall@20, vary from day to day more than sessions drawn at random would: this is the variance
between days, which no interval over the sessions of one day has. Two tables that learnt from every
other session, of which neither is better, show what it does to a gain of none. The file has the
order of the sessions, and not their times: a day are 1,440 of them. The last line is JSON.
"""

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
import polars as pl

from benchmarks import weeks
from kreislauf.clock import DAY_MS
from kreislauf.evaluation import scoring, split
from kreislauf.evaluation.intervals import Interval, interval
from models.session_recommender import SPEC
from models.spec import Examples

WEEKS = 6
"""Number of weeks, the newest ones."""
DAYS = 7
"""Number of days in a week, each of which could be a hold-out."""
CONFIDENCE = 0.95
TWINS = ("first", "second")
"""Tables that learnt from every other session, and of which neither is better."""


@dataclass(frozen=True)
class Week:
    """One number on each day of a week, with its 95 % interval over sessions."""

    days: list[Interval]

    @property
    def means(self) -> np.ndarray:
        """The number on each day, shape (days,)."""
        return np.array([day.mean for day in self.days])

    @property
    def errors(self) -> np.ndarray:
        """Standard error of each, shape (days,)."""
        z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
        return np.array([(day.high - day.low) / 2 / z for day in self.days])


def between_days(shown: list[Week]) -> float:
    """Standard deviation between days of one week, beyond what sessions vary: the variance of the
    days' means less that of their errors."""
    spread = np.mean([week.means.var(ddof=1) for week in shown])
    return float(np.sqrt(max(0.0, spread - np.mean([week.errors**2 for week in shown]))))


def coverage(shown: list[Week], day_sd: float) -> float:
    """Share of the days whose interval has the mean of the week's other days, if it is widened by
    the variance between days, and by the error of that mean."""
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    inside = []
    for week in shown:
        for day in range(DAYS):
            others = np.delete(np.arange(DAYS), day)
            error_of_others = np.sqrt(
                (np.sum(week.errors[others] ** 2) / len(others) + day_sd**2) / len(others)
            )
            error = np.sqrt(week.errors[day] ** 2 + day_sd**2 + error_of_others**2)
            distance = abs(week.means[day] - week.means[others].mean())
            inside.append(distance <= z * error)
    return float(np.mean(inside))


def first_day(shown: list[Week]) -> Interval:
    """How much more the first day after the training shows than the others of its week."""
    more = np.array([week.means[0] - week.means[1:].mean() for week in shown])
    return interval(more, np.arange(len(more)), CONFIDENCE)


def answered(onnx: Path, examples: Examples) -> np.ndarray:
    """Recall@20 of each example."""
    return SPEC.score(examples, scoring.answer(onnx, examples.inputs))


def tables(rows: pl.DataFrame, start: int, folder: Path) -> dict[str, Path]:
    """The tables that learnt from the rows before `start` (ms), from those a week earlier, and the
    twins; files in `folder`."""
    before = rows.filter(pl.col("ts") < start)
    learnt = {"now": before, "earlier": before.filter(pl.col("ts") < start - weeks.WEEK_MS)}
    learnt |= dict(zip(TWINS, split.halves(before, SPEC.table), strict=True))
    fitted = {}
    for name, amount in learnt.items():
        (folder / name).mkdir(parents=True)
        fitted[name] = SPEC.baseline(amount, folder / name)
    return fitted


def shown_by(rows: pl.DataFrame, folder: Path) -> dict[str, list[Week]]:
    """Level, gain over the week before, and gain of a twin over the other, in each week."""
    end = int(rows["ts"].max()) + 1  # type: ignore[arg-type]
    shown: dict[str, list[Week]] = {"level": [], "gain": [], "twins": []}
    for number in range(WEEKS, 0, -1):
        start = end - number * weeks.WEEK_MS
        fitted = tables(rows, start, folder / str(number))
        days: dict[str, list[Interval]] = {name: [] for name in shown}
        for day in range(DAYS):
            first = start + day * DAY_MS
            examples = SPEC.examples(split.started(rows, SPEC.table, first, first + DAY_MS - 1))
            recall = {name: answered(onnx, examples) for name, onnx in fitted.items()}
            values = {
                "level": recall["now"],
                "gain": recall["now"] - recall["earlier"],
                "twins": recall[TWINS[0]] - recall[TWINS[1]],
            }
            for name, each in values.items():
                days[name].append(interval(each, examples.groups, CONFIDENCE))
        for name, intervals in days.items():
            shown[name].append(Week(intervals))
        print(f"week {number} before the end: gain {shown['gain'][-1].means.round(4)}", flush=True)
    return shown


def run(data: Path) -> dict:
    """All of it; the dictionary of the JSON line."""
    rows = weeks.load(data, SPEC)
    result: dict = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, shown in shown_by(rows, Path(folder)).items():
            day_sd = between_days(shown)
            result[name] = {
                "mean": round(float(np.mean([week.means for week in shown])), 4),
                "error_of_a_day": round(float(np.mean([week.errors for week in shown])), 4),
                "between_days": round(day_sd, 4),
                "coverage": round(coverage(shown, 0.0), 3),
                "coverage_widened": round(coverage(shown, day_sd), 3),
                "first_day_more": str(first_day(shown)),
            }
    return result


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.days", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the sessions")
    print(json.dumps(run(parser.parse_args().data)))


if __name__ == "__main__":
    main()
