"""How often does a shop's recommender have to be trained, and does the monitor know when?

`python -m benchmarks.frequency --data FOLDER` replays a real shop (FOLDER as for
benchmarks.recommender). A version is trained, cold, on the first 40 % of the sessions, and at the
end of each week after. At the end of a week a policy says whether there is a training, the gate
decides whether its version replaces the live one, and what is live answers the next week.

Policies are a training every so many weeks, none at all, and the monitor's. That one trains on
concept drift, once the accumulated regret has reached the cost of a training, for several such
costs (its parameter `retraining_cost`). Trainings are all after the first, promoted or not;
recall@20 is the mean over the weeks of the last quarter. Whether a version is one week old or two
in so few weeks is luck. So each policy goes twice through them, the second time beginning a week
later (STARTS), and the means of both are printed.

Then three in ten events of five days in the middle get another article's id, and the same shop is
trained weekly: as the monitor has it, which may leave a part of the week out, and with all of it.
Recall is that of the two weeks after.

Everything that takes long is kept in the folder `frequency` of KREISLAUF_HOME; the picture is
written there unless `--picture` says where. On clean data `data fault` is counted, but nothing is
left out. The last line is JSON.
"""

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from benchmarks.weeks import Kept, Shop, Version, ends, load, train_rows
from benchmarks.window_diagnosis import DiagnosedWindow, calibrate, diagnose_window
from kreislauf.clock import DAY_MS
from kreislauf.evaluation import scoring, split
from kreislauf.evaluation.intervals import interval
from kreislauf.monitoring import regret
from kreislauf.monitoring.policy import RETRAINING_COST
from kreislauf.monitoring.probe import Probe
from kreislauf.settings import settings
from models.session_recommender import SPEC
from models.spec import ModelSpec

EVERY = (1, 2, 3, 4, 6)
"""Weeks between two trainings."""
COSTS = (0.0, 0.1, 0.2, 0.25, 0.3, 0.35, 0.4)
NEAR = 0.01
"""So near to weekly trainings, at half of them or fewer, is the goal: `costs_near_weekly` are those
that reach it."""
FAULT_DAYS = 5
FAULT_SHARE = 0.3
STARTS = (0, 1)
"""Week at whose end the first version was trained."""
AFTER = 2
"""Weeks after the fault in which recall is compared."""

Wants = Callable[[int, int], bool]
"""Whether there is a training at the end of a week, given what was live in it."""


@dataclass(frozen=True)
class Replay:
    """What a policy came to."""

    live: list[int]
    """Which week's version answered, for each week."""
    trainings: int
    promoted: int


def follow(weeks: int, wants: Wants, promotes: Wants, first: int = 0) -> Replay:
    """Go through `weeks`: the version of the week `first` is live until another one is promoted."""
    live = first
    served = []
    trainings = 0
    promoted = 0
    for week in range(1, weeks + 1):
        served.append(live)
        # What is trained at the very end would answer nobody.
        if first < week < weeks and wants(week, live):
            trainings += 1
            if promotes(week, live):
                live = week
                promoted = promoted + 1
    return Replay(served, trainings, promoted)


def every(count: int, first: int = 0) -> Wants:
    """A training every so many weeks after the `first`."""
    return lambda week, live: (week - first) % count == 0


def judged(shop: Shop) -> Wants:
    """Whether the gate lets the version of a week replace the live one."""
    return lambda week, live: (
        shop.decide(shop.version(week), shop.version(live)).outcome == "promote"
    )


class Watcher:
    """Wants a training when the monitor says concept drift, and the regret since the last training
    has reached `retraining_cost`."""

    def __init__(
        self, shop: Shop, retraining_cost: float, cache: dict[tuple, DiagnosedWindow]
    ) -> None:
        self.shop = shop
        self.retraining_cost = retraining_cost
        self.windows: list[DiagnosedWindow] = []
        self._since_training: list[tuple[int, int, str, float]] = []
        self._cache = cache
        """Windows that were diagnosed before, by week, version, and number of its stable weeks."""
        self._stable: dict[int, list[dict[str, float]]] = defaultdict(list)

    def __call__(self, week: int, live: int) -> bool:
        shop = self.shop
        stable = self._stable[live]
        key = (week, live, len(stable))
        if key not in self._cache:
            self._cache[key] = diagnosed(shop, shop.version(live), week, stable)
        window = self._cache[key]
        diagnosis = window.diagnosis
        if diagnosis.verdict == "stable":
            stable.append(window.values)
        start = shop.ends[week - 1]
        end = shop.ends[week] - 1
        self._since_training.append((start, end, diagnosis.verdict, diagnosis.regret))
        since_training = pl.DataFrame(self._since_training, regret.SCHEMA, orient="row")
        accumulated = regret.accumulated_regret(since_training, 0)
        reason = f"{accumulated:.3f} regret. {' '.join(diagnosis.evidence)}"
        print(
            f"{'':16} week {week:2d}, version {live:2d} live: {diagnosis.verdict}. {reason}",
            flush=True,
        )
        self.windows.append(window)
        wants = diagnosis.verdict == "concept drift" and accumulated >= self.retraining_cost
        if wants:
            self._since_training.clear()
        return wants


