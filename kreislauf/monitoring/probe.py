"""A version asked about a window: its answers there, and what a trivial baseline makes of it.

Measures only; what a number means is said in `diagnosis.py`.
"""

import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from kreislauf.evaluation import scoring, split
from kreislauf.evaluation.intervals import Interval, interval
from kreislauf.monitoring import statistics
from kreislauf.monitoring.window import Window
from models import text
from models.spec import Examples, ModelSpec

REFIT_SHARE = 0.4
"""Rows that the refitted baseline learns from, as a share of a usual window's: equally many in each
window, large ones too."""
REFIT_TAIL_SHARE = 0.2
"""Rows that the baseline of a window's later half learns from, as a share of a usual window's."""
CONFIDENCE = 0.998
"""Confidence level of the intervals of gains: one in a thousand windows may say that nothing is
something, and twelve are judged in a window's length (see `cadence.py`)."""
SHOWN_ANSWERS = 1_000
"""Answers that are looked at as answers, evenly from the window; always as many, because coverage
grows with their number."""
REFIT = "refit_baseline"
REFIT_TAIL = "refit_baseline_tail"
LABEL_CORRELATION = "label_correlation"
TOP_LABEL = "top_label"


@dataclass(frozen=True)
class QualityMeasurement:
    """How well a window was answered, and what a refitted baseline gains there."""

    examples: Examples
    scores: np.ndarray
    """Metric of the version for each example, float64 (n,)."""
    baseline_scores: np.ndarray
    """Metric of the trivial baseline that was registered with the version, float64 (n,)."""
    gain: Interval
    """Gain of a trivial baseline that learnt from half of the window, too."""


class SliceQuality(BaseModel):
    """Quality in one slice of a window: the version's metric with its interval."""

    model_config = ConfigDict(frozen=True)

    slice: str
    value: str
    groups: int
    live: float
    low: float
    high: float
    reference: float | None = Field(description="The same slice of the version's hold-out.")
    baseline: float = Field(description="The version's trivial baseline in the window.")


