"""Where a version comes from."""

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Lineage(BaseModel):
    """Where a version comes from: everything needed to train it again."""

    model_config = ConfigDict(frozen=True)

    key: str = Field(description="Digest of all inputs of the training: same key, same version.")
    table: str
    table_version: int
    start: int = Field(description="Oldest event learnt from, ms since 1970 UTC.")
    holdout: int = Field(description="Training ends before this, ms since 1970 UTC.")
    watermark: int = Field(description="End of the hold-out, ms since 1970 UTC.")
    groups: int = Field(
        0, description="Groups of the hold-out with a right answer; 0 if it was not counted."
    )
    digest: str = Field(
        description="SHA-256 of the rows up to the watermark, those of the hold-out too."
    )
    parent: int | None = Field(
        None, description="Version whose weights it started from; None after a cold start."
    )
    without: list[tuple[int, int]] = Field(
        [], description="Stretches of time that were distrusted and left out."
    )
    ahead: int = Field(
        0, description="Rows after the end of the data, which too few groups agreed with."
    )
    clicked: float = Field(
        0.0,
        description="Share of the newest right answers learnt from that were taken from an answer "
        "which was shown.",
    )

    @property
    def clicks(self) -> str:
        """What is known of clicks on answers, as a sentence; empty if there are none."""
        if not self.clicked:
            return ""
        return (
            f"{self.clicked:.1%} of the newest right answers learnt from were taken from an answer "
            "that was shown, so the models before may have caused them."
        )

    @property
    def snapshot(self) -> tuple[int, int, str, list[tuple[int, int]]]:
        """Version of the table, watermark, digest and exclusions: the rows, as `lake.rebuild` wants
        to know them."""
        return self.table_version, self.watermark, self.digest, self.without


def digest_inputs(*inputs: Any) -> str:
    """Hex SHA-256 of JSON values: the key of what is made from exactly these."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
