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

from benchmarks import published
from kreislauf.evaluation import gate, scoring
from models.session_recommender import SPEC, Params
from models.spec import TrainingContext

NEWEST = 8_000
"""Number of sessions that only the successor learns from."""
SESSIONS = 3_000
"""Number of sessions in a hold-out."""
HOLDOUTS = 10_000
"""Number of hold-outs for each true gain."""
GAIN = 0.01
"""True gain, in the metric, that the gate should find."""


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
        offset = first[chosen] - np.r_[0, np.cumsum(length)[:-1]]
        index = np.repeat(offset, length) + np.arange(length.sum())
        swapped = np.repeat(rng.random(sessions) < chance, length)
        slices = {by: values[index] for by, values in self.champion.holdout.slices.items()}
        holdout = gate.Holdout(
            str(seed),
            self.champion.holdout.start,
            np.repeat(np.arange(sessions), length),
            slices,
        )
        champion = self.champion.values[index]
        challenger = self.challenger.values[index]
        return Pair(
            replace(self.champion, values=np.where(swapped, challenger, champion), holdout=holdout),
            replace(
                self.challenger, values=np.where(swapped, champion, challenger), holdout=holdout
            ),
            replace(self.baseline, values=self.baseline.values[index], holdout=holdout),
        )

    def gain(self) -> float:
        """Mean gain over all sessions."""
        return float((self.challenger.values - self.champion.values).mean())

    def deviation(self) -> float:
        """Standard deviation of a session's difference, as the length of the hold-out supposes it:
        `Policy.group_sd`."""
        gain = self.decide().gain
        assert gain is not None
        groups = len(np.unique(self.champion.holdout.groups))
        z = NormalDist().inv_cdf((1 + SPEC.policy.confidence) / 2)
        return (gain.high - gain.low) / 2 / z * groups**0.5

    def decide(self) -> gate.Decision:
        """By the recommender's own policy."""
        return gate.decide(self.challenger, self.champion, self.baseline, SPEC.policy)


def pair(data: Path, params: Params, newest: int, folder: Path) -> Pair:
    """Trains champion, successor and baseline, and asks them."""
    rows, tested = published.split(data)
    last = int(rows["session"].max())  # type: ignore[arg-type]
    before = rows.filter(pl.col("session") <= last - newest)
    for name in ("champion", "challenger"):
        (folder / name).mkdir(parents=True)
    champion = SPEC.train(before, params, TrainingContext(folder / "champion"))
    challenger = SPEC.train(rows, params, TrainingContext(folder / "challenger", champion.weights))
    test = SPEC.examples(tested)
    profile = SPEC.training_profile(rows.lazy()).collect()
    slices = {
        column.name: column.cast(pl.String).to_numpy() for column in SPEC.slices(tested, rows)
    }
    start = int(tested["ts"].min())  # type: ignore[arg-type]
    holdout = gate.Holdout(test.digest(), start, test.groups, slices)

    def scores(onnx: Path, version: int | None) -> gate.Scores:
        outputs = scoring.answer(onnx, test.inputs)
        p95 = scoring.p95(onnx, test.inputs)
        megabytes = onnx.stat().st_size / 1e6
        cost = gate.Cost(p95, megabytes, SPEC.coverage(outputs, profile))
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
    judge = partial(judged, pair, chance, sessions)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        outcomes = list(pool.map(judge, range(holdouts), chunksize=50))
    promoted, covered = np.mean(outcomes, axis=0)
    print(
        f"true gain {gain}: {promoted:.2%} promoted, {covered:.2%} of the intervals have it",
        flush=True,
    )
    return float(promoted), float(covered)


def seconds(pair: Pair) -> float:
    """Seconds that one decision on the whole test takes."""
    began = time.perf_counter()
    decision = pair.decide()
    elapsed = time.perf_counter() - began
    print(
        f"{len(pair.champion.values)} pairs: {decision.outcome}, {' '.join(decision.reasons)}",
        flush=True,
    )
    return elapsed


def run(data: Path, params: Params, newest: int, sessions: int, holdouts: int) -> dict:
    """All of it; the dictionary of the JSON line."""
    with tempfile.TemporaryDirectory() as folder:
        models = pair(data, params, newest, Path(folder))
    elapsed = seconds(models)
    errors, under_null = simulate(models, 0.0, sessions, holdouts)
    promoted, at_gain = simulate(models, GAIN, sessions, holdouts)
    coverage = max(at_gain, under_null, key=lambda share: abs(share - SPEC.policy.confidence))
    return {
        "false_promotions": round(errors, 4),
        "undecided_at_1_point": round(1 - promoted, 4),
        "coverage": round(coverage, 4),
        "decide_seconds": round(elapsed, 2),
        "gain": round(models.gain(), 4),
        "group_sd": round(models.deviation(), 3),
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
