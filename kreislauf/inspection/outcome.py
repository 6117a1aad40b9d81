"""What a load would make of a sample, by the code that loads."""

from collections import Counter
from dataclasses import dataclass

import polars as pl

from kreislauf.clock import HOUR_MS
from kreislauf.inspection import sample as samples
from kreislauf.inspection.sample import Sample
from kreislauf.inspection.traits import Traits
from kreislauf.lake import intake, sessions, validate
from models.mapping import Mapping
from models.table import Table

MANY_EVENTS = 500
"""Events of a session from which a person is hardly behind it."""
PAUSE_HOURS = 12
"""Hours between two events that are hardly of one session."""
LARGE_SHARE = 0.2
"""Share of all events from which an article is suspicious."""
FEW_EVENTS = 1.2
"""Events a session below which hardly any has two."""
MANY_ROWS = 20
"""Rows below which shares say nothing."""


@dataclass(frozen=True)
class Outcome:
    """Rows that a load would keep, and what it would reject."""

    rows: pl.DataFrame
    doubles: int
    """Number of rows that are left out, because another has the same key."""
    lines: int
    rejected: pl.DataFrame
    """Columns of `validate.REJECTED`."""
    left_out: int
    blank: int
    reasons: dict[str, int]
    """Number of lines by the rule that they break, most frequent first."""


def of(sample: Sample, table: Table, mapping: Mapping | None) -> Outcome:
    """What becomes of the sample's files, as far as they are looked at."""
    validated = []
    share = samples.ROWS // len(sample.paths)
    for path in sample.paths:
        raws, _ = samples.read(path, table, mapping, share)
        validated += [validate.validate_lines(table, [raw], mapping) for raw in raws if len(raw)]
    rows = [lines.rows for lines in validated]
    rejected = [lines.rejected for lines in validated]
    all_rejected = pl.concat([pl.DataFrame(schema=validate.REJECTED), *rejected])
    all_rows = pl.concat([table.schema.empty(), *rows])
    if mapping and (gap := mapping.gap_ms(table)):
        all_rows = sessions.with_sessions(table, all_rows, None, gap)
    kept = all_rows.unique(table.key, keep="first", maintain_order=True)
    rules = all_rejected.select(intake.GENERAL_RULE).to_series()
    return Outcome(
        kept,
        all_rows.height - kept.height,
        sum(lines.lines_in for lines in validated),
        all_rejected,
        sum(lines.lines_left_out for lines in validated),
        sum(lines.lines_blank for lines in validated),
        dict(Counter(rules).most_common()),
    )


def suspicions(rows: pl.DataFrame, columns: list[Traits], table: Table) -> list[str]:
    """Sentences about what somebody should look at in the rows of a load."""
    sentences = [s for traits in columns if (s := _placeholders(traits))]
    sentences += [
        f"{t.name} has numbers that a spreadsheet has rounded, such as {t.examples[0]}: their last "
        "digits are lost. Export it anew."
        for t in columns
        if t.texts.str.contains(r"^\d[.,]?\d*E\+\d+$").any()
    ]
    if rows.is_empty():
        return sentences
    groups = rows.group_by(table.group).agg(
        events=pl.len(), pause=pl.col(table.time).sort().diff().max().fill_null(0)
    )
    return sentences + _of_groups(groups, rows, table)


def _placeholders(traits: Traits) -> str | None:
    """A sentence about what stands for no value."""
    if not traits.is_placeholder.any():
        return None
    example = traits.present.filter(traits.is_placeholder)[0]
    share = traits.is_placeholder.sum() / traits.texts.len()
    return f"{traits.name} has '{example}' or the like for no value, in {share:.1%} of the rows."


def _of_groups(groups: pl.DataFrame, rows: pl.DataFrame, table: Table) -> list[str]:
    sentences = []
    longest = groups.sort("events", descending=True).row(0, named=True)
    if longest["events"] > MANY_EVENTS:
        sentences.append(
            f"Session {longest[table.group]} has {longest['events']:,} events: probably a bot, or "
            "no session."
        )
    pausing = groups.filter(pl.col("pause") > PAUSE_HOURS * HOUR_MS).height
    if pausing:
        sentences.append(
            f"{pausing:,} of {groups.height:,} sessions pause for more than {PAUSE_HOURS} hours: "
            "they may be users, or session ids that start anew."
        )
    if rows.height >= MANY_ROWS and rows.height / groups.height < FEW_EVENTS:
        sentences.append(
            "Hardly any session has two events, and a model learns from what came next. Is it "
            "another column that says what belongs together?"
        )
    counts = rows["aid"].value_counts(sort=True)
    if rows.height >= MANY_ROWS and counts["count"][0] > LARGE_SHARE * rows.height:
        sentences.append(
            f"Article {counts['aid'][0]} has {counts['count'][0] / rows.height:.0%} of all events."
        )
    return sentences
