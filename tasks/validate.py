"""Raw lines to validated rows, or to a reason why not. Unvalidated lines are bytes, so nobody can mistake them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import polars as pl
from pandera.config import ValidationDepth, config_context
from pandera.errors import SchemaErrors

from models.spec import Table

DAY_MS = 86_400_000


@dataclass(frozen=True)
class Judged:
    """The lines of one file, before duplicates are looked for."""

    rows: pl.DataFrame
    rejected: pl.DataFrame
    lines_loaded: int
    lines_blank: int
    rows_in: int


def judge(table: Table, lines: Sequence[bytes]) -> Judged:
    """Decode, unfold and validate; a line with one bad row is rejected whole."""
    decoded, numbers, broken, blank = _decode(table, lines)
    rows = table.unfold(decoded)
    rows = rows.with_columns(pl.Series("line", numbers, dtype=pl.Int64).gather(rows["line"]))
    bad = pl.concat([_bad_lines(table, rows), _future_lines(table, rows)]).unique(
        "line", keep="first", maintain_order=True
    )
    bad_rows = (
        rows.join(bad, on="line", how="inner").group_by("line", "reason").agg(pl.len().cast(pl.Int64).alias("rows"))
    )
    rejected = pl.concat([broken.with_columns(pl.lit(1, pl.Int64).alias("rows")), bad_rows]).sort("line")
    raw = pl.Series("raw", [lines[number - 1] for number in rejected["line"]], dtype=pl.Binary)
    refused = set(bad["line"])
    return Judged(
        rows=rows.join(bad, on="line", how="anti", maintain_order="left").drop("line"),
        rejected=rejected.with_columns(raw),
        lines_loaded=sum(number not in refused for number in numbers),
        lines_blank=blank,
        rows_in=rows.height + broken.height,
    )


def _decode(table: Table, lines: Sequence[bytes]) -> tuple[list[Any], list[int], pl.DataFrame, int]:
    """Decoded lines, their numbers (from 1), the lines that do not decode with reasons, the count of blank ones."""
    decode = msgspec.json.Decoder(table.line).decode
    decoded, numbers, blank = [], [], 0
    broken: list[tuple[int, str]] = []
    for number, line in enumerate(lines, 1):
        try:
            # msgspec skips unknown fields unread, so that only this finds invalid UTF-8 in them.
            text = line.decode().removeprefix("\ufeff")
            if not text or text.isspace():
                blank += 1
                continue
            decoded.append(decode(text))
            numbers.append(number)
        except UnicodeDecodeError as error:
            broken.append((number, f"Invalid UTF-8: {error.reason} (byte {error.start})"))
        except msgspec.DecodeError as error:
            broken.append((number, str(error)))
        except RecursionError:
            broken.append((number, "JSON is nested too deeply"))
    return decoded, numbers, pl.DataFrame(broken, {"line": pl.Int64, "reason": pl.String}, orient="row"), blank


def _bad_lines(table: Table, rows: pl.DataFrame) -> pl.DataFrame:
    """Lines with a row that breaks a rule, and the first rule broken.

    Raises Pandera's SchemaErrors if the columns themselves are wrong: then the model type's `unfold` and `schema`
    disagree, and no line is at fault.
    """
    try:
        # PANDERA_VALIDATION_* in the environment could switch the rules off.
        with config_context(validation_enabled=True, validation_depth=ValidationDepth.SCHEMA_AND_DATA):
            table.schema.validate(rows.drop("line"), lazy=True)
    except SchemaErrors as error:
        cases = error.failure_cases
        if cases["index"].null_count():
            raise
        return cases.select(
            rows["line"].gather(cases["index"]).alias("line"),
            pl.format("Expected `{}` {}", "column", pl.col("check").map_elements(_in_words, pl.String)).alias("reason"),
        ).unique("line", keep="first", maintain_order=True)
    return pl.DataFrame(schema={"line": pl.Int64, "reason": pl.String})


def _future_lines(table: Table, rows: pl.DataFrame) -> pl.DataFrame:
    """Lines with a row from later than tomorrow: one of them would push the watermark, and with it every window."""
    tomorrow = int(time.time() * 1000) + DAY_MS
    reason = pl.lit(f"Expected `{table.time}` not to lie in the future").alias("reason")
    return rows.filter(pl.col(table.time) > tomorrow).select("line", reason).unique("line", maintain_order=True)


def _in_words(check: str) -> str:
    """Pandera's `less_than(5)` as "less than 5"."""
    name, _, arguments = check.removesuffix(")").partition("(")
    name = {"isin": "to be one of", "not_nullable": "not to be null"}.get(name, name.replace("_", " "))
    return f"{name} {arguments}".strip()
