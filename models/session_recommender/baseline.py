"""The trivial model: the co-visitation table alone, in the same ONNX contract."""

from pathlib import Path

import numpy as np
import polars as pl

from models.session_recommender.export import export
from models.session_recommender.features import Catalogue, covisit, events
from models.session_recommender.module import Known, Scorer


def build(rows: pl.DataFrame, folder: Path) -> Path:
    """Fits the table on `rows` and writes `baseline.onnx` to `folder`. Raises ValueError if there are no rows."""
    if rows.is_empty():
        raise ValueError("No rows to fit the baseline on: widen the window.")
    e = events(rows)
    catalogue = Catalogue(np.unique(e.aid))
    return export(Scorer(Known(covisit(e, catalogue))), catalogue, folder / "baseline.onnx")
