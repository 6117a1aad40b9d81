"""Optuna: what a search tries next, and which trial is not worth finishing. The only module that
imports optuna.

Nothing is kept here: each question comes with all trials so far, so any process can
ask it at any time.
"""

import hashlib
from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pydantic import BaseModel

from models.search import Search

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution

Space = dict[str, "BaseDistribution"]


class Trial(Protocol):
    """What is asked of a trial."""

    @property
    def number(self) -> int: ...
    @property
    def state(self) -> str: ...  # running, finished, pruned, failed or killed
    @property
    def params(self) -> dict[str, Any]: ...
    @property
    def validation(self) -> float: ...
    @property
    def reports(self) -> dict[int, float]: ...


T = TypeVar("T", bound=Trial)


def space(params: type[BaseModel], fixed: Container[str] = ()) -> Space:
    """The fields that `params` marks with `Search`, without the `fixed` ones, and where values may
    be taken from.

    Raises ValueError if none is left, or for a range that does not fit its field.
    """
    marks = {}
    for name, field in params.model_fields.items():
        for mark in field.metadata:
            if isinstance(mark, Search):
                marks[name] = mark
    distributions = {
        name: _distribution(params, name, mark) for name, mark in marks.items() if name not in fixed
    }
    if not distributions:
        why = "mark a number in it with models.search.Search"
        if marks:
            why = f"{', '.join(marks)}: all of it is fixed"
        raise ValueError(
            f"There is nothing to search in {params.__module__}.{params.__qualname__} ({why})."
        )
    return distributions


def _distribution(params: type[BaseModel], name: str, mark: Search) -> "BaseDistribution":
    from optuna.distributions import FloatDistribution, IntDistribution

    field = params.model_fields[name]
    default = field.get_default(call_default_factory=True)
    is_number = field.annotation in (int, float)
    if not is_number or not mark.low <= default <= mark.high or (mark.log and mark.low <= 0):
        raise ValueError(
            f"{params.__module__}.{params.__qualname__}.{name} cannot be searched within {mark}: "
            f"it must be an int or a float, its default {default!r} must lie within, and a "
            "logarithmic range must begin above 0."
        )
    for bound in (mark.low, mark.high):
        params.model_validate({name: bound})
    if field.annotation is int:
        return IntDistribution(int(mark.low), int(mark.high), log=mark.log)
    return FloatDistribution(mark.low, mark.high, log=mark.log)


def propose(space: Space, trials: Sequence[Trial], seed: str) -> dict[str, Any]:
    """The parameters to try next, by the tree-structured Parzen estimator; at random as long as few
    have ended.

    The same past and seed give the same proposal. Trials that still run count as bad ones, so that
    trials side by side do not crowd in one place.
    """
    from optuna.samplers import TPESampler

    number = int(hashlib.sha256(seed.encode()).hexdigest()[:8], 16)
    study = _study(sampler=TPESampler(seed=number))
    for trial in trials:
        if trial.state in ("running", "finished", "pruned"):
            _add(study, trial, space, trial.reports)
    return study.ask(space).params


def should_prune(trials: Sequence[Trial], reports: Mapping[int, float]) -> bool:
    """Whether a running trial is not worth finishing, by the median rule.

    Its best report so far is then below the median of the finished trials after the same share of
    the training. Five of them at least must have finished.

    `reports` are per cent of the training and validation metric, as in `Trial`.
    """
    from optuna import create_trial
    from optuna.pruners import MedianPruner
    from optuna.trial import TrialState

    now = max(reports)
    study = _study()
    for trial in trials:
        if trial.state == "finished":
            # Trials report at shares of their own: compared is the newest report that each had by
            # now.
            earlier = [percent for percent in trial.reports if percent <= now]
            comparable = {}
            if earlier:
                comparable[now] = trial.reports[max(earlier)]
            _add(study, trial, {}, comparable)
    running = create_trial(state=TrialState.RUNNING, intermediate_values=dict(reports))
    return bool(MedianPruner().prune(study, running))


def best(trials: Sequence[T]) -> T:
    """The finished trial with the highest validation metric; of equal ones the first. Raises
    ValueError if none is."""
    finished = [trial for trial in trials if trial.state == "finished"]
    if not finished:
        raise ValueError("No trial has finished yet: run the search until one has.")
    return max(finished, key=lambda trial: (trial.validation, -trial.number))


def _study(**options: Any) -> "Study":
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(direction="maximize", **options)


def _add(study: "Study", trial: Trial, space: Space, reports: dict[int, float]) -> None:
    from optuna import create_trial
    from optuna.trial import TrialState

    states = {
        "running": TrialState.RUNNING,
        "finished": TrialState.COMPLETE,
        "pruned": TrialState.PRUNED,
    }
    value = None
    if trial.state == "finished":
        value = trial.validation
    frozen = create_trial(
        state=states[trial.state],
        value=value,
        params={name: trial.params[name] for name in space},
        distributions=space,
        intermediate_values=reports,
    )
    study.add_trial(frozen)
