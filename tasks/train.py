"""Tasks of train: plan a training, fit a model and register it."""

import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from prefect import get_run_logger, task
from pydantic import BaseModel

from kreislauf import full_disk, lake, progress, registry
from kreislauf.clock import DAY_MS
from kreislauf.evaluation import split
from kreislauf.lake import arrivals, exclusions
from kreislauf.monitoring import feedback
from kreislauf.registry import claims
from kreislauf.registry.runs import NoSuchVersion
from kreislauf.release import golden, permission, releases
from kreislauf.settings import settings
from kreislauf.training import inputs
from models import loading, spec

HOLDOUT_ROWS = 50_000
"""Maximum rows of the hold-out, in whole groups, that are kept with the version."""
CLICKED_ROWS = 50_000
"""Maximum rows, in whole groups, in which clicks on answers are counted."""
UNFINISHED_DAYS = 3
"""Days of data that may have arrived since a training was planned, if it is to be continued."""
ABANDONED_DAYS = 7
"""Days of the wall clock after which a training that nobody continues loses its folder."""


def plan(
    model_type: spec.ModelSpec, params: BaseModel, data: inputs.TrainingData
) -> registry.Lineage:
    """What the next training learns from, and which version it starts from."""
    parent = choose_parent(model_type, data.cut.holdout)
    key = digest_plan(model_type, params, data.cut.holdout, data.digest, parent)
    return data.lineage(model_type.table.name, key, parent)


def clicked_share(model_type: spec.ModelSpec, lineage: registry.Lineage) -> float:
    """Share of the newest right answers learnt from, 0 to 1, that were taken from an answer which
    was shown. The models that were live may have caused them.

    Counted are groups that began before the hold-out, at most as long as it lasts: as `clicked` has
    no times, a click would count long before it was made.
    """
    table = model_type.table
    last = lineage.holdout - 1
    start = 2 * lineage.holdout - lineage.watermark - 1
    learnt = split.started(lake.rebuild(table, *lineage.snapshot), table, start, last)
    examples = model_type.examples(split.some(learnt, table, CLICKED_ROWS))
    clicked = feedback.clicked(model_type.name, examples, start, last)
    if clicked is None:
        return 0.0
    return float(clicked.mean())


def digest_plan(
    model_type: spec.ModelSpec, params: BaseModel, holdout: int, digest: str, parent: int | None
) -> str:
    """The key of a training: a digest of all that decides what comes out of it."""
    return registry.digest_inputs(
        model_type.name,
        params.model_dump(mode="json"),
        holdout,
        digest,
        parent,
        loading.code_digest(model_type),
    )


def unfinished_plan(model_type: spec.ModelSpec, params: BaseModel) -> registry.Lineage | None:
    """The newest training that was killed, if it is still worth its end.

    One whose rows are gone is closed.
    """
    logger = get_run_logger()
    for claim in claims.unfinished(model_type.name):
        lineage = claim.lineage
        if not is_current(model_type, params, lineage):
            continue
        try:
            lake.rebuild(model_type.table, *lineage.snapshot)
        except lake.LakeUnreachable:
            raise
        except lake.LakeError as error:
            logger.warning(f"Training {lineage.key[:12]} cannot be continued. {error}")
            claims.end(model_type.name, lineage.key, "abandoned")
            continue
        logger.info(f"Training {lineage.key[:12]} was killed and is continued, on its own rows.")
        return lineage
    return None


def unfinished_version(model: str, params: dict[str, Any]) -> registry.Version | None:
    """The newest version, if it was trained so, and neither refused nor live yet."""
    model_type = spec.load(model)
    versions = registry.versions(model)
    if not versions or versions[0].closed:
        return None
    newest = versions[0]
    if permission.was_replaced(newest):
        return None
    if not is_current(model_type, model_type.Params.model_validate(params), newest.lineage):
        return None
    get_run_logger().info(
        f"Version {newest.number} was trained, but neither refused nor published: it is taken up."
    )
    return newest


def is_current(model_type: spec.ModelSpec, params: BaseModel, lineage: registry.Lineage) -> bool:
    """Whether a training of these parameters would still be the same, but for what has arrived in
    `UNFINISHED_DAYS`: code, live version and distrusted stretches."""
    watermark = lake.watermark(model_type.table)
    if watermark is None or watermark - lineage.watermark > UNFINISHED_DAYS * DAY_MS:
        return False
    if lineage.without != exclusions.intervals(model_type.table.name):
        return False
    parent = choose_parent(model_type, lineage.holdout)
    key = digest_plan(model_type, params, lineage.holdout, lineage.digest, parent)
    return key == lineage.key


