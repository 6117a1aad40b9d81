"""What a shop has: raw files on disk or S3, and Kafka topics, as unvalidated lines."""

from kreislauf.sources.endings import ANY_ENDING, ENDINGS
from kreislauf.sources.files import RawFile, find, open_file
from kreislauf.sources.storage import SourceError, SourceUnreachable

__all__ = [
    "ANY_ENDING",
    "ENDINGS",
    "RawFile",
    "SourceError",
    "SourceUnreachable",
    "find",
    "open_file",
]
