"""A version asked about the newest tails of the data. Measures only; `suspicion.py` judges."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from statistics import NormalDist
from typing import Any

import numpy as np
import polars as pl

from kreislauf.clock import HOUR_MS
from kreislauf.evaluation import scoring
from kreislauf.monitoring import doubts, statistics
from kreislauf.monitoring.probe import REFIT_SHARE, Probe
from kreislauf.monitoring.tails import FRACTIONS, REFIT_FRACTIONS, Tail, TailHistory
from kreislauf.monitoring.window import TrustedRows, read_window
from models import text
from models.spec import Examples
from models.table import Table

STRETCHES = 16
"""Stretches as long as a tail, before the hold-out, from which a refit's quality is learnt."""
DRAWS = 20
"""Random tails of the hold-out from which an expected correlation is averaged."""
FREQUENT = 8.0
"""Groups of a tail that should have a right answer that is frequent."""
FULL = 0.75
"""Share of a tail's time that must have rows before a baseline is refitted on them: after a stretch
that is left out, few do."""
LONG_QUANTILE = 0.999
"""Groups with more rows than this share of the hold-out's groups are long. Of groups that last, it
is hours of a group: the longer a tail is, the more rows it has of each."""


@dataclass(frozen=True)
class TailProbe:
    """A version's probe with what its hold-out says about tails; made once for many looks."""

    probe: Probe
    expected_correlations: dict[int, tuple[float, float]] = field(default_factory=dict)
    """Mean and standard deviation by number of groups; filled as they are asked for."""

    @cached_property
    def reference_error(self) -> float:
        """Standard error of the version's reference."""
        quantile = NormalDist().inv_cdf((1 + self.probe.model_type.policy.confidence) / 2)
        return (self.probe.reference.high - self.probe.reference.low) / 2 / quantile

    @cached_property
    def label_groups(self) -> list[np.ndarray]:
        """Right answers of each group of the hold-out, (labels of the group, ...)."""
        examples = self.probe.holdout_examples
        order = np.argsort(examples.groups, kind="stable")
        ordered = examples.groups[order]
        borders = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
        return np.split(examples.labels[order], borders)

    @cached_property
    def top_label(self) -> float:
        """Share of the most frequent right answer in the hold-out."""
        labels = self.probe.holdout_examples.labels
        return statistics.share_of(statistics.most_frequent(labels), labels)

    @cached_property
    def long_units(self) -> list[pl.Expr]:
        """What may have more rows than usual: a group, or an hour of a group that lasts."""
        table = self.probe.model_type.table
        if table.lasting:
            return [pl.col(table.group), pl.col(table.time) // HOUR_MS]
        return [pl.col(table.group)]

    @cached_property
    def long_height(self) -> float:
        """Rows above which a group is long, or an hour of a group that lasts."""
        heights = self.probe.holdout.group_by(self.long_units).len()["len"]
        return float(heights.quantile(LONG_QUANTILE, "higher") or 0)

    @cached_property
    def holdout_repeats(self) -> float:
        """`repeated_rows` of the hold-out."""
        return repeated_rows(self.probe.holdout, self.probe.model_type.table)

    @cached_property
    def holdout_long_rows(self) -> float:
        """Share of the hold-out's rows that are in long groups."""
        return _share(self.long_rows(self.probe.holdout))

    @cached_property
    def long_chance(self) -> float:
        """Chance of a group to be long: the share of long groups in the hold-out and one more."""
        group = self.probe.model_type.table.group
        long = self.probe.holdout.filter(self.long_rows(self.probe.holdout))[group].n_unique()
        return (long + 1) / (self.probe.holdout[group].n_unique() + 1)

    def expected_correlation(self, groups: int) -> tuple[float, float]:
        """Correlation of how often each right answer occurs in so many groups of the hold-out,
        about, and in its other groups: mean and standard deviation of draws. The number of groups
        is rounded down to a power of two, at most half of them."""
        half = max(1, len(self.label_groups) // 2)
        size = min(1 << max(groups, 1).bit_length() - 1, half)
        if size not in self.expected_correlations:
            rng = np.random.default_rng(0)
            correlations = []
            for _ in range(DRAWS):
                order = rng.permutation(len(self.label_groups))
                some = np.concatenate([self.label_groups[i] for i in order[:size]])
                others = np.concatenate([self.label_groups[i] for i in order[size:]])
                correlations.append(
                    statistics.frequency_correlation(some, others, self.probe.profile.height)
                )
            spread = float(np.nanstd(correlations))
            self.expected_correlations[size] = (float(np.nanmean(correlations)), spread)
        return self.expected_correlations[size]

    def tails(
        self, rows: pl.DataFrame, end: int, length: int, histories: Mapping[int, TailHistory]
    ) -> list[Tail]:
        """Tails until `end` (ms, inclusive) of a window of `length` ms, the shortest first.

        `rows` are whole groups that began since the longest of them. Tails with fewer than
        `statistics.MIN_GROUPS` groups are left out. A baseline is refitted where the quality fell
        sharply and `histories`, by fraction, say how well it usually learns.
        """
        model_type = self.probe.model_type
        table = model_type.table
        examples = model_type.examples(rows)
        if not len(examples):
            return []
        scores = model_type.score(examples, scoring.answer(self.probe.onnx, examples.inputs))
        categories = self.probe.request_categories(rows, self.probe.profile)
        tails: list[Tail] = []
        for fraction in FRACTIONS:
            start = end + 1 - length // fraction
            chosen = rows.filter(table.within(start))
            inside = text.is_among(examples.groups, chosen[table.group].unique())
            if len(np.unique(examples.groups[inside])) < statistics.MIN_GROUPS:
                continue
            asked = examples.take(inside)
            tail = self._tail(start, end, chosen, asked, scores[inside], categories[inside])
            tails.append(tail)
        by_start = {end + 1 - length // fraction: each for fraction, each in histories.items()}
        for number, (tail, longer) in enumerate(itertools.pairwise(tails)):
            history = by_start.get(tail.start)
            # A stretch of two worlds teaches less than one of one.
            if history is None or not doubts.fell_before(tail, longer):
                continue
            chosen = rows.filter(table.within(tail.start))
            if not self._full(tail, chosen):
                continue
            refit = self.probe.refit(chosen, self.probe.profile, history.amount)
            tails[number] = tail.model_copy(update={"refit": refit, "history": history.refits})
        return tails

    def _full(self, tail: Tail, rows: pl.DataFrame) -> bool:
        """Whether the `rows` of a tail began early enough to be compared with whole stretches."""
        first = int(rows[self.probe.model_type.table.time].min())  # type: ignore[arg-type]
        return tail.end + 1 - first >= FULL * (tail.end + 1 - tail.start)

    def _tail(
        self,
        start: int,
        end: int,
        rows: pl.DataFrame,
        examples: Examples,
        scores: np.ndarray,
        categories: np.ndarray,
    ) -> Tail:
        """The tail with these `rows` and `examples`, of each of which `scores` and `categories`
        (n,) say the metric and the category of the request."""
        mix = self.probe.request_mix
        error = statistics.standard_error(scores, categories, examples.groups, mix)
        long = self.long_rows(rows)
        group = self.probe.model_type.table.group
        return Tail(
            start=start,
            end=end,
            groups=len(np.unique(examples.groups)),
            live=statistics.standardised_mean(scores, categories, mix),
            reference=self.probe.reference.mean,
            error=math.hypot(error, self.reference_error),
            **self._labels(examples),
            repeats=repeated_rows(rows, self.probe.model_type.table),
            repeats_reference=self.holdout_repeats,
            long_rows=_share(long),
            long_groups=rows.filter(long)[group].n_unique(),
            long_chance=self.long_chance,
            long_rows_reference=self.holdout_long_rows,
        )

    def _labels(self, examples: Examples) -> dict[str, Any]:
        """What a tail says about the right answers of its `examples`; nothing, where they are no
        names."""
        labels = examples.labels
        before = self.probe.holdout_examples.labels
        if not statistics.are_names(labels):
            return {}
        expected, error = self.expected_correlation(len(np.unique(examples.groups)))
        is_top = statistics.equal(statistics.most_frequent(labels), labels)
        values = self.probe.profile.height
        return {
            "label_correlation": statistics.frequency_correlation(labels, before, values),
            "expected_correlation": expected,
            "correlation_error": error,
            "rest_correlation": statistics.rest_correlation(labels, before, values),
            "top_label": float(is_top.mean()),
            "top_label_reference": self.top_label,
            "top_label_groups": len(np.unique(examples.groups[is_top])),
            "new_label_shares": statistics.new_label_shares(labels, before),
            "vanished": statistics.vanished_share(
                labels, examples.groups, before, self.probe.holdout_examples.groups, FREQUENT
            ),
        }

    def long_rows(self, rows: pl.DataFrame) -> pl.Series:
        """Whether each of the `rows` is in a long group, or in a long hour of one that lasts."""
        height = pl.len().over(self.long_units)
        return rows.select(height > self.long_height).to_series()

    def histories(self, rows: TrustedRows, last: int, length: int) -> dict[int, TailHistory]:
        """What a baseline learns in stretches until `last` (ms, inclusive) that are as long as the
        tails of a window of `length` ms, by fraction."""
        histories = {}
        for fraction in REFIT_FRACTIONS:
            step = length // fraction
            samples = []
            for number in range(STRETCHES):
                end = last - number * step
                stretch = (end - step + 1, end)
                window = read_window(self.probe.model_type, rows, self.probe.profile, *stretch)
                if len(window.sample):
                    samples.append(window.sample)
            if not samples:
                continue
            amount = int(REFIT_SHARE * np.median([sample.height for sample in samples]))
            refits = [self.probe.refit(sample, self.probe.profile, amount) for sample in samples]
            finite = [refit for refit in refits if np.isfinite(refit)]
            histories[fraction] = TailHistory(amount=amount, refits=finite)
        return histories


def repeated_rows(rows: pl.DataFrame, table: Table) -> float:
    """Share of the rows that repeat the row before them in their group in all but the time."""
    columns = [pl.col(name) for name in rows.columns if name != table.time]
    same = [column.eq_missing(column.shift()) for column in columns]
    return _share(rows.sort(table.order).select(pl.all_horizontal(same)).to_series())


def _share(flags: pl.Series) -> float:
    """Share of the flags that are true; 0 without any."""
    return float(flags.mean() or 0.0)  # type: ignore[arg-type]
