"""What a model type must provide, and how it is found.

Importing a spec stays light: no torch, no Prefect, no MLflow. The two methods at the end of `ModelSpec` are the heavy
ones; they import what they need when they are called.
"""

import hashlib
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import pandera.polars as pa
import polars as pl
from pydantic import BaseModel, Field

import models

Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class Table:
    """The Delta table that a model type learns from, and how a raw line becomes its rows."""

    name: str
    line: type[msgspec.Struct]
    """Shape of one raw JSON line; what does not decode into it is quarantined."""
    unfold: Callable[[Sequence[Any]], pl.DataFrame]
    """Decoded lines to rows; column `line` (Int64) holds each row's position in the sequence it was given."""
    schema: type[pa.DataFrameModel]
    """Pandera rules of the rows, without `line`."""
    key: tuple[str, ...]
    """Columns that identify a row: a second row with the same values is a duplicate."""
    time: str
    """Column with the event time, Int64 milliseconds since 1970 UTC."""
    group: str
    """Column whose values are the independent units: sessions are split, and resampled, whole."""


class Policy(BaseModel):
    """When a challenger may replace the champion. Part of the model type, because it depends on the metric."""

    min_effect: float = Field(0.02, gt=0, description="Smallest gain of the metric worth a release.")
    group_sd: float = Field(0.35, gt=0, description="Assumed deviation of a group's difference between two models.")
    power: float = Field(0.8, gt=0, lt=1, description="Chance to detect `min_effect` with the hold-out asked for.")
    confidence: float = Field(0.95, gt=0, lt=1, description="Of the two-sided interval that decides.")
    min_groups: int = Field(200, ge=2, description="Fewer groups in the hold-out than this refuse a decision.")
    baseline_margin: float = Field(
        0.005, ge=0, description="A challenger must be shown to be no worse than the trivial baseline by this much."
    )
    decay: float = Field(0.01, gt=0, description="Loss against the reference that counts as decay.")


@dataclass(frozen=True)
class Examples:
    """`n` requests whose right answer is known, as tensors."""

    inputs: Tensors
    """ONNX input name to an array with `n` rows."""
    labels: np.ndarray
    """The right answers, `n` rows."""
    groups: np.ndarray
    """`n` integers: examples of one group are dependent and are resampled together."""

    def __len__(self) -> int:
        return len(self.groups)

    def take(self, index: np.ndarray) -> "Examples":
        """The examples at `index` (positions or a boolean mask)."""
        return Examples({k: v[index] for k, v in self.inputs.items()}, self.labels[index], self.groups[index])

    def digest(self) -> str:
        """Hex SHA-256 of everything above: two scores can be compared only if their digests are equal."""
        sha = hashlib.sha256()
        for name in sorted(self.inputs):
            sha.update(name.encode() + np.ascontiguousarray(self.inputs[name]).tobytes())
        sha.update(np.ascontiguousarray(self.labels).tobytes() + np.ascontiguousarray(self.groups).tobytes())
        return sha.hexdigest()


class Parity(BaseModel):
    """How far the ONNX file's answers are from the module's that it was exported from."""

    inputs: int = Field(description="Real inputs compared.")
    min_overlap: float = Field(description="Worst share of equal answers in one example; ties may swap.")
    max_difference: float = Field(
        description="Largest difference of two scores at the same position, relative above 1."
    )
    passed: bool


@dataclass(frozen=True)
class Trained:
    """What `ModelSpec.train` leaves in its work folder."""

    onnx: Path
    """The contract: one self-contained file, raw inputs to final answers."""
    weights: Path
    """safetensors file from which the next training starts warm."""
    parity: Parity
    metrics: dict[str, float]
    curves: list[tuple[str, int, float]] = field(default_factory=list)
    """(name, step, value) in the order they were measured."""


class ModelSpec(ABC):
    """A model type. Subclass it in `models/<name>/__init__.py` and bind an instance to `SPEC` there."""

    name: ClassVar[str]
    """Name of the folder, the registered model and the Triton model."""
    table: ClassVar[Table]
    Params: ClassVar[type[BaseModel]]
    """Training parameters, each with a default; `Params.tiny()` trains in seconds for tests."""
    policy: ClassVar[Policy] = Policy()
    metric: ClassVar[str]
    """Name of what `score` returns, such as `recall@20`."""

    @abstractmethod
    def examples(self, rows: pl.DataFrame) -> Examples:
        """All requests, with their right answers, that rows of the table hold; sorted by group, then time."""

    @abstractmethod
    def score(self, examples: Examples, outputs: Tensors) -> np.ndarray:
        """Metric of each example, float64 of shape (n,), higher is better. `outputs` is what the ONNX file answered."""

    @abstractmethod
    def tensors(self, requests: list[dict]) -> Tensors:
        """Request JSON to ONNX inputs. Raises ValueError that names the request and the field that is wrong."""

    @abstractmethod
    def answers(self, outputs: Tensors) -> list[dict]:
        """ONNX outputs to one answer JSON per request."""

    @abstractmethod
    def golden(self) -> list[dict]:
        """Requests, edge cases among them, that every version must be able to answer."""

    @abstractmethod
    def monitored(self, rows: pl.DataFrame, trained_on: pl.DataFrame) -> pl.DataFrame:
        """Columns to watch for drift, one row per group; `trained_on` are the rows that the champion learnt from."""

    @abstractmethod
    def train(self, rows: pl.DataFrame, params: Any, folder: Path, parent: Path | None) -> Trained:
        """Heavy. Fit on `rows`, export, measure parity; `parent` is an earlier version's `weights` to start from."""

    @abstractmethod
    def baseline(self, rows: pl.DataFrame, folder: Path) -> Path:
        """Heavy. The trivial model for the same request and answer, as an ONNX file: the guard of the gate."""


def names() -> list[str]:
    """Names of all model types: the folders in every `models` folder on the path."""
    return sorted(module.name for module in pkgutil.iter_modules(models.__path__) if module.ispkg)


def load(name: str) -> ModelSpec:
    """The model type called `name`. Raises ValueError that lists the known ones."""
    if name not in names():
        raise ValueError(
            f"No model type is called {name!r}. Known: {', '.join(names())}. One is one folder in models/."
        )
    return importlib.import_module(f"models.{name}").SPEC
