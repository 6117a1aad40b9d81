"""The signs of each verdict in a window, as sentences: pure functions."""

import math

from kreislauf.monitoring import suspicion
from kreislauf.monitoring.limits import Signal
from kreislauf.monitoring.probe import CONFIDENCE
from kreislauf.monitoring.window_quality import WindowQuality

NEW_PLACEHOLDER_RATIO = 0.5
"""Frequency of a new placeholder, as a multiple of what the most frequent right answer usually
has."""
MIN_RECOVERY = 0.25
"""Smallest share of the live model's loss that a refit brings back where there is enough to
learn."""
COLLAPSE = 0.5
"""Share of its usual quality below which the model has collapsed in a stretch of the window."""
REMAPPED_CORRELATION = 0.25
"""Share of the usual label correlation below which ids mean something else. What visitors come back
to is found even then."""
CHANGED_CORRELATION = 0.5
"""Share of the usual label correlation below which other answers are right than before."""


def remapped(correlation: Signal | None, quality: WindowQuality) -> str:
    """Whether ids seem to mean something else than before; empty if not."""
    collapsed = quality.worst_stretch < COLLAPSE
    if not (collapsed and correlation and _below(correlation, REMAPPED_CORRELATION)):
        return ""
    return (
        f"In a stretch of the window the live model reaches {quality.worst_stretch:.0%} of its "
        f"usual quality, and other answers are frequent than before ({_pair(correlation)}): "
        "ids seem to mean something else."
    )


def noise(quality: WindowQuality) -> list[str]:
    """Signs that there is less to learn from the window than from others."""
    loss = max(quality.loss, 0.0)
    live_held = quality.live.deviation > -1 and not quality.unexplained
    refit_fell = quality.refit_fell or (quality.unexplained and quality.refit.deviation < -1)
    recovered = quality.gain.mean >= loss * MIN_RECOVERY
    if live_held or not refit_fell or recovered:
        return []
    return [
        f"The live model lost {loss:.4f}, and a baseline that is refitted on the window falls "
        f"with it ({_limits(quality.refit)}; in the later half {_limits(quality.refit_tail)}): "
        f"there is less to learn. A refit would gain {quality.gain.mean:+.4f}."
    ]


def placeholder(top_label: Signal | None, new: float, all_new: float) -> str:
    """Whether one right answer is so frequent that it stands for something else; empty if none is.

    `top_label` is the log of the share of the most frequent right answer, `new` the share of the
    most frequent new one, `all_new` that of all new ones.
    """
    if top_label is None:
        return ""
    ratio = math.exp(top_label.value - top_label.mean)
    if top_label.deviation > 1 and ratio > suspicion.PLACEHOLDER_RATIO:
        return (
            f"One right answer is {ratio:.0f} times as frequent as the most frequent one usually "
            "is: a placeholder?"
        )
    usual_share = math.exp(top_label.mean)
    frequent = new > NEW_PLACEHOLDER_RATIO * usual_share
    if frequent and new > suspicion.NEW_PLACEHOLDER_SHARE * all_new:
        return (
            f"One new answer is {new:.1%} of all right answers, and most of what is new: a "
            "placeholder?"
        )
    return ""


def unlearnable(quality: WindowQuality) -> str:
    """That the quality fell sharply so long ago that a training would help by now, if it could;
    empty if it did not. Only where nothing says that one helps."""
    if not (quality.unexplained and quality.is_old):
        return ""
    return (
        f"The live model fell sharply, by {max(quality.loss, 0.0):.4f} in the window. That is as "
        "old as half of the window, and nothing that learns from it brings the quality back: there "
        "is less to learn."
    )


def staleness(correlation: Signal | None, quality: WindowQuality, min_gain: float) -> list[str]:
    """Signs that a training would make the answers better."""
    sentences = []
    metric = quality.live.name
    if quality.refit_helps(min_gain):
        sentences.append(
            f"Retraining pays: the refitted baseline gains {quality.gain.mean:.4f} {metric} "
            f"({CONFIDENCE:.1%} interval from {quality.gain.low:.4f})."
        )
    if quality.newest_refit_helps:
        sentences.append(
            "The live model fell sharply, and in the newest tail a refitted baseline gains "
            f"{quality.newest_gain} {metric}."
        )
    elif quality.newest_rows_teach:
        sentences.append(quality.learnable)
    if quality.only_live_fell(min_gain):
        best_refit = max(quality.refit, quality.refit_tail, key=lambda signal: signal.deviation)
        sentences.append(
            f"Only the live model fell: it reaches {_limits(quality.live)}; a baseline that is "
            f"refitted on the window is as good as ever ({best_refit.value:.4f}, usually "
            f"{best_refit.mean:.4f})."
        )
    lost_enough = quality.loss >= min_gain
    changed = correlation and correlation.deviation < -1
    if correlation and changed and lost_enough and _below(correlation, CHANGED_CORRELATION):
        sentences.append(
            f"Other answers are right than before ({_pair(correlation)}), and the live model has "
            f"lost {quality.loss:.4f} {metric}."
        )
    return sentences


def _below(correlation: Signal, share: float) -> bool:
    return correlation.value < share * correlation.mean


def _pair(correlation: Signal) -> str:
    return f"correlation {correlation.value:.2f}, usually {correlation.mean:.2f}"


def _limits(signal: Signal) -> str:
    return f"{signal.value:.4f}, usually {signal.mean:.4f} ± {signal.tolerance:.4f}"
