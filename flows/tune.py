"""Search for better training parameters: trials side by side, on the rows before the hold-out.
Changes nothing else."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.futures import PrefectFuture, wait
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from kreislauf import lake, registry, search
from kreislauf.evaluation import split
from kreislauf.lake import exclusions
from kreislauf.registry import studies
from kreislauf.search import process
from kreislauf.settings import settings
from models import spec
from tasks.tune import attempt

SHOWN = 10
"""Trials in the artifact."""

PAGE = """## {tuned.model}: {tuned.validation:.4f}, with the defaults {tuned.default_validation:.4f}

The validation metric of the training, on rows before the hold-out. Trial 0 has the defaults. Attempts: {states}.

{table}

Nothing was changed. To train with the best parameters from now on, in the checkout that is deployed:

```
{tuned.adopt}
make deploy
```
"""


class TuningResult(BaseModel):
    """What a search found."""

    model_config = ConfigDict(frozen=True)

    model: str
    study: str
    params: dict[str, Any] = Field(
        description="Best parameters, those that differ from the defaults or were searched."
    )
    validation: float = Field(description="`TrainingResult.validation` with them.")
    default_validation: float = Field(description="The same with the default parameters.")
    trials: dict[str, int] = Field(
        description="Attempts by their state: finished, pruned, failed, killed."
    )
    adopt: str = Field(
        description="The command that makes the best parameters the deployments' defaults."
    )


@flow
def tune(
    model: str = "session_recommender",
    trials: PositiveInt = 20,
    params: dict[str, Any] | None = None,
    workers: PositiveInt | None = None,
) -> TuningResult:
    """Search the fields of the model type's `Params` that are marked with `Search`, by
    `TrainingResult.validation`.

    All trials learn cold from the rows that a training would learn from today; the hold-out stays
    unseen. A search that was interrupted is continued, on its own rows, when it is run again with
    the same parameters; more `trials` than before are added to those that were run. Nothing that
    runs or serves is changed: `TuningResult.adopt` says how to.

    Args: model: Name of the model type. trials: Trials to have in the end, finished or pruned; the
        first has the default parameters. params: Parameters that differ from the defaults and are
        not searched. workers: Trials at the same time. Default: one a core, but no more than a
        quarter of the trials, because they
            learn from earlier ones only; one where `KREISLAUF_TRAINER` names an accelerator.

    Returns:
        The best parameters, and how they compare with the defaults.

    Raises:
        ValueError: unknown model type, wrong parameters, nothing to search, too little data.
        process.Ended: the trial with the default parameters failed.
        RuntimeError: another process runs the same study.
        lake.LakeError, registry.RegistryError: a store is missing or does not answer.
    """
    model_type = spec.load(model)
    fixed = model_type.Params.model_validate(params or {}).model_dump(
        mode="json", exclude_unset=True
    )
    search.space(model_type.Params, fixed)
    study, rows = open_study(model_type, fixed)
    folder = settings().home / "search" / study.name
    with process.exclusive_folder(folder):
        rows.write_ipc(folder / "rows.arrow")
        del rows
        studies.mark_orphans_killed(study)
        run_trials(study, trials, workers or cores(trials), folder)
        tuned = conclude(study)
    get_run_logger().info(
        f"{tuned.validation:.4f} against {tuned.default_validation:.4f}. {tuned.adopt}"
    )
    return tuned


def cores(trials: int) -> int:
    """See `workers` of `tune`; on a CPU a training uses one core."""
    on_cpu = settings().trainer.get("accelerator", "cpu") == "cpu"
    return min(len(os.sched_getaffinity(0)), max(1, trials // 4)) if on_cpu else 1


def open_study(
    model_type: spec.ModelSpec, fixed: dict[str, Any]
) -> tuple[studies.Study, pl.DataFrame]:
    """The study to continue or to begin, and what its trials learn from."""
    key = digest(model_type.name, fixed, spec.code_digest(model_type))
    study, rows = resume_study(model_type, key) or start_study(model_type, key, fixed)
    return study, rows.filter(pl.col(model_type.table.time) < study.lineage.holdout)


def resume_study(model_type: spec.ModelSpec, key: str) -> tuple[studies.Study, pl.DataFrame] | None:
    """The search that was interrupted, with its rows; one whose rows are gone is closed."""
    study = studies.unfinished(model_type.name, key)
    if study is None:
        return None
    try:
        seen = study.lineage
        rows = lake.rebuild(
            model_type.table, seen.table_version, seen.watermark, seen.digest, seen.without
        )
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
    version = lake.version(model_type.table)
    without = exclusions.intervals(model_type.table.name)
    rows = lake.read(model_type.table, version, without=without)
    at = split.cut(rows, model_type.table, version, model_type.policy).model_dump()
    lineage = registry.Lineage(
        key=key, table=model_type.table.name, digest=lake.digest(rows), without=without, **at
    )
    return studies.start(
        model_type.name, digest(key, lineage.digest, lineage.holdout)[:12], lineage, fixed
    ), rows


def digest(*inputs: Any) -> str:
    """Hex SHA-256."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def run_trials(study: studies.Study, trials: int, workers: int, folder: Path) -> None:
    """Run every trial that has neither finished nor was pruned. Raises Ended if that with the
    defaults fails."""
    ended = {
        trial.number for trial in studies.trials(study) if trial.state in ("finished", "pruned")
    }
    left = [number for number in range(trials) if number not in ended]
    pool: ThreadPoolTaskRunner[Any]
    with ThreadPoolTaskRunner(max_workers=workers) as pool:
        running: list[PrefectFuture[Any]] = [
            pool.submit(attempt, {"study": study, "number": number, "folder": folder})  # type: ignore[arg-type]
            for number in left
        ]
        if 0 in left:
            running[0].result()
        wait(running)


def conclude(study: studies.Study) -> TuningResult:
    """Show and return what was found, and close the study."""
    tried = studies.trials(study)
    best = search.best(tried)
    default = search.best([trial for trial in tried if trial.number == 0])
    tuned = TuningResult(
        model=study.model,
        study=study.name,
        params={**study.fixed, **best.params},
        validation=best.validation,
        default_validation=default.validation,
        trials=Counter(trial.state for trial in tried),
        adopt=f"make adopt MODEL={study.model} STUDY={study.name}",
    )
    studies.end(
        study, {"validation": tuned.validation, "default_validation": tuned.default_validation}
    )
    create_markdown_artifact(
        key=f"search-{study.model.replace('_', '-')}", markdown=page(tuned, tried)
    )
    return tuned


def page(tuned: TuningResult, tried: Sequence[studies.Trial]) -> str:
    """The result as Markdown."""
    finished = (trial for trial in tried if trial.state == "finished")
    top = sorted(finished, key=lambda trial: -trial.validation)[:SHOWN]
    names = list(top[0].params)
    rows = [
        [f"{t.number}", f"{t.validation:.4f}", *(f"{t.params[n]:.6g}" for n in names)] for t in top
    ]
    table = [["trial", "validation", *names], ["---"] * (len(names) + 2), *rows]
    states = ", ".join(f"{count} {state}" for state, count in tuned.trials.items())
    return PAGE.format(
        tuned=tuned, states=states, table="\n".join(f"| {' | '.join(row)} |" for row in table)
    )
