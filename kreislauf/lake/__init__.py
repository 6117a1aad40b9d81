"""Delta tables in which every raw line ends as rows, a reject, a duplicate, or a blank."""

from kreislauf.lake.accounts import Accounts, Counts, Reason, total
from kreislauf.lake.intake import MIN_REJECTS, TooManyRejects
from kreislauf.lake.landing import Origin, Overtaken, Progress
from kreislauf.lake.loading import history, load, load_file, progress, rejected_shares, replay
from kreislauf.lake.quarantine import rejects
from kreislauf.lake.reading import digest, heights, read, reading, rebuild, scan, version
from kreislauf.lake.staging import date_of
from kreislauf.lake.storage import LakeError, LakeUnreachable
from kreislauf.lake.watermarks import Watermark, watermark

__all__ = [
    "MIN_REJECTS",
    "Accounts",
    "Counts",
    "LakeError",
    "LakeUnreachable",
    "Origin",
    "Overtaken",
    "Progress",
    "Reason",
    "TooManyRejects",
    "Watermark",
    "date_of",
    "digest",
    "heights",
    "history",
    "load",
    "load_file",
    "progress",
    "read",
    "reading",
    "rebuild",
    "rejected_shares",
    "rejects",
    "replay",
    "scan",
    "total",
    "version",
    "watermark",
]
