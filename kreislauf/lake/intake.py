"""Lines of one load: validated rows and rejects on disk, and where every line went."""

from collections import Counter
from pathlib import Path

import polars as pl

from kreislauf.lake import accounts
from kreislauf.lake.accounts import Counts
from kreislauf.lake.staging import Stage
from kreislauf.lake.storage import LakeError
from kreislauf.lake.validate import ValidatedLines
from models.table import Table

MIN_REJECTS = 20
"""Minimum number of rejected lines that can stop a load, whatever their share."""
MAX_RULES = 1_000
"""Most rules that a load counts one by one: they may quote a million names from outside."""
GENERAL_RULE = (
    pl.col("rule")
    .str.replace_all(r"\[\d+\]", "[...]")
    .str.replace_all(r" \(byte \d+\)", "")
    .str.replace_all(r"(?s), got '.*'$", "")
)
"""The rule that a line broke, with positions in the line and its value left out."""


KINDS = {
    "UTF-16 text: convert it to UTF-8": (b"\xff\xfe", b"\xfe\xff", b"{\0", b"\0{"),
    "a gzip file: its name has to end in .gz": (b"\x1f\x8b",),
    "a zstd file: its name has to end in .zst": (b"\x28\xb5\x2f\xfd",),
    "a zip archive: unpack it": (b"PK",),
    "a Parquet file: its name has to end in .parquet": (b"PAR1",),
    "a web page or XML: perhaps an error message was stored instead of data": (b"<",),
    "a JSON array: write each of its objects on a line of its own": (b"[",),
    "rows with other fields or values: mend them, or the mapping": (b"{",),
}
"""What a source may be that is not what the rules want, by how its first line starts."""
OTHER_KIND = "CSV, whose name has to end in .csv, or another text"


def kind(line: bytes) -> str:
    """What a source looks like whose first line this is, and its cure."""
    for words, starts in KINDS.items():
        if line.startswith(starts):
            return words
    return OTHER_KIND


class TooManyRejects(LakeError):
    """The source is broken: nothing of it was loaded."""

    def __init__(self, message: str, counts: Counts) -> None:
        super().__init__(message)
        self.counts = counts


class Intake:
    """Validated lines of one load, in a folder on disk."""

    def __init__(self, table: Table, folder: Path) -> None:
        self.stage = Stage(table, folder)
        self.rejects = folder / "rejects"
        """Folder of Arrow files with the rejected lines."""
        self.rejects.mkdir()
        self.lines: Counter[str] = Counter()
        """Number of lines: in, blank, left out, rejected."""
        self.rows: Counter[str] = Counter()
        """Number of rows: in, rejected."""
        self.reasons: Counter[tuple[str, str]] = Counter()
        """Number of lines by reason code and general rule; rare rules are counted as OTHER."""

    def add(self, lines: ValidatedLines) -> None:
        """Spool a batch, and count its lines and rows."""
        self.stage.add(lines.rows)
        rejected = lines.rejected
        if not rejected.is_empty():
            path = self.rejects / f"{self.lines['in']:012}.arrow"
            rejected.write_ipc(path, compression="uncompressed")
        self.lines.update(
            {
                "in": lines.lines_in,
                "blank": lines.lines_blank,
                "left out": lines.lines_left_out,
                "rejected": rejected.height,
            }
        )
        self.rows.update({"in": lines.rows_in, "rejected": int(rejected["rows"].sum())})
        self._count_reasons(rejected)

    def _count_reasons(self, rejected: pl.DataFrame) -> None:
        """Count a batch's rejected lines, which `self.lines` has already, by reason."""
        by_reason = rejected.group_by("reason", GENERAL_RULE).len()
        for reason, rule, count in by_reason.top_k(MAX_RULES, by="len").rows():
            self.reasons[reason, rule] += count
        self.reasons[accounts.OTHER] = 0
        self.reasons = Counter(dict(self.reasons.most_common(MAX_RULES)))
        self.reasons[accounts.OTHER] = self.lines["rejected"] - self.reasons.total()

    def counts(self, kept: int) -> dict:
        """Fields of Counts, when `kept` of the rows are no duplicates."""
        lines = self.lines
        rows = self.rows
        unloaded = lines["blank"] + lines["left out"] + lines["rejected"]
        return {
            "lines_in": lines["in"],
            "lines_loaded": lines["in"] - unloaded,
            "lines_left_out": lines["left out"],
            "lines_rejected": lines["rejected"],
            "lines_blank": lines["blank"],
            "rows_in": rows["in"],
            "rows_kept": kept,
            "rows_rejected": rows["rejected"],
            "rows_duplicate": rows["in"] - rows["rejected"] - kept,
            "reasons": accounts.most_frequent(self.reasons),
        }

    def check(self, max_reject_share: float, whole: bool) -> None:
        """Raises TooManyRejects if a larger share of the lines is rejected.

        Fewer than `MIN_REJECTS` never do, unless they are all lines of a `whole` source.
        """
        rejected = self.lines["rejected"]
        share = rejected / max(self.lines["in"], 1)
        wanted = self.lines["in"] - self.lines["blank"] - self.lines["left out"]
        unreadable = rejected > 0 and rejected == wanted
        if share <= max_reject_share or (rejected < MIN_REJECTS and not (whole and unreadable)):
            return
        cure = "Mend the source or the rules, or raise max_reject_share."
        if unreadable:
            first = pl.read_ipc(min(self.rejects.iterdir()))["raw"][0]
            cure = f"Not a single line is what the rules want: it looks like {kind(first)}."
        counts = Counts(**self.counts(self.rows["in"] - self.rows["rejected"]))
        reasons = "; ".join(f"{r.lines} lines: {r.reason}, {r.rule}" for r in counts.reasons[:3])
        raise TooManyRejects(
            f"{rejected} of {self.lines['in']} lines ({share:.1%}) would be rejected, "
            f"more than the limit of {max_reject_share:.1%} ({reasons}). "
            f"Nothing was loaded. {cure}",
            counts,
        )
