"""What a model type must provide, and how it is found.

Importing a spec stays light: no torch, no Prefect, no MLflow. The two methods at the end of
`ModelSpec` are the heavy ones; they import what they need when they are called.
"""

import hashlib
import importlib
import inspect
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
from pydantic import BaseModel, Field

import models
from models.table import Table

Tensors = dict[str, np.ndarray]
MAX_BATCH = 64
"""Requests that a server hands to a file at a time at most; parity covers every size up to it."""


class Policy(BaseModel):
    """When a challenger may replace the champion. Part of the model type, because it depends on the
    metric."""

    min_effect: float = Field(
        0.02, gt=0, description="Smallest gain of the metric worth a release."
    )
    group_sd: float = Field(
        0.35, gt=0, description="Assumed deviation of a group's difference between two models."
    )
    power: float = Field(
        0.8, gt=0, lt=1, description="Chance to detect `min_effect` with the hold-out asked for."
    )
    confidence: float = Field(
        0.95, gt=0, lt=1, description="Of the two-sided interval that decides."
    )
    min_groups: int = Field(
        200, ge=2, description="Fewer groups in the hold-out than this refuse a decision."
    )
    baseline_margin: float = Field(
        0.005,
        ge=0,
        description="A challenger must be shown to be no worse than the trivial baseline by this much.",
    )
    least_gain: float = Field(
        0.0,
        description="The whole interval must be above this. Below 0 it promotes what is no worse by so much.",
    )
    slice_margin: float = Field(
        0.01, ge=0, description="No slice may be shown to lose more than this."
    )
    slice_groups: int = Field(
        200, ge=2, description="Slices with fewer groups than this are not looked at."
    )
    p95_ms: float = Field(
        25.0, gt=0, description="Most milliseconds that 95 % of requests with one example may take."
    )
    megabytes: float = Field(2_000.0, gt=0, description="Largest ONNX file, in 10^6 bytes.")
    coverage: float = Field(
        0.5, ge=0, le=1, description="Least share of the champion's coverage of the catalogue."
    )
    calibration: float = Field(
        0.05, gt=0, description="Most by which probabilities may be off on average."
    )
    decay: float = Field(0.01, gt=0, description="Loss against the reference that counts as decay.")


@dataclass(frozen=True)
class Search:
    """Marks a number in `Params` as one that a search varies: `lr: Annotated[float, Search(1e-4,
    1e-2, log=True)]`."""

    low: float
    high: float
    """Inclusive, as is `low`."""
    log: bool = False
    """Whether equal ratios are equally likely, rather than equal differences."""


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
        return Examples(
            {k: v[index] for k, v in self.inputs.items()}, self.labels[index], self.groups[index]
        )

    def digest(self) -> str:
        """Hex SHA-256 of everything above: two scores can be compared only if their digests are
        equal."""
        sha = hashlib.sha256()
        for name in sorted(self.inputs):
            sha.update(name.encode() + np.ascontiguousarray(self.inputs[name]).tobytes())
        sha.update(
            np.ascontiguousarray(self.labels).tobytes()
            + np.ascontiguousarray(self.groups).tobytes()
        )
        return sha.hexdigest()


class Parity(BaseModel):
    """How far the ONNX file's answers are from the module's that it was exported from."""

    inputs: int = Field(description="Real inputs compared.")
    largest_batch: int = Field(0, description="Batches of every size up to this one were asked.")
    min_overlap: float = Field(
        description="Worst share of equal answers in one example; ties may swap."
    )
    max_difference: float = Field(
        description="Largest difference of two scores at the same position, relative above 1."
    )
    passed: bool


def ignore_progress(share: float, metrics: dict[str, float]) -> None:
    """Takes a report on a training and does nothing with it."""


@dataclass(frozen=True)
class TrainingContext:
    """Where and how one training runs."""

    folder: Path
    """For its files. What a killed training of the same rows, parameters and parent left there is
    continued."""
    parent: Path | None = None
    """`weights` of an earlier version to start from."""
    trainer: dict[str, Any] = field(default_factory=dict)
    """Arguments of lightning.Trainer that say where it runs: accelerator, devices, num_nodes,
    strategy, precision."""
    report: Callable[[float, dict[str, float]], None] = ignore_progress
    """Told the share of the training that is done, 0 to 1, and the newest validation metrics, which
    may be none yet. By the one called `ModelSpec.metric` a search gives up on a training. What it
    raises ends the training."""


