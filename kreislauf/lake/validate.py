"""Decoded lines to validated rows, or to the reason why not."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import polars as pl

from kreislauf.clock import DAY_MS
from kreislauf.lake import decode, mapped
from kreislauf.lake.decode import DecodedLines
from models.mapping import Mapping
from models.records import RawPart, RawRecords
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
"""Columns of rejected lines; `rows` is the number of rows, 1 for a line that does not decode."""
BROKEN = {"line": pl.UInt32, "reason": pl.String, "rule": pl.String}
"""Columns of lines that break a rule; `line` is the position in the batch."""
CHECKS = {
    "isin": "to be one of",
    "not_nullable": "not to be null",
    "str_length": "to be of length",
}
"""Names of Pandera's checks in words, where the name itself does not read well."""


@dataclass(frozen=True)
class ValidatedLines:
    """What became of the lines of a batch, before duplicates are looked for."""

    rows: pl.DataFrame
    """Validated rows, in the lines' order."""
    rejected: pl.DataFrame
    """Columns of REJECTED."""
    lines_in: int
    lines_blank: int
    lines_left_out: int
    rows_in: int


def validate_lines(
    table: Table, raws: Sequence[RawPart], mapping: Mapping | None = None
) -> ValidatedLines:
    """Decode and validate a batch of at least one, as `loading.load` does; by default its lines or
    rows are the table's own."""
    if mapping is not None or not isinstance(raws[0], RawLines):
        return apply_rules(table, raws, mapped.decode_rows(table, mapping, raws))
    lines = cast(Sequence[RawLines], raws)
    decoded = decode.decode_lines(table, lines)
    return apply_rules(table, raws, mapped.with_single_rows(table, lines, decoded))


def apply_rules(table: Table, raws: Sequence[RawPart], decoded: DecodedLines) -> ValidatedLines:
    """Validate the lines of a batch; a line with one bad row is rejected whole."""
    rows = decoded.rows
    breaking = pl.concat([_breaking_rules(table, rows), _in_the_future(table, rows)])
    breaking = breaking.unique("line", keep="first", maintain_order=True)
    sizes = (
        rows.join(breaking, on="line", how="semi")
        .group_by("line")
        .agg(pl.len().cast(pl.Int64).alias("rows"))
    )
    undecoded = pl.DataFrame(decoded.broken, BROKEN, orient="row")
    undecoded = undecoded.with_columns(pl.lit(1, pl.Int64).alias("rows"))
    rejected = pl.concat([undecoded, breaking.join(sizes, on="line")]).sort("line")
    if not breaking.is_empty():
        rows = rows.filter(~pl.col("line").is_in(breaking["line"].implode()))
    return ValidatedLines(
        rows=rows.drop("line"),
        rejected=_with_raw(rejected, raws),
        lines_in=sum(map(len, raws)),
        lines_blank=decoded.blank,
        lines_left_out=decoded.left_out,
        rows_in=rows.height + int(rejected["rows"].sum()),
    )


def _with_raw(rejected: pl.DataFrame, raws: Sequence[RawPart]) -> pl.DataFrame:
    """Columns of REJECTED for positions in `line`."""
    positions = rejected["line"].to_numpy()
    firsts = np.cumsum([0, *map(len, raws)])
    owners = np.searchsorted(firsts, positions, side="right") - 1
    places = [(raws[w], int(p - firsts[w])) for w, p in zip(owners, positions, strict=True)]
    return rejected.with_columns(
        pl.Series("source", [raw.source for raw, _ in places], pl.String),
        pl.Series("line", [raw.numbers[i] for raw, i in places], pl.Int64),
        pl.Series("raw", _texts(raws, owners, positions - firsts[owners]), pl.Binary),
    ).match_to_schema(REJECTED)


def _texts(raws: Sequence[RawPart], owners: np.ndarray, positions: np.ndarray) -> list[bytes]:
    """The lines at positions of their owners among `raws`; positions are in order."""
    texts: list[bytes] = []
    for owner in np.unique(owners):
        raw = raws[owner]
        own = positions[owners == owner]
        if isinstance(raw, RawRecords):
            texts += raw.some_lines(own)
        else:
            texts += [raw.line(position) for position in own]
    return texts


def _breaking_rules(table: Table, rows: pl.DataFrame) -> pl.DataFrame:
    """Lines with a row that breaks a rule, and the first rule broken.

    Raises Pandera's SchemaErrors if the columns themselves are wrong: then the model type's `line`
    and `schema` disagree, and no line is at fault.
    """
    from pandera.config import ValidationDepth, config_context
    from pandera.errors import SchemaErrors

    # PANDERA_VALIDATION_* in the environment could switch the rules off.
    depth = ValidationDepth.SCHEMA_AND_DATA
    try:
        with config_context(validation_enabled=True, validation_depth=depth):
            table.schema.validate(rows.drop("line"), lazy=True)
    except SchemaErrors as error:
        cases = error.failure_cases
        if cases["index"].null_count():
            raise
        check = pl.col("check").map_elements(_in_words, pl.String)
        value = pl.col("failure_case").cast(pl.String).str.slice(0, mapped.SHOWN)
        return cases.select(
            rows["line"].gather(cases["index"]).alias("line"),
            pl.lit("broken-rule").alias("reason"),
            pl.format("Expected `{}` {}, got '{}'", "column", check, value).alias("rule"),
        ).unique("line", keep="first", maintain_order=True)
    return pl.DataFrame(schema=BROKEN)


def _in_the_future(table: Table, rows: pl.DataFrame) -> pl.DataFrame:
    """Lines with a row from later than tomorrow.

    One of them would push the watermark, and with it every window.
    """
    tomorrow = int(time.time() * 1000) + DAY_MS
    rule = f"Expected `{table.time}` not to lie in the future"
    lines = rows.filter(pl.col(table.time) > tomorrow).select(
        "line", pl.lit("in-the-future").alias("reason"), pl.lit(rule).alias("rule")
    )
    return lines.unique("line", maintain_order=True)


def _in_words(check: str) -> str:
    """Pandera's `less_than(5)` as "less than 5"."""
    name, _, arguments = check.removesuffix(")").partition("(")
    words = CHECKS.get(name, name.replace("_", " "))
    return f"{words} {arguments}".strip()
