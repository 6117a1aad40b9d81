"""Tasks of tune: one trial"""

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from kreislauf import search
from kreislauf.registry import studies
from kreislauf.search import process
from models import spec


def was_killed(_task: Any, _run: Any, state: Any) -> bool:
    """Whether a task is worth a retry."""
    return isinstance(state.data, process.Ended) and state.data.state == "killed"


@task(
    task_run_name="trial-{number}", cache_policy=NO_CACHE, retries=1, retry_condition_fn=was_killed
)
def attempt(study: studies.Study, number: int, folder: Path) -> str:
    """Run one trial; returns finished or pruned. Raises Ended if it fails or is killed."""
    model_type = spec.load(study.model)
    tried = studies.trials(study)
    own = folder / str(number)
    params = params_of_killed_trial(tried, number)
    if params is None:
        shutil.rmtree(own, ignore_errors=True)
        params = choose(model_type, study, tried, number)
    own.mkdir(exist_ok=True)
    trial = studies.begin(study, number, params)
    try:
        used = {**study.fixed, **params}
        validation = process.train(
            study.model, folder / "rows.arrow", used, own, listener(model_type, study, trial)
        )
        if not math.isfinite(validation):
            raise process.Ended("failed", f"Its validation metric is {validation}.")
    except Exception as error:
        state = error.state if isinstance(error, process.Ended) else "failed"
        studies.finish_trial(trial, state, why=str(error))
        if state != "pruned":
            raise
        return state
    studies.finish_trial(trial, "finished", validation)
    return "finished"


def params_of_killed_trial(tried: Sequence[studies.Trial], number: int) -> dict[str, Any] | None:
    """The parameters of a trial's last attempt if it was killed, but only once with them: they may
    be why."""
    before = [trial for trial in tried if trial.number == number]
    if not before or before[-1].state != "killed":
        return None
    last = before[-1].params
    return last if sum(trial.params == last for trial in before) == 1 else None


def choose(
    model_type: spec.ModelSpec, study: studies.Study, tried: Sequence[studies.Trial], number: int
) -> dict[str, Any]:
    """Parameters of a new attempt: the defaults in trial 0, else what the search proposes."""
    space = search.space(model_type.Params, study.fixed)
    if number == 0:
        return {name: getattr(model_type.Params(), name) for name in space}
    attempts = sum(trial.number == number for trial in tried)
    return search.propose(space, tried, f"{study.name} {number} {attempts}")


def listener(
    model_type: spec.ModelSpec, study: studies.Study, trial: studies.Trial
) -> Callable[[int, dict[str, float]], bool]:
    """Logs what a training reports, and says whether to stop it; the one with the defaults is never
    stopped."""
    reports: dict[int, float] = {}

    def hear(percent: int, metrics: dict[str, float]) -> bool:
        if model_type.metric in metrics:
            reports[percent] = metrics[model_type.metric]
        studies.report(trial, percent, metrics, reports)
        return (
            trial.number > 0
            and bool(reports)
            and search.should_prune(studies.trials(study), reports)
        )

    return hear