def diagnosed(
    shop: Shop, live: Version, week: int, stable: list[dict[str, float]]
) -> DiagnosedWindow:
    """The monitor's diagnosis at the end of a week; `stable` has the signals of this version's
    stable weeks before."""
    model_type = shop.model_type
    cut = live.cut
    start = shop.ends[week - 1]
    end = shop.ends[week] - 1
    learnt = train_rows(live.rows, model_type.table, cut)
    holdout = split.started(live.rows, model_type.table, cut.holdout, cut.watermark)
    examples = model_type.examples(holdout)
    scores = model_type.score(examples, scoring.answer(live.onnx, examples.inputs))
    reference = interval(scores, examples.groups, model_type.policy.confidence)
    profile = model_type.training_profile(learnt.lazy()).collect()
    probe = Probe(model_type, live.onnx, live.baseline, profile, holdout, reference)
    calibrated = calibrate(probe, learnt, cut.start, cut.holdout - 1, end - start + 1)
    history = calibrated.with_windows(stable)
    min_gain = model_type.policy.decay
    return diagnose_window(probe, shop.until(week), start, end, history, min_gain, cut.start)


def strike(rows: pl.DataFrame, model_type: ModelSpec, start: int, end: int) -> pl.DataFrame:
    """`rows` in which, from `start` to `end` (ms, exclusive), `FAULT_SHARE` of the events carry
    another known article's id, drawn at random."""
    rng = np.random.default_rng(0)
    time = pl.col(model_type.table.time)
    articles = np.unique(rows.filter(time < start)["aid"])
    drawn = pl.Series("drawn", rng.choice(articles, rows.height))
    struck = pl.Series("struck", rng.random(rows.height) < FAULT_SHARE)
    wrong = struck & time.is_between(start, end, "left")
    return rows.with_columns(pl.when(wrong).then(drawn).otherwise("aid").alias("aid")).sort(
        model_type.table.order
    )


