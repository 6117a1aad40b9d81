"""A search as MLflow runs: one run per study, one nested run per trial. They are all that a search
is continued from.

Trials of several processes only ever write runs of their own. A run whose tag `state` is missing
still runs, or was killed: `mark_orphans_killed` settles which.
"""

import json
import math
import time
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from kreislauf.registry import runs
from kreislauf.registry.lineage import Lineage
from kreislauf.registry.runs import RegistryError

STATUS = {"finished": "FINISHED", "pruned": "KILLED", "failed": "FAILED", "killed": "FAILED"}
"""MLflow's words, as its own Optuna storage uses them."""


class Study(BaseModel):
    """One search, on one state of the data."""

    model_config = ConfigDict(frozen=True)

    model: str
    name: str
    run_id: str
    lineage: Lineage = Field(
        description="What all trials learn from; `key` is the digest of everything but the data."
    )
    fixed: dict[str, Any] = Field(
        description="Parameters that are not searched and not the defaults."
    )


class Trial(BaseModel):
    """One attempt at one trial of a study."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    number: int = Field(
        description="Number from 0, which has the default parameters. A killed or failed trial is "
        "tried again."
    )
    state: str = Field("running", description="running, finished, pruned, failed or killed.")
    params: dict[str, Any] = Field(description="Parameters that are searched.")
    validation: float = Field(math.nan, description="Validation metric of a finished trial.")
    reports: dict[int, float] = Field(
        {}, description="Per cent of the training, and the validation metric then."
    )


def unfinished(model: str, key: str) -> Study | None:
    """The newest study of the same search, whatever its data, that has not come to its end."""
    running = _studies(model, f"tags.search = '{key}' and attributes.status = 'RUNNING'")
    return next(iter(running), None)


def start(model: str, name: str, lineage: Lineage, fixed: dict[str, Any]) -> Study:
    """The study called `name`, new or taken up again."""
    same_name = f"tags.study = '{name}'"
    studies = _studies(model, same_name)
    if not studies:
        tags = {
            "study": name,
            "search": lineage.key,
            "lineage": lineage.model_dump_json(),
            "fixed": json.dumps(fixed),
        }
        with runs.run(model, name, **tags):
            runs.log_dataset(lineage)
        studies = _studies(model, same_name)
    study = studies[0]
    runs.client().update_run(study.run_id, status="RUNNING")
    return study


def get(model: str, name: str) -> Study:
    """The study called `name`. Raises RegistryError that names the model's studies."""
    studies = {study.name: study for study in _studies(model)}
    if name in studies:
        return studies[name]
    names = ", ".join(studies) or f"none yet: run the flow tune on {model}"
    raise RegistryError(
        f"{model} has no study called {name!r}. Its studies, newest first: {names}."
    )


def end(study: Study, metrics: dict[str, float], status: str = "FINISHED") -> None:
    """Close the study's run; it can be taken up again."""
    for name, value in metrics.items():
        runs.client().log_metric(study.run_id, name, value)
    runs.client().set_terminated(study.run_id, status)


def trials(study: Study) -> list[Trial]:
    """All attempts, by number, each number's oldest first."""
    attempts = runs.search(study.model, f"tags.mlflow.parentRunId = '{study.run_id}'")
    attempts.sort(key=lambda run: (int(run.data.tags["number"]), run.info.start_time))
    return [_trial(run) for run in attempts]


def unfinished_trials(study: Study, count: int) -> list[int]:
    """Which of the numbers below `count` have neither finished nor were pruned."""
    ended = {trial.number for trial in trials(study) if trial.state in ("finished", "pruned")}
    return [number for number in range(count) if number not in ended]


def _trial(run) -> Trial:
    tags = run.data.tags
    return Trial(
        run_id=run.info.run_id,
        number=int(tags["number"]),
        state=tags.get("state", "running"),
        params=json.loads(tags["params"]),
        validation=float(tags.get("validation", math.nan)),
        reports=json.loads(tags.get("reports", "{}")),
    )


def begin(study: Study, number: int, params: dict[str, Any]) -> Trial:
    """A new attempt, as a run nested in that of the study."""
    from mlflow.entities import Param
    from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

    tags = {MLFLOW_PARENT_RUN_ID: study.run_id, "number": str(number), "params": json.dumps(params)}
    experiment = runs.client().get_run(study.run_id).info.experiment_id
    run = runs.client().create_run(experiment, tags=tags, run_name=f"{study.name} trial {number}")
    shown = [Param(name, str(value)) for name, value in {**study.fixed, **params}.items()]
    runs.client().log_batch(run.info.run_id, params=shown)
    return Trial(run_id=run.info.run_id, number=number, params=params)


def report(
    trial: Trial, percent: int, metrics: dict[str, float], reports: dict[int, float]
) -> None:
    """Store validation metrics after `percent` of a trial's training; `reports` as in Trial, these
    included."""
    from mlflow.entities import Metric, RunTag

    now = int(time.time() * 1000)
    # MLflow allows no "@" in names.
    values = {name.replace("@", "_at_"): value for name, value in metrics.items()}
    stored = [Metric(name, value, now, percent) for name, value in values.items()]
    tags = [RunTag("reports", json.dumps(reports))]
    runs.client().log_batch(trial.run_id, metrics=stored, tags=tags)


def finish_trial(trial: Trial, state: str, validation: float | None = None, why: str = "") -> None:
    """Close an attempt."""
    from mlflow.entities import Metric, RunTag

    tags = [RunTag("state", state)]
    metrics = []
    if why:
        tags.append(RunTag("why", why[:5000]))
    if validation is not None:
        tags.append(RunTag("validation", repr(validation)))
        metrics.append(Metric("validation", validation, int(time.time() * 1000), 100))
    runs.client().log_batch(trial.run_id, metrics, tags=tags)
    runs.client().set_terminated(trial.run_id, STATUS[state])


def mark_orphans_killed(study: Study) -> None:
    """Call killed what was left running; to be asked while no trial of the study runs."""
    for trial in trials(study):
        if trial.state == "running":
            finish_trial(
                trial, "killed", why="Its process was gone when the search was taken up again."
            )


def _studies(model: str, query: str = "tags.study != ''") -> list[Study]:
    """Studies that MLflow finds, newest first."""
    return [
        Study(
            model=model,
            name=run.data.tags["study"],
            run_id=run.info.run_id,
            lineage=Lineage.model_validate_json(run.data.tags["lineage"]),
            fixed=json.loads(run.data.tags["fixed"]),
        )
        for run in runs.search(model, query)
    ]
