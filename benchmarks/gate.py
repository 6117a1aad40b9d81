"""How often does the gate err, with the real scores of a champion and its successor?

`python -m benchmarks.gate --data FOLDER` trains a champion without the newest sessions before a
published test (FOLDER as for benchmarks.recommender), then its successor, which starts from it, and
takes both models' recall@20 for every test prefix. From these sessions hold-outs are drawn with
replacement, and the two models are swapped in each session with a chance that makes the successor's
true gain what is wanted: none at one half, where every promotion is an error, and one point. All
guards are on: co-visitation table as the baseline, slices, coverage, cost. The last line is JSON.
"""

import argparse
import json
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import NormalDist

import numpy as np
import polars as pl

from benchmarks.recommender import published_split
from kreislauf.evaluation import gate, scoring
from models.session_recommender import SPEC, Params
from models.spec import TrainingContext

NEWEST = 8_000
"""Sessions that only the successor learns from."""
SESSIONS = 3_000
HOLDOUTS = 10_000
GAIN = 0.01


@dataclass(frozen=True)
class Pair:
    """What two models and the baseline scored in the sessions of the test, per example, ordered by
    session."""

    champion: gate.Scores
    challenger: gate.Scores
    baseline: gate.Scores

    def drawn(self, chance: float, sessions: int, seed: int) -> "Pair":
        """A hold-out of so many sessions, in each of which the two models are swapped with a
        `chance`."""
        rng = np.random.default_rng(seed)
        groups = self.champion.holdout.groups
        _, first, count = np.unique(groups, return_index=True, return_counts=True)
        chosen = rng.integers(len(first), size=sessions)
        length = count[chosen]
        at = np.repeat(first[chosen] - np.r_[0, np.cumsum(length)[:-1]], length) + np.arange(
            length.sum()
        )
        swapped = np.repeat(rng.random(sessions) < chance, length)
        holdout = gate.Holdout(
            str(seed),
            self.champion.holdout.start,
            np.repeat(np.arange(sessions), length),
            {by: kinds[at] for by, kinds in self.champion.holdout.slices.items()},
        )
        one = self.champion.values[at]
        other = self.challenger.values[at]
        return Pair(
            replace(self.champion, values=np.where(swapped, other, one), holdout=holdout),
            replace(self.challenger, values=np.where(swapped, one, other), holdout=holdout),
            replace(self.baseline, values=self.baseline.values[at], holdout=holdout),
        )

    def gain(self) -> float:
        """Of all sessions."""
        return float((self.challenger.values - self.champion.values).mean())

    def deviation(self) -> float:
        """Of a session's difference, as the length of the hold-out supposes it:
        `Policy.group_sd`."""
        gain = self.decide().gain
        assert gain is not None
        groups = len(np.unique(self.champion.holdout.groups))
        return (
            (gain.high - gain.low)
            / 2
            / NormalDist().inv_cdf((1 + SPEC.policy.confidence) / 2)
            * groups**0.5
        )

    def decide(self) -> gate.Decision:
        """By the recommender's own policy."""
        return gate.decide(self.challenger, self.champion, self.baseline, SPEC.policy)


def pair(data: Path, params: Params, newest: int, folder: Path) -> Pair:
    """Trains champion, successor and baseline, and asks them."""
    rows, tested = published_split(data)
    before = rows.filter(pl.col("session") <= rows["session"].max() - newest)  # type: ignore[operator]
    for name in ("champion", "challenger"):
        (folder / name).mkdir(parents=True)
    champion = SPEC.train(before, params, TrainingContext(folder / "champion"))
    challenger = SPEC.train(rows, params, TrainingContext(folder / "challenger", champion.weights))
    test = SPEC.examples(tested)
    by = {column.name: column.cast(pl.String).to_numpy() for column in SPEC.slices(tested, rows)}
    holdout = gate.Holdout(test.digest(), int(tested["ts"].min()), test.groups, by)  # type: ignore[arg-type]

    def scores(onnx: Path, version: int | None) -> gate.Scores:
        outputs = scoring.answer(onnx, test.inputs)
        p95 = scoring.p95(onnx, test.inputs)
        megabytes = onnx.stat().st_size / 1e6
        cost = gate.Cost(
            p95, megabytes, SPEC.coverage(outputs, SPEC.training_profile(rows.lazy()).collect())
        )
        recall = SPEC.score(test, outputs)
        return gate.Scores(
            recall, holdout, SPEC.metric, holdout.start, onnx.parent.name, version, cost
        )

    return Pair(
        scores(champion.onnx, 1),
        scores(challenger.onnx, 2),
        scores(SPEC.baseline(rows, folder), None),
    )


def judged(pair: Pair, chance: float, sessions: int, seed: int) -> tuple[bool, bool]:
    """Whether one hold-out promotes, and whether its interval has the true gain."""
    decision = pair.drawn(chance, sessions, seed).decide()
    assert decision.gain is not None, decision.reasons
    true = (1 - 2 * chance) * pair.gain()
    return decision.outcome == "promote", decision.gain.low <= true <= decision.gain.high


def simulate(pair: Pair, gain: float, sessions: int, holdouts: int) -> tuple[float, float]:
    """Share of the hold-outs that promote at a true `gain`, and of the intervals that have it."""
    if not 0 <= gain <= pair.gain():
        raise ValueError(f"The successor gains {pair.gain():.4f} only: train the champion on less.")
    chance = (1 - gain / pair.gain()) / 2
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        found = list(
            pool.map(partial(judged, pair, chance, sessions), range(holdouts), chunksize=50)
        )
    promoted, covered = np.mean(found, axis=0)
    print(
        f"true gain {gain}: {promoted:.2%} promoted, {covered:.2%} of the intervals have it",
        flush=True,
    )
    return float(promoted), float(covered)


def seconds(pair: Pair) -> float:
    """Of one decision on the whole test."""
    began = time.perf_counter()
    decision = pair.decide()
    took = time.perf_counter() - began
    print(
        f"{len(pair.champion.values)} pairs: {decision.outcome}, {' '.join(decision.reasons)}",
        flush=True,
    )
    return took


def run(data: Path, params: Params, newest: int, sessions: int, holdouts: int) -> dict:
    """All of it; the dictionary of the JSON line."""
    with tempfile.TemporaryDirectory() as folder:
        found = pair(data, params, newest, Path(folder))
    took = seconds(found)
    errors, under_null = simulate(found, 0.0, sessions, holdouts)
    promoted, at_gain = simulate(found, GAIN, sessions, holdouts)
    return {
        "false_promotions": round(errors, 4),
        "undecided_at_1_point": round(1 - promoted, 4),
        "coverage": round(
            under_null if abs(under_null - 0.95) > abs(at_gain - 0.95) else at_gain, 4
        ),
        "decide_seconds": round(took, 2),
        "gain": round(found.gain(), 4),
        "group_sd": round(found.deviation(), 3),
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gate", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with the sessions and the published test"
    )
    print(json.dumps(run(parser.parse_args().data, Params(), NEWEST, SESSIONS, HOLDOUTS)))


if __name__ == "__main__":
    main()