@dataclass(frozen=True)
class Probe:
    """A version, with the files that are kept beside it."""

    model_type: ModelSpec
    onnx: Path
    baseline: Path
    """Its trivial baseline, as it was when the version was trained."""
    profile: pl.DataFrame
    """`ModelSpec.training_profile` of the rows that it learnt from."""
    holdout: pl.DataFrame
    """Rows of its hold-out."""
    reference: Interval
    """Its metric on the hold-out."""

    @cached_property
    def request_mix(self) -> dict[str, float]:
        """Share of each category of requests in the hold-out; all windows are compared at this
        mix."""
        return statistics.proportions(self.request_categories(self.holdout, self.profile))

    @cached_property
    def holdout_examples(self) -> Examples:
        """The examples of the hold-out."""
        return self.model_type.examples(self.holdout)

    @cached_property
    def holdout_scores(self) -> np.ndarray:
        """The version's metric for each of `holdout_examples`, float64 (n,)."""
        outputs = scoring.answer(self.onnx, self.holdout_examples.inputs)
        return self.model_type.score(self.holdout_examples, outputs)

    def request_categories(self, rows: pl.DataFrame, profile: pl.DataFrame) -> np.ndarray:
        """Category of each of `model_type.examples(rows)`, strings (n,); all the same for a model
        type that tells none apart."""
        columns = self.model_type.mix
        if not columns:
            return np.full(len(self.model_type.examples(rows)), "")
        slices = self.model_type.slices(rows, profile)
        return slices.select(pl.concat_str(columns, separator=" ")).to_series().to_numpy()

    def signals(self, window: Window, profile: pl.DataFrame, usual_rows: float) -> dict[str, float]:
        """Each number about a window but the live quality, by name.

        - those of `Window.statistics`;
        - `top_label` and `top_answer`, logs, because small shares are skewed: of the share of the
          most frequent right answer, and of the most frequent first item of the version's answers;
        - `label_correlation`, correlation of how often each right answer occurs in the later half
          of the window and in the hold-out; this and `top_label` where right answers are names
          (`statistics.are_names`);
        - `coverage`, the share of all possible answers that the version gives;
        - `refit_baseline`, the quality of a baseline that learnt from half of the groups of the
          window, on the other half;
        - `refit_baseline_tail`, the same in the later half of the window.

        `profile` is the training profile of the rows before the window. The sample of a usual
        window has `usual_rows` rows.
        """
        table = self.model_type.table
        tail = window.sample.filter(table.within((window.start + window.end) // 2))
        signals = dict(window.statistics)
        examples = self.model_type.examples(window.sample)
        signals |= self.label_signals(examples, tail)
        signals |= self.answer_signals(examples)
        stretches = {
            REFIT: (window.sample, int(REFIT_SHARE * usual_rows)),
            REFIT_TAIL: (tail, int(REFIT_TAIL_SHARE * usual_rows)),
        }
        for name, (rows, amount) in stretches.items():
            signals[name] = self.refit(rows, profile, amount)
        return signals

    def refit(self, rows: pl.DataFrame, profile: pl.DataFrame, amount: int) -> float:
        """Quality of a baseline that learnt from every other group of `rows`, `amount` rows at
        most, on the other groups, at the hold-out's mix of requests; NaN if there are none."""
        table = self.model_type.table
        learnt, asked = split.halves(rows, table)
        examples = self.model_type.examples(asked)
        learnt = split.some(learnt, table, amount)
        if learnt.is_empty() or not len(examples):
            return float("nan")
        with tempfile.TemporaryDirectory() as folder:
            onnx = self.model_type.baseline(learnt, Path(folder))
            scores = self._scores(onnx, examples)
        categories = self.request_categories(asked, profile)
        return statistics.standardised_mean(scores, categories, self.request_mix)

    def label_signals(self, examples: Examples, tail: pl.DataFrame) -> dict[str, float]:
        """`top_label` of the window's examples, and `label_correlation` of the rows of its later
        half, `tail`; none where right answers are no names."""
        labels = examples.labels
        if not statistics.are_names(labels):
            return {}
        top_share = statistics.share_of(statistics.most_frequent(labels), labels)
        correlation = statistics.frequency_correlation(
            self.model_type.examples(tail).labels,
            self.holdout_examples.labels,
            self.profile.height,
        )
        return {TOP_LABEL: float(np.log(top_share)), LABEL_CORRELATION: correlation}

    def answer_signals(self, examples: Examples) -> dict[str, float]:
        """`top_answer` and, where the model type has one, `coverage`."""
        drawn = np.unique(np.linspace(0, len(examples) - 1, SHOWN_ANSWERS).astype(int))
        outputs = scoring.answer(self.onnx, examples.take(drawn).inputs)
        answers = self.model_type.answers(outputs)
        first_items = np.array([repr(self.model_type.items(answer)[:1]) for answer in answers])
        top_share = statistics.share_of(statistics.most_frequent(first_items), first_items)
        signals = {"top_answer": float(np.log(top_share))}
        coverage = self.model_type.coverage(outputs, self.profile)
        if coverage is not None:
            signals["coverage"] = coverage
        return signals

    def quality(self, window: Window, before: pl.DataFrame) -> QualityMeasurement:
        """Scores in the window, and the gain of a baseline that learns from `before` and half of
        the window, over the one that was registered with the version, on the other half."""
        examples = self.model_type.examples(window.sample)
        scores = self._scores(self.onnx, examples)
        baseline_scores = self._scores(self.baseline, examples)
        learnt, held = _halves(self.model_type, window, examples)
        refit_scores = scoring.baseline_scores(
            self.model_type, pl.concat([before, learnt]), examples.take(held)
        )
        gain = interval(refit_scores - baseline_scores[held], examples.groups[held], CONFIDENCE)
        return QualityMeasurement(examples, scores, baseline_scores, gain)

    def live_quality(self, window: Window, scores: np.ndarray) -> float:
        """Mean of the version's `scores` (n,) in the window, at the hold-out's mix of requests."""
        categories = self.request_categories(window.sample, self.profile)
        return statistics.standardised_mean(scores, categories, self.request_mix)

    def slices(self, window: Window, quality: QualityMeasurement) -> list[SliceQuality]:
        """Quality in each slice of the window that has enough groups."""
        now = self.model_type.slices(window.sample, self.profile)
        then = self.model_type.slices(self.holdout, self.profile)
        slices = []
        for column in now:
            for value in column.unique().sort():
                inside = (column == value).to_numpy()
                groups = quality.examples.groups[inside]
                count = len(np.unique(groups))
                if count < statistics.MIN_GROUPS:
                    continue
                live = interval(quality.scores[inside], groups, self.model_type.policy.confidence)
                before = (then[column.name] == value).to_numpy()
                reference = None
                if before.any():
                    reference = float(self.holdout_scores[before].mean())
                slices.append(
                    SliceQuality(
                        slice=column.name,
                        value=str(value),
                        groups=count,
                        live=live.mean,
                        low=live.low,
                        high=live.high,
                        reference=reference,
                        baseline=float(quality.baseline_scores[inside].mean()),
                    )
                )
        return slices

    def _scores(self, onnx: Path, examples: Examples) -> np.ndarray:
        return self.model_type.score(examples, scoring.answer(onnx, examples.inputs))


def gain_of_keeping(model_type: ModelSpec, window: Window, before: pl.DataFrame) -> Interval:
    """Gain of a baseline that learns from `before` and half of the window, on the other half.

    It is compared with one that learns from `before` alone: noise in fresh data can be worth more
    than no fresh data.
    """
    examples = model_type.examples(window.sample)
    learnt, held = _halves(model_type, window, examples)
    asked = examples.take(held)
    kept = scoring.baseline_scores(model_type, pl.concat([before, learnt]), asked)
    left_out = scoring.baseline_scores(model_type, before, asked)
    return interval(kept - left_out, asked.groups, CONFIDENCE)


def _halves(
    model_type: ModelSpec, window: Window, examples: Examples
) -> tuple[pl.DataFrame, np.ndarray]:
    """Every other group of the sample to learn from, and which of `examples` (n,) are of the
    others."""
    table = model_type.table
    learnt, asked = split.halves(window.sample, table)
    return learnt, text.is_among(examples.groups, asked[table.group].unique())