@dataclass(frozen=True)
class TrainingResult:
    """What `ModelSpec.train` leaves in its work folder."""

    onnx: Path
    """The contract: one self-contained file, raw inputs to final answers."""
    weights: Path
    """safetensors file from which the next training starts warm."""
    parity: Parity
    validation: float
    """The metric on the newest part of the rows, which training did not learn from: what a search
    maximises."""
    metrics: dict[str, float]
    curves: list[tuple[str, int, float]] = field(default_factory=list)
    """(name, step, value) in the order they were measured."""


class ModelSpec(ABC):
    """A model type. Subclass it in `models/<name>/__init__.py` and bind an instance to `SPEC`
    there."""

    name: ClassVar[str]
    """Name of the folder, the registered model and the Triton model."""
    table: ClassVar[Table]
    Params: ClassVar[type[BaseModel]]
    """Training parameters, each with a default; `Params.tiny()` trains in seconds for tests."""
    policy: ClassVar[Policy] = Policy()
    metric: ClassVar[str]
    """Name of what `score` returns, such as `recall@20`."""
    mix: ClassVar[tuple[str, ...]] = ()
    """Columns of `slices` that say what was asked, and nothing about the right answer."""
    fallback: ClassVar[dict]
    """Request whose answer is good for everyone: what is given when the model cannot be asked."""

    @abstractmethod
    def examples(self, rows: pl.DataFrame) -> Examples:
        """All requests, with their right answers, that rows of the table hold; sorted by group,
        then time."""

    @abstractmethod
    def score(self, examples: Examples, outputs: Tensors) -> np.ndarray:
        """Metric of each example, float64 of shape (n,), higher is better. `outputs` is what the
        ONNX file answered."""

    def training_profile(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """All that `slices`, `coverage` and `monitored` have to know of the rows that a version
        learnt from. It is kept beside the version, so it must not grow with the rows. By default
        nothing."""
        return pl.LazyFrame()

    def slices(self, rows: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
        """What kind each of `examples(rows)` is, a row for each in the same order: no column may
        hide a collapse.

        `known` is what the method of that name says of the rows that the version learnt from. By
        default nothing is told apart.
        """
        return pl.DataFrame()

    def coverage(self, outputs: Tensors, known: pl.DataFrame) -> float | None:
        """Share of all answers there could be that somebody got, 0 to 1; None where that means
        nothing."""
        return None

    def probabilities(self, outputs: Tensors) -> np.ndarray | None:
        """How sure each answer is to be right, float64 (n,), 0 to 1; None where scores are no
        probabilities."""
        return None

    @abstractmethod
    def tensors(self, requests: list[dict]) -> Tensors:
        """Request JSON to ONNX inputs. Raises ValueError that names the request and the field that
        is wrong."""

    @abstractmethod
    def answers(self, outputs: Tensors) -> list[dict]:
        """ONNX outputs to one answer JSON per request."""

    @abstractmethod
    def items(self, answer: dict) -> list:
        """What an answer shows, best first, as JSON values: counted, compared and kept with the
        exposure."""

    @abstractmethod
    def golden(self) -> list[dict]:
        """Requests, edge cases among them, that every version must be able to answer."""

    @abstractmethod
    def monitored(self, rows: pl.LazyFrame, known: pl.DataFrame) -> pl.LazyFrame:
        """Numbers and Booleans whose means are watched for drift, a row for each of `rows`, without
        looking at any other row: a window of any size streams through. `known` is as in
        `slices`."""

    @abstractmethod
    def train(self, rows: pl.DataFrame, params: Any, work: TrainingContext) -> TrainingResult:
        """Heavy. Fit on `rows`, from `work.parent` if there is one, export, measure parity."""

    @abstractmethod
    def baseline(self, rows: pl.DataFrame, folder: Path) -> Path:
        """Heavy. The trivial model for the same request and answer, as an ONNX file: the guard of
        the gate."""


def code_digest(model_type: ModelSpec) -> str:
    """Digest of the model type's own code: changed code is another training, a changed README is
    not."""
    files = [*sorted(Path(inspect.getfile(type(model_type))).parent.glob("*.py")), Path(__file__)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


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