def choose_parent(model_type: spec.ModelSpec, holdout: int) -> int | None:
    """The live version, unless its weights have seen the hold-out, which must not get into the
    challenger by the back door, or were deleted in MLflow."""
    live = releases.current(model_type.name)
    if live is None:
        return None
    try:
        champion = registry.get(model_type.name, live.champion)
    except NoSuchVersion:
        return None
    if champion.lineage.holdout > holdout:
        return None
    return live.champion


@task(task_run_name="fit-{model}")
def fit(model: str, params: dict[str, Any], lineage: registry.Lineage) -> registry.Version:
    """Train, export, prove parity and register; nothing is visible before all of it is done.

    A run that was killed is continued by the next one with the same lineage, from its last
    checkpoint. Raises claims.LostTraining if another process does so meanwhile, and DiskFull.
    """
    model_type = spec.load(model)
    hyperparameters = model_type.Params.model_validate(params)
    folders = {settings().training: "KREISLAUF_TRAINING", settings().home: "KREISLAUF_HOME"}
    with full_disk.named(folders), claims.held(model, lineage) as claim:
        check = partial(claims.check, claim)
        rows = lake.rebuild(model_type.table, *lineage.snapshot)
        learnt = rows.filter(pl.col(model_type.table.time) < lineage.holdout)
        holdout = split.started(rows, model_type.table, lineage.holdout, lineage.watermark)
        folder = Path(settings().training) / model / lineage.key
        folder.mkdir(parents=True, exist_ok=True)
        context = spec.TrainingContext(
            folder,
            parent_weights(model, lineage),
            new_groups(model_type, learnt, lineage),
            settings().trainer,
            progress.Progress.of(f"Training {model}"),
            check,
        )
        trained = model_type.train(learnt, hyperparameters, context)
        files = {"weights": trained.weights}
        check()
        files["baseline"] = model_type.baseline(learnt, folder)
        check()
        files["training_profile"] = write_profile(model_type, learnt, folder)
        check()
        files["holdout"] = write_holdout(model_type, holdout, folder)
        check()
        path = folder / "golden.json"
        files["golden"] = golden.write_golden(model_type, learnt, trained.onnx, path)
        # Who held it before may have been about to register when it was lost.
        version = registry.find(model, lineage.key)
        if version is None:
            version = registry.register(claim, trained, hyperparameters, files)
        if claims.is_held(claim):
            sweep(folder)
    return version


def parent_weights(model: str, lineage: registry.Lineage) -> Path | None:
    """Weights that the training starts from; None for a cold start."""
    if lineage.parent is None:
        return None
    return registry.artifact(registry.get(model, lineage.parent), "weights")


def new_groups(
    model_type: spec.ModelSpec, rows: pl.DataFrame, lineage: registry.Lineage
) -> pl.Series | None:
    """Groups with rows that the parent has not learnt from, because they are from its hold-out on,
    arrived later whatever their time, or were left out; None for a cold start."""
    if lineage.parent is None:
        return None
    table = model_type.table
    parent = registry.get(model_type.name, lineage.parent).lineage
    time = pl.col(table.time)
    is_new = time >= parent.holdout
    for first, last in parent.without:
        is_new |= time.is_between(first, last)
    later = rows.filter(is_new)[table.group]
    late = arrivals.between(table, parent.table_version, lineage.table_version, parent.holdout)
    return pl.concat([later, late[table.group]]).unique()


def write_profile(model_type: spec.ModelSpec, rows: pl.DataFrame, folder: Path) -> Path:
    """Store what the monitor has to know of the rows that the version learnt from."""
    path = folder / "training_profile.parquet"
    model_type.training_profile(rows.lazy()).collect().write_parquet(path)
    return path


def write_holdout(model_type: spec.ModelSpec, rows: pl.DataFrame, folder: Path) -> Path:
    """Store a sample of the hold-out, for the monitor to compare windows with."""
    path = folder / "holdout.parquet"
    split.some(rows, model_type.table, HOLDOUT_ROWS).write_parquet(path)
    return path


def sweep(folder: Path) -> None:
    """Remove the folder of a finished training, and those that nobody has continued for
    `ABANDONED_DAYS`."""
    shutil.rmtree(folder)
    for abandoned in folder.parent.iterdir():
        paths = [abandoned, *abandoned.rglob("*")]
        newest = max((path.stat().st_mtime for path in paths), default=0)
        if time.time() - newest > ABANDONED_DAYS * 86_400:
            claims.end(folder.parent.name, abandoned.name, "abandoned")
            shutil.rmtree(abandoned)
