"""Inspect: what a source has, and the mapping that is proposed for it; nothing is loaded."""

from prefect import flow

from kreislauf.inspection.look import Inspection, InspectionError
from tasks.inspect import look_at, show_inspection, try_on


@flow
def inspect(
    source: str, model: str | None = None, out: str | None = None, mapping: str | None = None
) -> Inspection:
    """Look at raw files before they are loaded, and propose a mapping, or try one.

    Args:
        source: A file of JSON lines, CSV or Parquet, a folder that is searched with all below it,
            or an `s3://` prefix.
        model: Model type, a folder in `models/`; it decides the table. By default it is
            `session_recommender`, or `session_recommender_text` if the ids are text.
        out: Path of the YAML file for the proposed mapping, which must not exist yet; by default
            it is only shown.
        mapping: Path of a YAML file with a mapping. Then none is proposed: the report shows what
            this one makes of the files.

    Returns:
        The report, the mapping, and the columns of which something is to be chosen in it.

    Raises:
        ValueError: No model type has this name, or no mapping is proposed for its table.
        SourceError: There are no raw files in `source`, or nothing of them can be read.
        MappingError: `mapping` cannot be used.
        InspectionError: `out` exists already, or cannot be written, or `mapping` is named, too.
    """
    if mapping and out:
        raise InspectionError(
            "`out` is for a proposal, and with `mapping` nothing is proposed: name one of them."
        )
    inspection = try_on(source, mapping, model) if mapping else look_at(source, model, out)
    show_inspection(inspection)
    return inspection
