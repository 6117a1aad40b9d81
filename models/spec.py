"""What a model type must provide, and how its folder is loaded.

Importing a spec stays light: no torch, no Prefect, no MLflow. The two methods at the end of
`ModelSpec` are heavy; they import what they need when they are called.
"""

import hashlib
import importlib
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
from models import params, text
from models.messages import AnyObject
from models.policy import Policy
from models.table import Table

Tensors = dict[str, np.ndarray]
"""Arrays by name. `models/text.py` says which of them are text."""
DEFAULT = "session_recommender"
"""Name of the model type where none is named."""
OPSET = 20
"""Version of ONNX's operators in all files; StringSplit and RegexFullMatch came with it."""
MAX_BATCH = 64
"""Maximum requests that a server hands to a file at a time; parity covers every size up to it."""


@dataclass(frozen=True)
class Examples:
    """`n` requests and their right answers, as tensors."""

    inputs: Tensors
    """ONNX input name to an array with `n` rows."""
    labels: np.ndarray
    """The right answers, `n` rows."""
    groups: np.ndarray
    """`n` integers or texts: examples of one group are dependent and are resampled together."""

    def __len__(self) -> int:
        return len(self.groups)

    def take(self, index: np.ndarray) -> "Examples":
        """The examples at `index` (positions or a boolean mask)."""
        inputs = {name: values[index] for name, values in self.inputs.items()}
        return Examples(inputs, self.labels[index], self.groups[index])

    def digest(self) -> str:
        """Hex SHA-256 of the examples: only scores of equal digests can be compared."""
        sha = hashlib.sha256()
        for name in sorted(self.inputs):
            sha.update(name.encode() + text.to_bytes(self.inputs[name]))
        sha.update(text.to_bytes(self.labels) + text.to_bytes(self.groups))
        return sha.hexdigest()


class Parity(BaseModel):
    """Difference of the ONNX file's answers from those of the module that was exported."""

    inputs: int = Field(description="Real inputs compared.")
    largest_batch: int = Field(0, description="Largest batch; all smaller sizes were asked, too.")
    min_overlap: float = Field(
        description="Minimum share of equal answers in one example; ties may swap."
    )
    max_difference: float = Field(
        description="Maximum difference of two scores at the same position, relative above 1."
    )
    passed: bool


def ignore(*_: Any) -> None:
    """Take what a training calls back with, and do nothing."""


@dataclass(frozen=True)
class TrainingContext:
    """Place of one training: files, parent, hardware and progress."""

    folder: Path
    """Folder of its files; a killed training of the same inputs is continued from them."""
    parent: Path | None = None
    """`weights` of an earlier version to start from."""
    new_groups: pl.Series | None = None
    """Groups with rows that the parent has not learnt from, if that is known."""
    trainer: dict[str, Any] = field(default_factory=dict)
    """Arguments of lightning.Trainer, such as accelerator, devices, strategy and precision."""
    report: Callable[[float, dict[str, float]], None] = ignore
    """Callback with the share that is done, 0 to 1, and the newest validation metrics, if any.

    A search prunes by the metric `validation`. What the callback raises ends the training.
    """
    before_write: Callable[[], None] = ignore
    """Callback before each write into `folder`; it raises if another process writes there now."""


@dataclass(frozen=True)
class TrainingResult:
    """Files and measurements that `ModelSpec.train` leaves in its work folder."""

    onnx: Path
    """The contract: one self-contained file, raw inputs to final answers."""
    weights: Path
    """safetensors file from which the next training starts warm."""
    parity: Parity
    validation: float
    """Metric on the newest rows, held out from training; a search maximises it."""
    metrics: dict[str, float]
    curves: list[tuple[str, int, float]] = field(default_factory=list)
    """(name, step, value) in the order they were measured."""
    is_warm: bool = False
    """Whether it started from the parent's weights."""


