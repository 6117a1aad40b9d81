"""How a version sees a window: what it answers there, and what a trivial baseline makes of it.
Gives the diagnosis."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import NormalDist

import numpy as np
import polars as pl

from kreislauf.evaluation import scoring, split
from kreislauf.evaluation.intervals import Interval, interval
from kreislauf.monitoring.diagnosis import Diagnosis, Quality, diagnose
from kreislauf.monitoring.limits import Signal, at_mix, shares, signals
from kreislauf.monitoring.statistics import (
    PART_GROUPS,
    alike,
    faulty,
    frequent,
    in_order,
    in_parts,
    newcomer,
    share,
)
from kreislauf.monitoring.window import Window
from models.spec import Examples, ModelSpec

FRESH = 0.4
LATE = 0.2
"""Of a usual window's rows: what the fresh baselines of a window and of its later half learn from,
equally much in each window, large ones too."""
CONFIDENCE = 0.99
LOSS = "loss"
"""Name of the number that says how much worse the answers of a window were than those of a new
version."""
SHOWN = 1_000
"""Answers, drawn evenly from the window, that are looked at as answers; always as many, because
coverage grows."""


@dataclass(frozen=True)
class Examined:
    """A window, looked at."""

    diagnosis: Diagnosis
    values: dict[str, float]
    """What `View.measure` found, the live quality under the metric's name, `gain`, and `LOSS`: the
    gain, or what the live quality has lost if that is why the world has changed."""
    signals: list[Signal]
    realised: Interval
    gain: Interval
    slices: pl.DataFrame
    """Columns slice, value, groups, live, low, high, reference, baseline: the metric of the version
    in each slice of the window with its interval, in the same slice of its hold-out, and of its
    trivial baseline in the window."""
    faulty: tuple[int, int] | None
    """If the data is broken and must not be learnt from: from when to when, ms, inclusive."""


@dataclass(frozen=True)
class View:
    """A version, with what is kept beside it."""

    model_type: ModelSpec
    onnx: Path
    baseline: Path
    """Its trivial baseline, as it was when the version was trained."""
    known: pl.DataFrame
    """`ModelSpec.known` of what it learnt from."""
    holdout: pl.DataFrame
    """Rows of its hold-out."""
    reference: Interval
    """What it reached there."""

    @cached_property
    def mix(self) -> dict[str, float]:
        """Share of each kind of request in the hold-out; all windows are compared at this mix."""
        return shares(self.kinds(self.holdout, self.known))

    def kinds(self, rows: pl.DataFrame, known: pl.DataFrame) -> np.ndarray:
        """What was asked in each of `kind.examples(rows)`: strings (n,), all the same where nothing
        is told apart."""
        if not self.model_type.mix:
            return np.full(len(self.model_type.examples(rows)), "")
        asked = self.model_type.slices(rows, known).select(
            pl.concat_str(self.model_type.mix, separator=" ")
        )
        return asked.to_series().to_numpy()

    def measure(self, window: Window, known: pl.DataFrame, height: float) -> dict[str, float]:
        """Each signal of a window but the live quality, by name: those of `Window.values`;
        `top_label`, `top_answer`, logs, because shares of a few are skewed, of the share of the
        most frequent right answer, and of the most frequent first item of the version's answers;
        `familiar`, correlation of how frequent each right answer is in the later half of the window
        with the hold-out; `coverage`, how many answers the version gives at all; and `fresh` and
        `late`, the quality of a baseline that learnt from one half of the groups of the window, or
        of its later half, on the other half. `known` is what is known of the rows before the
        window; the sample of a usual one has `height` rows."""
        asked = self.model_type.examples(window.sample)
        began = pl.col(self.model_type.table.time).min().over(self.model_type.table.group)
        late = window.sample.filter(began >= (window.start + window.end) // 2)
        return (
            window.values
            | {"top_label": float(np.log(share(asked.labels, frequent(asked.labels))))}
            | {
                "familiar": alike(
                    self.model_type.examples(late).labels, self.then.labels, self.known.height
                )
            }
            | self.shown(asked)
            | {"fresh": self.fresh(window.sample, known, int(FRESH * height))}
            | {"late": self.fresh(late, known, int(LATE * height))}
        )

    def fresh(self, rows: pl.DataFrame, known: pl.DataFrame, amount: int) -> float:
        """The quality of a baseline that learnt from `amount` of `rows`, out of every other group,
        on the other groups."""
        one, other = split.halves(rows, self.model_type.table)
        if one.is_empty() or other.is_empty():
            return float("nan")
        scores = scoring.baseline_scores(
            self.model_type,
            split.some(one, self.model_type.table, amount),
            self.model_type.examples(other),
        )
        return at_mix(scores, self.kinds(other, known), self.mix)

    def shown(self, asked: Examples) -> dict[str, float]:
        """Signals of what the version answers."""
        drawn = np.unique(np.linspace(0, len(asked) - 1, SHOWN).astype(int))
        outputs = scoring.answer(self.onnx, asked.take(drawn).inputs)
        first = np.array(
            [repr(self.model_type.items(answer)[:1]) for answer in self.model_type.answers(outputs)]
        )
        covered = self.model_type.coverage(outputs, self.known)
        top = {"top_answer": float(np.log(share(first, frequent(first))))}
        return top if covered is None else top | {"coverage": covered}

    def examine(
        self,
        window: Window,
        before: pl.DataFrame,
        past: Mapping[str, Sequence[float]],
        worth: float,
    ) -> Examined:
        """Diagnose a window.

        Args: window: Of the version's table, after its hold-out. before: Rows before the window,
            from which a baseline learns together with half of the window. past: Each signal in
            windows in which nothing was wrong, and `rows`, those of their samples. worth: Smallest
            gain of the metric that is worth a training.
        """
        model_type = self.model_type
        rows = window.sample
        values = self.measure(window, self.known, float(np.median(past["rows"])))
        beside = signals(values, past)
        asked = model_type.examples(rows)
        live, old = (
            model_type.score(asked, scoring.answer(file, asked.inputs))
            for file in (self.onnx, self.baseline)
        )
        one, held = self.held(rows, asked)
        anew = scoring.baseline_scores(model_type, pl.concat([before, one]), asked.take(held))
        gain = interval(anew - old[held], asked.groups[held], CONFIDENCE)
        said = self.live(at_mix(live, self.kinds(rows, self.known), self.mix), beside["fresh"])
        parts = in_parts(live, asked.groups, in_order(rows, model_type.table))
        worst = min((mean for _, mean in parts), default=float(live.mean()))
        fresh = beside.pop("fresh")
        quality = Quality(
            live=said, fresh=fresh, late=beside.pop("late", fresh), gain=gain.mean, gain_low=gain.low,
            worst_part=worst / max(self.reference.mean, 1e-9),
            newcomer=newcomer(asked.labels, self.then.labels),
        )  # fmt: skip
        found = diagnose(beside, quality, worth)
        out = None
        fallen = found.verdict == "world changed" and (
            quality.alone(worth) or not quality.taught(worth)
        )
        loss = max(gain.mean, quality.lost) if fallen else gain.mean
        if found.verdict == "data broken":
            out = faulty(parts, self.reference.mean, said.limit, window.start, window.end)
        if found.noise:
            # Noise in fresh data can still be worth more than no fresh data.
            without = scoring.baseline_scores(model_type, before, asked.take(held))
            taught = interval(anew - without, asked.groups[held], CONFIDENCE)
            found, out = (found.kept(taught), None) if taught.low > 0 else (found, out)
        return Examined(
            diagnosis=found,
            values=values | {model_type.metric: said.value, "gain": gain.mean, LOSS: loss},
            signals=[said, quality.fresh, quality.late, *beside.values()],
            realised=interval(live, asked.groups, model_type.policy.confidence),
            gain=gain,
            slices=self.slices(rows, asked, live, old),
            faulty=out,
        )

    def live(self, value: float, fresh: Signal) -> Signal:
        """The live quality as a signal: it varies between windows as a fresh baseline's does, and
        what it is compared with, the reference, is known to its own error only."""
        reference = self.reference
        error = (
            (reference.high - reference.low)
            / 2
            / NormalDist().inv_cdf((1 + self.model_type.policy.confidence) / 2)
        )
        limit = float(np.hypot(fresh.limit, 3 * error))
        return Signal(
            name=self.model_type.metric,
            value=value,
            usual=reference.mean,
            limit=limit,
            windows=fresh.windows,
        )

    def held(self, rows: pl.DataFrame, asked: Examples) -> tuple[pl.DataFrame, np.ndarray]:
        """Every other group of `rows` to learn from, and which of `asked` (n,) are of the
        others."""
        one, other = split.halves(rows, self.model_type.table)
        return one, np.isin(asked.groups, other[self.model_type.table.group].unique().to_numpy())

    @cached_property
    def then(self) -> Examples:
        """The examples of the hold-out."""
        return self.model_type.examples(self.holdout)

    @cached_property
    def scored(self) -> np.ndarray:
        """The metric of each of them."""
        return self.model_type.score(self.then, scoring.answer(self.onnx, self.then.inputs))

    def slices(
        self, rows: pl.DataFrame, asked: Examples, live: np.ndarray, old: np.ndarray
    ) -> pl.DataFrame:
        """See `Examined.slices`."""
        now_by = self.model_type.slices(rows, self.known)
        then_by = self.model_type.slices(self.holdout, self.known)
        found = []
        for column in now_by:
            for value in column.unique().sort():
                inside, before = ((by[column.name] == value).to_numpy() for by in (now_by, then_by))
                groups = asked.groups[inside]
                if (count := len(np.unique(groups))) >= PART_GROUPS:
                    told = interval(live[inside], groups, self.model_type.policy.confidence)
                    once = float(self.scored[before].mean()) if before.any() else None
                    row = (
                        column.name,
                        str(value),
                        count,
                        told.mean,
                        told.low,
                        told.high,
                        once,
                        float(old[inside].mean()),
                    )
                    found.append(row)
        names = ["slice", "value", "groups", "live", "low", "high", "reference", "baseline"]
        return pl.DataFrame(found, names, orient="row")
