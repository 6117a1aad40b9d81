"""Look at a source: what is there, the mapping that is proposed, and what it would make of it."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from kreislauf.inspection import ids, mapping_text, outcome, proposal, report, sample, traits
from kreislauf.inspection.proposal import Proposal
from kreislauf.inspection.sample import Sample
from kreislauf.inspection.traits import Traits
from models import mapping as mappings
from models import spec
from models.loading import twin_for_text
from models.spec import ModelSpec


class InspectionError(ValueError):
    """Nothing can be proposed or tried so; the message says why and what to do."""


class Inspection(BaseModel):
    """What a look at a source has shown."""

    model_config = ConfigDict(frozen=True)

    source: str
    model: str
    """Model type that takes the ids as they are."""
    report: str
    """For people, Markdown."""
    mapping: str | None
    """The text of the proposed mapping; None if none is needed, none can help, or one is tried."""
    choices: tuple[str, ...] = ()
    """Columns of the table of which the mapping leaves something to be chosen."""
    rows: int
    """Rows and lines that were looked at."""
    rows_loaded: int
    """Of these, those that would be loaded, with the first that fits for each choice."""
    rows_rejected: int


def look(source: str, model: str | None = None, out: str | None = None) -> Inspection:
    """Inspect a file, a folder or an s3:// prefix, and write the proposed mapping to `out`.

    It is for the model type `model`; by default for the one that takes the ids as they are. Raises
    SourceError if nothing can be read, InspectionError if `out` exists or cannot be written,
    ValueError if no mapping is proposed for the model type.
    """
    table = spec.load(model or spec.DEFAULT).table
    if out and Path(out).exists():
        raise InspectionError(
            f"{out} exists already, and is not overwritten. Remove it, or name another file."
        )
    taken = sample.take(source, table)
    if not taken.lines:
        parts = [*report.of_source(taken), "There is nothing to propose from."]
        if taken.layout.names == []:
            return _finished(taken, parts, None, None, spec.load(model or spec.DEFAULT))
    if table.items in taken.layout.nested or table.items in taken.layout.names:
        return _of_own_lines(taken, model)
    columns = traits.of(taken)
    proposed = proposal.of(taken, columns, model)
    text = None
    if not proposed.is_needless:
        text = mapping_text.write(proposed, _head(taken, out))
    inspection = _of_columns(taken, columns, proposed, text, out)
    if text and out:
        try:
            Path(out).write_text(text)
        except OSError as error:
            raise InspectionError(f"{out} cannot be written: {error.strerror}.") from error
    return inspection


def try_mapping(source: str, path: str, model: str | None = None) -> Inspection:
    """What a load of a file, a folder or an s3:// prefix would make of it by the mapping in a YAML
    file.

    Raises SourceError if nothing can be read or the mapping does not fit, MappingError if it cannot
    be used, InspectionError if it is for rows that are no events, ValueError if there is no such
    model type.
    """
    model_type, mapping = mappings.find(path, model)
    if not {"aid", "type"} <= set(model_type.table.dtypes):
        raise InspectionError(
            f"A mapping is tried for tables of events, and {model_type.name} has none. Load a file "
            "with it: the report of `ingest` says what is rejected, and why."
        )
    taken = sample.take(source, model_type.table, mapping)
    result = outcome.of(taken, model_type.table, mapping)
    parts = [
        *report.of_source(taken),
        f"Read by the mapping {path}, for {model_type.name}.",
        *report.of_rows_before(taken, mapping),
        *report.of_rows_after(result, model_type.table),
        *report.of_outcome(result, traits.of(taken), model_type.table),
    ]
    if not result.lines:
        parts.append(f"There are no rows to try {path} on.")
    elif result.rows.is_empty():
        parts.append(f"Nothing would be loaded. Mend {path}, and look again.")
    else:
        parts.append(f'Load it with `ingest("{taken.source}", mapping="{path}")`.')
    return _finished(taken, parts, None, result, model_type)


def _head(taken: Sample, out: str | None) -> list[str]:
    """The first lines of the mapping."""
    part = "all rows" if taken.is_whole else f"{taken.lines:,} rows"
    return [
        f"Proposed by `make inspect` from {part} of {taken.source}. "
        "docs/data.md explains each word.",
        f'Load it with ingest("{taken.source}", mapping="{out or "shop.yaml"}").',
    ]


def _of_own_lines(taken: Sample, model: str | None) -> Inspection:
    """Of a source that has the table's own lines, sessions with their events."""
    model_type = spec.load(model or spec.DEFAULT)
    result = outcome.of(taken, model_type.table, None)
    twin = twin_for_text(model_type)
    if model is None and twin and result.rejected.height > ids.MIN_SHARE * result.lines:
        of_text = outcome.of(taken, twin.table, None)
        if of_text.rejected.height < result.rejected.height:
            model_type = twin
            result = of_text
    parts = [
        *report.of_source(taken),
        f"Each line is one of the table `{model_type.table.name}`, with its rows in "
        f"`{model_type.table.items}`. This is Kreislauf's own format, which needs no mapping.",
        *report.of_rows_after(result, model_type.table),
        *report.of_outcome(result, [], model_type.table),
    ]
    if result.rows.is_empty() and result.lines:
        parts.append(
            "A mapping cannot help, because it does not read inside of lists. Mend the values "
            "where the file is made, or write one event a line."
        )
    else:
        parts.append(f"Load it with {_call(taken, model_type)}.")
    return _finished(taken, parts, None, result, model_type)


