"""Tasks of tune: open a study, run one trial, sum up."""

import math
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from kreislauf import lake, registry, search
from kreislauf.registry import studies
from kreislauf.search import process
from kreislauf.search.result import TuningResult
from kreislauf.training import inputs
from models import loading, spec


def open_study(
    model_type: spec.ModelSpec, fixed: dict[str, Any]
) -> tuple[studies.Study, pl.DataFrame]:
    """The study to continue or to begin, and what its trials learn from."""
    key = registry.digest_inputs(model_type.name, fixed, loading.code_digest(model_type))
    study, rows = resume_study(model_type, key) or start_study(model_type, key, fixed)
    return study, rows.filter(pl.col(model_type.table.time) < study.lineage.holdout)


def resume_study(model_type: spec.ModelSpec, key: str) -> tuple[studies.Study, pl.DataFrame] | None:
    """The search that was interrupted, with its rows; one whose rows are gone is closed."""
    study = studies.unfinished(model_type.name, key)
    if study is None:
        return None
    try:
        rows = lake.rebuild(model_type.table, *study.lineage.snapshot)
    except lake.LakeUnreachable:
        raise
    except lake.LakeError as error:
        get_run_logger().warning(
            f"Study {study.name} cannot be continued, a new one begins. {error}"
        )
        studies.end(study, {}, "KILLED")
        return None
    get_run_logger().info(f"Study {study.name} is continued.")
    return study, rows


def start_study(
    model_type: spec.ModelSpec, key: str, fixed: dict[str, Any]
) -> tuple[studies.Study, pl.DataFrame]:
    """A search on the rows that a training would see today; the same rows give the same study."""
    data = inputs.read_newest(model_type)
    lineage = data.lineage(model_type.table.name, key)
    name = registry.digest_inputs(key, data.digest, data.cut.holdout)[:12]
    return studies.start(model_type.name, name, lineage, fixed), data.rows


def was_killed(_task: Any, _run: Any, state: Any) -> bool:
    """Whether a trial was killed and is worth a retry."""
    return isinstance(state.data, process.Ended) and state.data.state == "killed"


@task(
    task_run_name="trial-{number}", cache_policy=NO_CACHE, retries=1, retry_condition_fn=was_killed
)
def attempt(study: studies.Study, number: int, folder: Path) -> str:
    """Run one trial; returns finished or pruned. Raises Ended if it fails or is killed."""
    model_type = spec.load(study.model)
    trials = studies.trials(study)
    own_folder = folder / str(number)
    params = params_of_killed_trial(trials, number)
    if params is None:
        shutil.rmtree(own_folder, ignore_errors=True)
        params = propose_params(model_type, study, trials, number)
    own_folder.mkdir(exist_ok=True)
    trial = studies.begin(study, number, params)
    reporter = make_reporter(model_type, study, trial)
    try:
        validation = process.train(
            study.model, folder / "rows.arrow", {**study.fixed, **params}, own_folder, reporter
        )
        if not math.isfinite(validation):
            raise process.Ended("failed", f"Its validation metric is {validation}.")
    except Exception as error:
        state = "failed"
        if isinstance(error, process.Ended):
            state = error.state
        studies.finish_trial(trial, state, why=str(error))
        if state != "pruned":
            raise
        return state
    studies.finish_trial(trial, "finished", validation)
    return "finished"


def params_of_killed_trial(trials: Sequence[studies.Trial], number: int) -> dict[str, Any] | None:
    """The parameters of a trial's last attempt if it was killed, but only once with them: they may
    be why."""
    attempts = [trial for trial in trials if trial.number == number]
    if not attempts or attempts[-1].state != "killed":
        return None
    params = attempts[-1].params
    if sum(trial.params == params for trial in attempts) > 1:
        return None
    return params


def propose_params(
    model_type: spec.ModelSpec, study: studies.Study, trials: Sequence[studies.Trial], number: int
) -> dict[str, Any]:
    """Parameters of a new attempt: the defaults in trial 0, else what the search proposes."""
    space = search.space(model_type.Params, study.fixed)
    if number == 0:
        defaults = model_type.Params()
        return {name: getattr(defaults, name) for name in space}
    attempts = sum(trial.number == number for trial in trials)
    return search.propose(space, trials, f"{study.name} {number} {attempts}")


def make_reporter(
    model_type: spec.ModelSpec, study: studies.Study, trial: studies.Trial
) -> Callable[[int, dict[str, float]], bool]:
    """A function that logs what a training reports, and says whether to stop it; the trial with the
    defaults is never stopped."""
    reports: dict[int, float] = {}

    def report(percent: int, metrics: dict[str, float]) -> bool:
        if model_type.metric in metrics:
            reports[percent] = metrics[model_type.metric]
        studies.report(trial, percent, metrics, reports)
        if trial.number == 0 or not reports:
            return False
        return search.should_prune(studies.trials(study), reports)

    return report


def summarise(study: studies.Study, trials: Sequence[studies.Trial]) -> TuningResult:
    """The best trial beside that with the defaults. Raises ValueError if either has not
    finished."""
    best = search.best(trials)
    default = search.best([trial for trial in trials if trial.number == 0])
    return TuningResult(
        model=study.model,
        study=study.name,
        params={**study.fixed, **best.params},
        validation=best.validation,
        default_validation=default.validation,
        trials=Counter(trial.state for trial in trials),
        adopt=f"make adopt MODEL={study.model} STUDY={study.name}",
    )