def last_quarter(shop: Shop, course: Replay) -> float:
    """Recall@20, mean over the weeks."""
    return recall(shop, course, range(shop.weeks - max(1, shop.weeks // 4) + 1, shop.weeks + 1))


def recall(shop: Shop, course: Replay, weeks: range) -> float:
    """Of what was live in each of the `weeks`, mean over them."""
    return float(
        np.mean([shop.recall(shop.version(course.live[week - 1]), week) for week in weeks])
    )


def policies(
    shop: Shop, first: int, cache: dict[tuple, DiagnosedWindow]
) -> Iterator[tuple[str, Replay]]:
    """Each policy and what it came to, those of the calendar first."""
    for count in EVERY:
        name = f"every {count} weeks" if count > 1 else "weekly"
        yield name, follow(shop.weeks, every(count, first), judged(shop), first)
    yield "never", follow(shop.weeks, lambda week, live: False, judged(shop), first)
    for cost in COSTS:
        watcher = Watcher(shop, cost, cache)
        yield f"monitor {cost:g}", follow(shop.weeks, watcher, judged(shop), first)
        verdicts = Counter(window.diagnosis.verdict for window in watcher.windows)
        print(f"{'':16}", *(f"{count} {verdict}" for verdict, count in verdicts.items()))


def fault(shop: Shop) -> dict:
    """Weekly trainings around a tracking fault in the week in the middle: part of the JSON line."""
    week = shop.weeks // 2
    weeks = range(week + 1, min(week + AFTER, shop.weeks) + 1)
    end = shop.ends[week]
    broken = replace(shop, rows=strike(shop.rows, shop.model_type, end - FAULT_DAYS * DAY_MS, end))
    watcher = Watcher(broken, 0, {})
    live = follow(week, every(1), judged(broken)).live
    # What was quiet before counts as long as the same version is live.
    for number in range(live.index(live[-1]) + 1, week + 1):
        watcher(number, live[-1])
    diagnosis = watcher.windows[-1].diagnosis
    handled = broken
    if diagnosis.fault:
        handled = replace(broken, without=(diagnosis.fault,))
    shops = {"no_fault": shop, "fault": handled, "fault_unhandled": broken}
    courses = {name: follow(weeks[-1], every(1), judged(each)) for name, each in shops.items()}
    recalls = {
        f"{name}_recall": round(recall(shops[name], course, weeks), 4)
        for name, course in courses.items()
    }
    for name, course in courses.items():
        recall_by_week = [round(recall(shops[name], course, range(w, w + 1)), 4) for w in weeks]
        print(
            f"{name}: weeks {list(weeks)} answered by {[course.live[w - 1] for w in weeks]}, "
            f"recall {recall_by_week}"
        )
    return recalls | {"fault_verdict": diagnosis.verdict, "fault_left_out": bool(diagnosis.fault)}


def draw(reached_by: dict[str, tuple[float, float]], path: Path) -> None:
    """Recall against trainings, as an SVG or PNG file."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    series = {
        "every so many weeks": ("#9aa3ad", "calendar"),
        "the monitor, by its `retraining_cost`": ("#0b6e4f", "monitor"),
    }
    for label, (colour, which) in series.items():
        chosen = [
            (n, c, r)
            for n, (c, r) in reached_by.items()
            if n.startswith("monitor") == (which == "monitor")
        ]
        names: dict[tuple[float, float], list[str]] = defaultdict(list)
        for name, trainings, reached in chosen:
            names[trainings, reached].append(name.removeprefix("monitor "))
        axes.plot(*zip(*sorted(names), strict=True), marker="o", color=colour, label=label)
        for point, costs in names.items():
            below = which == "calendar"
            axes.annotate(
                ", ".join(costs), point, (0, -13 if below else 7),
                textcoords="offset points", ha="center", fontsize=8, color=colour,
            )  # fmt: skip
    weekly = reached_by["weekly"][1]
    axes.axhspan(
        weekly - NEAR,
        weekly + NEAR,
        color="#0b6e4f",
        alpha=0.08,
        label="within .01 of weekly trainings",
    )
    axes.set(xlabel="trainings after the first", ylabel="recall@20, last quarter of the weeks")
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


@contextmanager
def remembered(kept: Kept) -> Iterator[None]:
    """Let the monitor, too, take answers and baselines' scores from what was kept."""
    before = scoring.answer, scoring.baseline_scores
    scoring.answer = kept.answer  # type: ignore[assignment]
    scoring.baseline_scores = kept.baseline_scores  # type: ignore[assignment]
    try:
        yield
    finally:
        scoring.answer, scoring.baseline_scores = before


def run(shop: Shop, picture: Path) -> dict:
    """All of it; the dictionary of the JSON line."""
    seconds = [shop.version(number).seconds for number in range(shop.weeks)]
    print(f"{shop.params}: {seconds} s a training", flush=True)
    first = shop.decide(shop.version(0), None)
    if first.outcome != "promote":
        raise RuntimeError(f"The first version would not go live: {' '.join(first.reasons)}")
    with remembered(shop.kept):
        after = fault(shop)
        print(f"{'policy':16} {'trainings':>9} {'promoted':>8} {'recall@20':>9}  live in each week")
        results: dict[str, list[tuple[int, float]]] = defaultdict(list)
        cache: dict[tuple, DiagnosedWindow] = {}
        for name, course in [course for first in STARTS for course in policies(shop, first, cache)]:
            reached = last_quarter(shop, course)
            results[name].append((course.trainings, reached))
            print(
                f"{name:16} {course.trainings:9d} {course.promoted:8d} {reached:9.4f}  "
                f"{course.live}",
                flush=True,
            )
    reached_by = {
        name: (float(np.mean([n for n, _ in both])), float(np.mean([r for _, r in both])))
        for name, both in results.items()
    }
    draw(reached_by, picture)
    half = reached_by["weekly"][0] / 2
    weekly = reached_by["weekly"][1]
    seldom = [cost for cost in COSTS if reached_by[f"monitor {cost:g}"][0] <= half]
    default = f"monitor {RETRAINING_COST:g}"
    numbers = {"weekly": reached_by["weekly"], "monitor": reached_by[default]}
    line: dict = {f"{name}_recall": round(reached, 4) for name, (_, reached) in numbers.items()}
    line |= {f"{name}_trainings": trainings for name, (trainings, _) in numbers.items()}
    line["costs_near_weekly"] = [
        cost for cost in seldom if reached_by[f"monitor {cost:g}"][1] >= weekly - NEAR
    ]
    line |= {"frozen_recall": round(reached_by["never"][1], 4)} | after
    return line | {
        "curve": [
            [name, trainings, round(recall, 4)] for name, (trainings, recall) in reached_by.items()
        ]
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.frequency", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the sessions")
    parser.add_argument("--picture", type=Path, help="an .svg or .png file for the curve")
    given = parser.parse_args()
    kept = Kept(settings().home / "frequency")
    rows = load(given.data, SPEC)
    shop = Shop(SPEC, rows, ends(rows, SPEC), kept)
    print(json.dumps(run(shop, given.picture or kept.folder / "frequency.svg")))


if __name__ == "__main__":
    main()
