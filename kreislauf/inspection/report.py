"""What a look at a source says to people, as Markdown that reads well in a terminal, too."""

from collections.abc import Iterator, Sequence

import polars as pl

from kreislauf.inspection import outcome as outcomes
from kreislauf.inspection import times
from kreislauf.inspection.outcome import Outcome
from kreislauf.inspection.proposal import Proposal
from kreislauf.inspection.sample import Sample
from kreislauf.inspection.traits import Traits
from models.mapping import Mapping
from models.table import Table

SHOWN_ROWS = 10
SHOWN_RULES = 10
MAX_REJECT_SHARE = 0.1
"""By default, the share of rejected lines from which `ingest` refuses a file."""
CELL = 40
"""Most characters of a value in a table."""


def of_source(sample: Sample) -> Iterator[str]:
    """What was looked at."""
    files = "1 file" if sample.files == 1 else f"{sample.files:,} files"
    looked = "all" if sample.is_whole else "only the beginning"
    if len(sample.paths) < sample.files:
        looked = f"only the beginning of {len(sample.paths)} of them"
    yield f"# {sample.source}"
    yield f"{files}. {sample.layout.form}. Rows looked at: {sample.lines:,}, {looked}."
    if sample.left_alone:
        shown = ", ".join(sample.left_alone[:SHOWN_ROWS])
        yield f"Left alone, because of their endings: {shown}."
    for fault in sample.broken.values():
        yield f"Cannot be read: {fault}"
    if sample.others:
        shown = ", ".join(sample.others[:SHOWN_ROWS])
        yield (
            f"Of another kind or with other columns than {sample.paths[0]}: {shown}. A mapping is "
            "for files with the same columns: load and inspect these by themselves."
        )


def of_columns(columns: list[Traits], sample: Sample) -> Iterator[str]:
    """A table of the source's columns."""
    rows = [
        {
            "column": t.name,
            "values": t.shape,
            "filled": f"{t.filled:.0%}",
            "different": f"{t.different:,}",
            "examples": ", ".join(t.examples),
            "times": _times(t),
        }
        for t in columns
    ]
    rows += [
        {"column": name, "values": kind, "filled": "", "different": "", "examples": "", "times": ""}
        for name, kind in sample.layout.nested.items()
    ]
    yield "## Columns"
    yield table(pl.DataFrame(rows))


def _times(traits: Traits) -> str:
    """How a column may be read as times."""
    ways = [way.name for way in traits.times]
    zone = ", without a zone" if any(way.lacks_zone for way in traits.times) else ""
    return " or ".join(ways) + zone


def of_rows_before(sample: Sample, mapping: Mapping | None) -> Iterator[str]:
    """The first rows as the source has them."""
    before = sample.frame.head(SHOWN_ROWS)
    if mapping is not None:
        before = before.select(name for name in mapping.sources if name in before.columns)
    if before.height:
        yield f"## The first {before.height} rows, as they are"
        yield table(before)


def of_rows_after(outcome: Outcome, target: Table) -> Iterator[str]:
    """The first rows as the table would have them."""
    after = outcome.rows.head(SHOWN_ROWS)
    if after.is_empty():
        return
    yield f"## The first {after.height} rows of the table `{target.name}`, as they would be"
    moments = [times.as_text(moment) for moment in after[target.time]]
    yield table(after.with_columns(pl.Series("time (UTC)", moments, pl.String)))


def of_outcome(outcome: Outcome, columns: list[Traits], target: Table) -> Iterator[str]:
    """Numbers of what would be loaded, and of what would not."""
    rows = outcome.rows
    yield "## What would be loaded"
    yield _numbers(rows, target)
    if outcome.doubles:
        yield f"Duplicates of these, which are not loaded: {outcome.doubles:,}."
    if outcome.left_out:
        yield f"Left out by `only`: {outcome.left_out:,}."
    suspicious = outcomes.suspicions(rows, columns, target)
    if suspicious:
        yield "## What looks suspicious"
        yield "\n".join(f"- {sentence}" for sentence in suspicious)
    if outcome.reasons:
        yield f"## What would be rejected: {outcome.rejected.height:,} of {outcome.lines:,}"
        yield "\n".join(_rules(outcome))
        if outcome.rejected.height > MAX_REJECT_SHARE * outcome.lines:
            yield (
                f"`ingest` refuses a file of which more than {MAX_REJECT_SHARE:.0%} of the lines "
                "are rejected."
            )


def _numbers(rows: pl.DataFrame, target: Table) -> str:
    """How many events, sessions and articles, and when."""
    if rows.is_empty():
        return "Nothing."
    sizes = rows[target.group].value_counts()["count"].to_list()
    moments = rows[target.time].to_list()
    first = times.as_text(min(moments))
    last = times.as_text(max(moments))
    counts = rows["type"].value_counts(sort=True).iter_rows()
    return (
        f"{_counted(len(rows), 'event')} of {_counted(len(sizes), 'session')}, "
        f"{len(rows) / len(sizes):.1f} each and {max(sizes):,} at most; "
        f"{_counted(rows['aid'].n_unique(), 'article')}; from {first} to {last} UTC; "
        f"{', '.join(f'{count:,} {name}' for name, count in counts)}."
    )


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _rules(outcome: Outcome) -> Iterator[str]:
    """The most frequent rules that lines break, each with an example."""
    first = outcome.rejected.unique("rule", keep="first", maintain_order=True)
    for rule, count in list(outcome.reasons.items())[:SHOWN_RULES]:
        example = next(r for r in first["rule"] if r.startswith(rule[:40]))
        yield f"- {count:,}: {example}"
    if len(outcome.reasons) > SHOWN_RULES:
        yield f"- and {len(outcome.reasons) - SHOWN_RULES:,} other reasons"


def of_doubts(proposal: Proposal) -> Iterator[str]:
    """What the proposal is not sure about."""
    doubts = [doubt for role in proposal.roles for doubt in role.doubts if not doubt.endswith(":")]
    if doubts:
        yield "## What is doubtful"
        yield "\n".join(f"- {doubt}" for doubt in dict.fromkeys(doubts))
    if proposal.choices:
        follows = " Until then, what follows shows the first that fits." if proposal.assumed else ""
        yield (
            f"To be chosen by you: {', '.join(proposal.choices)}. The mapping below says between "
            f"what.{follows}"
        )


def table(rows: pl.DataFrame) -> str:
    """A table of Markdown, long values cut."""
    with pl.Config(
        tbl_formatting="ASCII_MARKDOWN",
        tbl_hide_dataframe_shape=True,
        tbl_hide_column_data_types=True,
        tbl_rows=-1,
        tbl_cols=-1,
        tbl_width_chars=10_000,
        fmt_str_lengths=CELL,
    ):
        return str(rows)


def joined(parts: Sequence[str]) -> str:
    return "\n\n".join(parts)
