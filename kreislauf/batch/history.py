"""Batches that are in the table `answers`, the newest first."""

from dataclasses import dataclass

from kreislauf.batch import answers
from kreislauf.batch.answers import ANSWERS, BATCH
from kreislauf.batch.batch import Batch
from kreislauf.lake import delta

COMMITS_AT_ONCE = 100
"""Commits whose metadata are read together."""
MAX_COMMITS = 1_000
"""Newest commits in which batches are looked for."""


@dataclass(frozen=True)
class AnsweredBatch:
    """A batch whose answers are visible."""

    batch: Batch
    answered: int
    refused: int
    """Requests that could not be asked."""


def newest(model: str, most: int) -> list[AnsweredBatch]:
    """The batches of a model type that were answered last, at most `most`, the newest first."""
    batches = _newest(model, most)
    return [AnsweredBatch(batch, **answers.counts(batch)) for batch in batches]


def _newest(model: str, most: int) -> list[Batch]:
    """The same, as the commits call them. Those that others have replaced are left out."""
    stored = delta.find(ANSWERS)
    if stored is None:
        return []
    present = delta.files(stored)
    if present.is_empty():
        return []
    names = present[f"partition.{BATCH}"]
    lacking = {name for name in names if name.startswith(f"{model}-")}
    batches: list[Batch] = []
    last = stored.version()
    for end in range(last, max(last - MAX_COMMITS, -1), -COMMITS_AT_ONCE):
        if not lacking or len(batches) >= most:
            break
        versions = range(max(end - COMMITS_AT_ONCE + 1, 0), end + 1)
        for commit in reversed(delta.commits_metadata(ANSWERS, versions)):
            if "batch" not in commit:
                continue  # It made the table, or merged files.
            batch = Batch.model_validate_json(commit["batch"])
            if batch.name in lacking:
                lacking.remove(batch.name)
                batches.append(batch)
    return batches[:most]
