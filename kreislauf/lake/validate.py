"""Unvalidated lines to validated rows, or to the reason why not."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from pandera.config import ValidationDepth, config_context
from pandera.errors import SchemaErrors

from kreislauf.clock import DAY_MS
from kreislauf.lake.decode import decode
from models.table import RawLines, Table

REJECTED = pl.Schema(
    {
        "source": pl.String(),
        "line": pl.Int64(),
        "reason": pl.String(),
        "rule": pl.String(),
        "raw": pl.Binary(),
        "rows": pl.Int64(),
    }
)
BAD = {"line": pl.UInt32, "reason": pl.String, "rule": pl.String}


@dataclass(frozen=True)
class Judged:
    """What became of some lines, before duplicates are looked for."""

    rows: pl.DataFrame
    """Validated rows, in the lines' order."""
    rejected: pl.DataFrame
    """Columns of REJECTED."""
    lines_in: int
    lines_blank: int
    rows_in: int


def judge(table: Table, raws: Sequence[RawLines]) -> Judged:
    """Decode and validate at least one Raw; a line with one bad row is rejected whole."""
    size = sum(len(raw.data) for raw in raws)
    decoded = [decode(table, raw, size) for raw in raws]
    firsts = np.cumsum([0, *map(len, raws)])
    rows = pl.concat(
        [
            d.rows.with_columns(pl.col("line") + int(f))
            for d, f in zip(decoded, firsts, strict=False)
        ]
    )
    bad = pl.concat([_breaking_rules(table, rows), _in_the_future(table, rows)])
    bad = bad.unique("line", keep="first", maintain_order=True)
    broken = [
        (int(f) + i, reason, rule)
        for d, f in zip(decoded, firsts, strict=False)
        for i, reason, rule in d.broken
    ]
    sizes = (
        rows.join(bad, on="line", how="semi")
        .group_by("line")
        .agg(pl.len().cast(pl.Int64).alias("rows"))
    )
    rejected = pl.concat(
        [
            pl.DataFrame(broken, BAD, orient="row").with_columns(pl.lit(1, pl.Int64).alias("rows")),
            bad.join(sizes, on="line"),
        ]
    ).sort("line")
    if not bad.is_empty():
        rows = rows.filter(~pl.col("line").is_in(bad["line"].implode()))
    return Judged(
        rows=rows.drop("line"),
        rejected=_with_raw(rejected, raws, firsts),
        lines_in=int(firsts[-1]),
        lines_blank=sum(d.blank for d in decoded),
        rows_in=rows.height + int(rejected["rows"].sum()),
    )


def _with_raw(rejected: pl.DataFrame, raws: Sequence[RawLines], firsts: np.ndarray) -> pl.DataFrame:
    """Columns of REJECTED for positions in `line`."""
    positions = rejected["line"].to_numpy()
    which = np.searchsorted(firsts, positions, side="right") - 1
    found = [(raws[w], int(p - firsts[w])) for w, p in zip(which, positions, strict=True)]
    return rejected.with_columns(
        pl.Series("source", [raw.source for raw, _ in found], pl.String),
        pl.Series("line", [raw.numbers[i] for raw, i in found], pl.Int64),
        pl.Series("raw", [raw.line(i) for raw, i in found], pl.Binary),
    ).match_to_schema(REJECTED)


def _breaking_rules(table: Table, rows: pl.DataFrame) -> pl.DataFrame:
    """Lines with a row that breaks a rule, and the first rule broken.

    Raises Pandera's SchemaErrors if the columns themselves are wrong: then the model type's `line`
    and `schema` disagree, and no line is at fault.
    """
    try:
        # PANDERA_VALIDATION_* in the environment could switch the rules off.
        with config_context(
            validation_enabled=True, validation_depth=ValidationDepth.SCHEMA_AND_DATA
        ):
            table.schema.validate(rows.drop("line"), lazy=True)
    except SchemaErrors as error:
        cases = error.failure_cases
        if cases["index"].null_count():
            raise
        return cases.select(
            rows["line"].gather(cases["index"]).alias("line"),
            pl.lit("broken-rule").alias("reason"),
            pl.format(
                "Expected `{}` {}", "column", pl.col("check").map_elements(_in_words, pl.String)
            ).alias("rule"),
        ).unique("line", keep="first", maintain_order=True)
    return pl.DataFrame(schema=BAD)


def _in_the_future(table: Table, rows: pl.DataFrame) -> pl.DataFrame:
    """Lines with a row from later than tomorrow: one of them would push the watermark, and with it
    every window."""
    tomorrow = int(time.time() * 1000) + DAY_MS
    return (
        rows.filter(pl.col(table.time) > tomorrow)
        .select(
            "line",
            pl.lit("in-the-future").alias("reason"),
            pl.lit(f"Expected `{table.time}` not to lie in the future").alias("rule"),
        )
        .unique("line", maintain_order=True)
    )


def _in_words(check: str) -> str:
    """Pandera's `less_than(5)` as "less than 5"."""
    name, _, arguments = check.removesuffix(")").partition("(")
    name = {"isin": "to be one of", "not_nullable": "not to be null"}.get(
        name, name.replace("_", " ")
    )
    return f"{name} {arguments}".strip()
