"""What a file's name says of its content."""

TEXT = (".jsonl", ".ndjson", ".json", ".csv")
PACKED = ("", ".gz", ".zst")
ENDINGS = (*(text + packed for text in TEXT for packed in PACKED), ".parquet")
"""Endings of raw files, in small or capital letters. Those of JSON have an object on each line."""
ANY_ENDING = ".jsonl, .ndjson, .json or .csv, also with .gz or .zst behind it, or .parquet"


def is_raw(path: str) -> bool:
    """Whether a name is that of a raw file."""
    return path.lower().endswith(ENDINGS)


def is_csv(path: str) -> bool:
    """Whether a file is CSV, packed or not."""
    return path.lower().removesuffix(".gz").removesuffix(".zst").endswith(".csv")


def is_parquet(path: str) -> bool:
    """Whether a file is Parquet."""
    return path.lower().endswith(".parquet")