def _call(taken: Sample, model_type: ModelSpec) -> str:
    """How the source is loaded without a mapping."""
    if model_type.name == spec.DEFAULT:
        return f'`ingest("{taken.source}")`'
    return f'`ingest("{taken.source}", "{model_type.name}")`, whose ids are text'


def _of_columns(
    taken: Sample,
    columns: list[Traits],
    proposed: Proposal,
    text: str | None,
    out: str | None,
) -> Inspection:
    """Of a source of which each row is an event."""
    mapping = None if proposed.is_needless else proposed.assumed
    table = proposed.model_type.table
    parts = [*report.of_source(taken), *report.of_columns(columns, taken)]
    parts += report.of_doubts(proposed)
    result = None
    if proposed.is_needless or mapping is not None:
        result = outcome.of(taken, table, mapping)
        parts += report.of_rows_before(taken, mapping)
        parts += report.of_rows_after(result, table)
        parts += report.of_outcome(result, columns, table)
    if text is None:
        parts += [
            "## No mapping is needed",
            "The source has the table's own columns. Load it with "
            f"{_call(taken, proposed.model_type)}.",
        ]
        if out:
            parts.append(f"So {out} is not written.")
    else:
        parts += ["## The mapping", f"```yaml\n{text}```", *_next_steps(taken, proposed, out)]
    return _finished(taken, parts, text, result, proposed.model_type, tuple(proposed.choices))


def _next_steps(taken: Sample, proposed: Proposal, out: str | None) -> list[str]:
    steps = []
    if out:
        steps.append(f"It is in {out}.")
    else:
        steps.append("Give OUT=shop.yaml, and it is written there.")
    if proposed.choices:
        steps.append(
            "It is refused until a value stands in the place of each CHOOSE. The comments beside "
            "them say what fits."
        )
    steps.append(f'Then load with `ingest("{taken.source}", mapping="{out or "shop.yaml"}")`.')
    return [" ".join(steps)]


def _finished(
    taken: Sample,
    parts: list[str],
    text: str | None,
    result: outcome.Outcome | None,
    model_type: ModelSpec,
    choices: tuple[str, ...] = (),
) -> Inspection:
    return Inspection(
        source=taken.source,
        model=model_type.name,
        report=report.joined(parts),
        mapping=text,
        choices=choices,
        rows=taken.lines,
        rows_loaded=result.rows.height if result else 0,
        rows_rejected=result.rejected.height if result else 0,
    )
