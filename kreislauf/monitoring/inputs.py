"""What a measurement reads: rows that can be trusted, a version with its files, rejected lines."""

from dataclasses import replace
from pathlib import Path

import polars as pl

from kreislauf import lake, registry
from kreislauf.evaluation import gate
from kreislauf.lake import exclusions
from kreislauf.monitoring import calibration
from kreislauf.monitoring.limits import Measured
from kreislauf.monitoring.probe import Probe
from kreislauf.monitoring.window import TrustedRows
from models import spec

MIN_REJECTED_SHARE = 0.001
"""Share of rejected lines below which they count as none."""


def trusted_rows(
    model_type: spec.ModelSpec,
    version: int | None = None,
    excluded: list[tuple[int, int]] | None = None,
) -> TrustedRows:
    """The rows of a version of the table without the stretches `excluded` (ms, inclusive); by
    default those of the lake as it is now."""
    table = model_type.table
    if version is None:
        version = lake.version(table)
    if excluded is None:
        excluded = exclusions.intervals(table.name)
    heights = lake.heights(table)

    def between(first: int | None, last: int) -> pl.LazyFrame:
        return lake.scan(table, version, start=first, end=last + 1, without=excluded)

    def count(first: int | None, last: int) -> int:
        dates = heights.filter(pl.col("date") <= lake.date_of(pl.lit(last)))
        if first is not None:
            dates = dates.filter(pl.col("date") >= lake.date_of(pl.lit(first)))
        return int(dates["rows"].sum())

    return TrustedRows(between, count, excluded, version)


def registered_probe(model_type: spec.ModelSpec, version: registry.Version) -> Probe:
    """The version with what is kept beside it.

    Raises RuntimeError when no gate ever scored the version.
    """
    name = f"{version.model} version {version.number}"
    decision = None
    if version.decision:
        decision = gate.Decision.model_validate_json(version.decision)
    if decision is None or decision.reference is None:
        raise RuntimeError(
            f"{name} is live, but no gate ever scored it, so there is no reference: "
            "run promote for it."
        )
    return Probe(
        model_type=model_type,
        onnx=registry.onnx_file(version),
        baseline=registry.artifact(version, "baseline"),
        profile=pl.read_parquet(registry.artifact(version, "training_profile")),
        holdout=pl.read_parquet(registry.artifact(version, "holdout")),
        reference=decision.reference,
    )


def comparable(probe: Probe, version: registry.Version, rows: TrustedRows, folder: Path) -> Probe:
    """The probe with a baseline that can be compared with a refitted one: one that learnt from very
    many rows is fitted anew, in `folder`."""
    first = version.lineage.start
    last = version.lineage.holdout - 1
    if rows.count(first, last) <= calibration.LEARN_ROWS:
        return probe
    # It would look too good beside a refitted one, which learns from the newest rows only.
    with lake.reading(probe.model_type.table):
        newest = calibration.newest_rows(probe.model_type, rows, first, last)
    return replace(probe, baseline=probe.model_type.baseline(newest, folder))


def rejected_share(version: registry.Version, shares: pl.DataFrame) -> dict[str, Measured]:
    """The signal `rejected`: the share of the lines that were rejected since the version was
    trained, and in each load before; nothing without a load since.

    `shares` are `lake.rejected_shares` of the version's table.
    """
    since_training = pl.col("version") > version.lineage.table_version
    weighted = (pl.col("share") * pl.col("lines")).sum() / pl.col("lines").sum()
    share = shares.filter(since_training).select(weighted).item()
    if share is None:
        return {}
    history = shares.filter(~since_training)["share"].clip(MIN_REJECTED_SHARE)
    measured = Measured(value=max(share, MIN_REJECTED_SHARE), history=history.to_list())
    return {"rejected": measured}