class ModelSpec(ABC):
    """A model type. `models/<name>/__init__.py` binds an instance of a subclass to `SPEC`."""

    name: ClassVar[str]
    """Name of the folder, the registered model and the Triton model."""
    table: ClassVar[Table]
    Params: ClassVar[type[params.Params]] = params.Params
    """Training parameters, by default none. `Params.small()` trains in less than a minute where
    there is little to learn from, `Params.tiny()` in seconds, for tests."""
    Request: ClassVar[type[BaseModel]] = AnyObject
    """What `tensors` takes and checks, as the API describes it; `Answer`: what `answers` gives."""
    Answer: ClassVar[type[BaseModel]] = AnyObject
    is_served: ClassVar[bool] = True
    """Whether Triton and the gateway serve it. A model type that is only asked in batches goes live
    without them."""
    policy: ClassVar[Policy] = Policy()
    metric: ClassVar[str]
    """Name of what `score` returns, such as `recall@20`."""
    mix: ClassVar[tuple[str, ...]] = ()
    """Columns of `slices` that describe the request, and not the right answer."""
    kinds: ClassVar[dict[str, str]] = {}
    """Kind of feedback that each event type of the table is."""
    fallback: ClassVar[dict]
    """Request whose answer everyone gets while the model cannot be asked."""

    @abstractmethod
    def examples(self, rows: pl.DataFrame) -> Examples:
        """All requests in the rows, with their right answers, sorted by group, then time."""

    def requests(self, rows: pl.DataFrame) -> tuple[np.ndarray, Tensors]:
        """What is asked in a batch: the name of each request, text or numbers (n,), and ONNX inputs
        with `n` rows, whether or not the right answers are known. By default those of `examples`,
        by their groups."""
        examples = self.examples(rows)
        return examples.groups, examples.inputs

    @abstractmethod
    def score(self, examples: Examples, outputs: Tensors) -> np.ndarray:
        """Metric of each example, float64 (n,), higher is better; `outputs` are the ONNX file's."""

    def training_profile(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """All that `slices`, `coverage` and `monitored` need of the rows of a training.

        It is kept beside the version, so it must not grow with the rows. By default it is empty.
        """
        return pl.LazyFrame()

    def slices(self, rows: pl.DataFrame, profile: pl.DataFrame) -> pl.DataFrame:
        """Slices of `examples(rows)`, a row for each in the same order; by default none.

        `profile` is the version's `training_profile`. The gate and the monitor look into each value
        of each column, so that no average hides a collapse.
        """
        return pl.DataFrame()

    def coverage(self, outputs: Tensors, profile: pl.DataFrame) -> float | None:
        """Share of all possible answers that somebody got, 0 to 1; None where that is undefined."""
        return None

    def probabilities(self, outputs: Tensors) -> np.ndarray | None:
        """Probability of each answer to be right, float64 (n,); None where scores are none."""
        return None

    @abstractmethod
    def tensors(self, requests: list[dict]) -> Tensors:
        """Request JSON to ONNX inputs.

        Raises ValueError that names the request and the field that is wrong.
        """

    @abstractmethod
    def answers(self, outputs: Tensors) -> list[dict]:
        """ONNX outputs to one answer JSON per request."""

    @abstractmethod
    def items(self, answer: dict) -> list:
        """What an answer shows, best first, as JSON values; it is kept with the exposure."""

    def item(self, value: Any) -> Any:
        """The item of a feedback as `items` has it, whatever JSON it was sent as."""
        return value

    def answer_form(self, request: dict) -> Callable[[dict], dict]:
        """How an answer is written for this request, such as with ids as text; by default as it
        is."""
        return lambda answer: answer

    @abstractmethod
    def golden(self) -> list[dict]:
        """Requests, edge cases among them, that every version must be able to answer."""

    @abstractmethod
    def monitored(self, rows: pl.LazyFrame, profile: pl.DataFrame) -> pl.LazyFrame:
        """Numbers and Booleans whose means are watched for drift, a row for each of `rows`.

        A row depends on no other, so that a window of any size streams through. `profile` is as in
        `slices`.
        """

    @abstractmethod
    def train(self, rows: pl.DataFrame, params: Any, work: TrainingContext) -> TrainingResult:
        """Fit on `rows`, from `work.parent` if there is one; export; measure parity. Heavy."""

    @abstractmethod
    def baseline(self, rows: pl.DataFrame, folder: Path) -> Path:
        """Fit the trivial model for the same requests and answers, as an ONNX file. Heavy.

        The gate promotes nothing that is worse than it.
        """


def names() -> list[str]:
    """Names of all model types: the folders in every `models` folder on the path."""
    return sorted(module.name for module in pkgutil.iter_modules(models.__path__) if module.ispkg)


def load(name: str) -> ModelSpec:
    """The model type called `name`. Raises ValueError that lists all model types."""
    if name not in names():
        raise ValueError(
            f"No model type is called {name!r}. Known: {', '.join(names())}. "
            "One is one folder in models/."
        )
    return importlib.import_module(f"models.{name}").SPEC
