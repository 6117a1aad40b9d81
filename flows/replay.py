"""Replay: quarantined lines, validated again by today's rules."""

from prefect import flow

from kreislauf import lake
from kreislauf.lake import quarantine
from models import mapping as mappings
from tasks.lake import replay_source, show_replays


class ReplayReport(lake.Counts):
    """What a replay did.

    `rejected` lines are still in quarantine, now with the rule that they break today.
    """

    table: str
    sources: tuple[lake.Accounts, ...]


@flow
def replay(
    model: str | None = None, reason: str | None = None, mapping: str | None = None
) -> ReplayReport:
    """Validate quarantined lines again, after a rule of the model type or a mapping was mended.

    Running it again is safe. A line that passes leaves the quarantine and becomes rows, by the same
    commit rules as a load: duplicates are looked for, and the accounts balance. A line that does
    not pass stays, byte for byte.

    Args:
        model: Model type, a folder in `models/`, whose quarantine is read. By default the
            mapping's, or `session_recommender`.
        reason: Only sources with rejects of this reason code, such as `unknown-value`; default:
            all.
        mapping: Path of the YAML file by which the lines are read now; default: their own columns
            are the table's.

    Returns:
        The accounts of every source, and their totals.

    Raises:
        ValueError: No model type has this name, or the mapping does not fit.
        lake.Overtaken: Another replay ran at the same time.
    """
    model_type, reading = mappings.find(mapping, model)
    table = model_type.table
    quarantined = quarantine.sources(table)
    if reason is not None:
        quarantined = quarantined.filter(quarantined["reason"] == reason)
    files = quarantined.select("source", "sha256").unique(maintain_order=True).rows()
    replays = [replay_source(model_type.name, source, sha256, reading) for source, sha256 in files]
    show_replays(table.name, replays)
    return ReplayReport(
        table=table.name, sources=tuple(replays), **lake.total(replays).model_dump()
    )
