"""Search for better hyperparameters: trials side by side, on the rows before the hold-out. Changes
nothing else."""

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.futures import PrefectFuture, wait
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import PositiveInt

from kreislauf import search
from kreislauf.pages import search as search_page
from kreislauf.registry import studies
from kreislauf.search import process
from kreislauf.search.result import TuningResult
from kreislauf.settings import settings
from models import spec
from tasks.tune import attempt, open_study, summarise


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

    Args:
        model: Name of the model type.
        trials: Trials to have in the end, finished or pruned; the first has the default parameters.
        params: Parameters that differ from the defaults and are not searched.
        workers: Trials at the same time. Default: one a core, but no more than a quarter of the
            trials, because they learn from earlier ones only; one where `KREISLAUF_TRAINER` names
            an accelerator.

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
        run_trials(study, trials, workers or process.cores(trials), folder)
        tuned = conclude(study)
    get_run_logger().info(
        f"{tuned.validation:.4f} against {tuned.default_validation:.4f}. {tuned.adopt}"
    )
    return tuned


def run_trials(study: studies.Study, trials: int, workers: int, folder: Path) -> None:
    """Run every trial that has neither finished nor was pruned. Raises Ended if that with the
    defaults fails."""
    waiting = studies.unfinished_trials(study, trials)
    pool: ThreadPoolTaskRunner[Any]
    with ThreadPoolTaskRunner(max_workers=workers) as pool:
        running: list[PrefectFuture[Any]] = []
        for number in waiting:
            parameters = {"study": study, "number": number, "folder": folder}
            running.append(pool.submit(attempt, parameters))  # type: ignore[arg-type]
        if 0 in waiting:
            running[0].result()
        wait(running)


def conclude(study: studies.Study) -> TuningResult:
    """Show and return what was found, and close the study."""
    trials = studies.trials(study)
    tuned = summarise(study, trials)
    validations = {
        "validation": tuned.validation,
        "default_validation": tuned.default_validation,
    }
    studies.end(study, validations)
    create_markdown_artifact(
        key=f"search-{study.model.replace('_', '-')}",
        markdown=search_page.page(tuned, trials),
        description="Trials of a search, and its best hyperparameters",
    )
    return tuned
