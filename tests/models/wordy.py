"""A model type with text inside and out, which the tests copy to a temporary
`models/wordy/__init__.py`.

Which department answers a message? The one that answered the same words most often, and a person
for words that nobody has written yet. The message itself is an output, too.
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np
import pandera.polars as pa
import polars as pl
from pydantic import BaseModel, Field

from models.spec import (
    MAX_BATCH,
    Examples,
    ModelSpec,
    Parity,
    Policy,
    Tensors,
    TrainingContext,
    TrainingResult,
)
from models.table import Table

Natural = Annotated[int, msgspec.Meta(ge=0)]
ODD = [
    "",
    "Größe 38 paßt nicht",
    "日本語 عربي",
    "👩‍👩‍👧 😀",
    "a\tb\nc",
    "\0in\0between",
    "ö" * 20_000,
]
"""Messages that a careless path of bytes would change."""


class RawMessage(msgspec.Struct, forbid_unknown_fields=True):
    number: Natural
    ts: Natural
    message: str
    department: str


class Message(pa.DataFrameModel):
    number: pl.Int64 = pa.Field(ge=0)
    ts: pl.Int64 = pa.Field(ge=0)
    message: pl.String
    department: pl.String


class Params(BaseModel, extra="forbid"):
    least: int = Field(1, ge=1, description="Answers that a message needs to be learnt.")

    @classmethod
    def small(cls) -> "Params":
        return cls()

    @classmethod
    def tiny(cls) -> "Params":
        return cls()


class Wordy(ModelSpec):
    name = "wordy"
    table = Table("messages", RawMessage, Message, key=("number",), time="ts", group="number")
    Params = Params
    policy = Policy(min_groups=50, group_sd=0.3, min_effect=0.05)
    metric = "accuracy"
    fallback: ClassVar[dict] = {"message": ""}

    def examples(self, rows: pl.DataFrame) -> Examples:
        rows = rows.sort("number")
        # As objects, while `tensors` makes text of a fixed width: both kinds must do.
        message = rows["message"].to_numpy()[:, None]
        return Examples(
            {"message": message}, rows["department"].to_numpy(), rows["number"].to_numpy()
        )

    def score(self, examples: Examples, outputs: Tensors) -> np.ndarray:
        return (outputs["department"][:, 0] == examples.labels).astype(float)

    def tensors(self, requests: list[dict]) -> Tensors:
        for i, request in enumerate(requests):
            if not isinstance(request.get("message"), str):
                raise ValueError(f'Request {i}: "message" must be text.')
        return {"message": np.array([[request["message"]] for request in requests])}

    def answers(self, outputs: Tensors) -> list[dict]:
        pairs = zip(outputs["department"][:, 0], outputs["echo"][:, 0], strict=True)
        return [{"department": department, "echo": echo} for department, echo in pairs]

    def items(self, answer: dict) -> list:
        return [answer["department"]]

    def golden(self) -> list[dict]:
        return [{"message": message} for message in ("", "Größe 😀", "nobody wrote this")]

    def training_profile(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        return rows.select(pl.col("message").str.len_chars().max())

    def monitored(self, rows: pl.LazyFrame, profile: pl.DataFrame) -> pl.LazyFrame:
        length = pl.col("message").str.len_chars()
        return rows.select(length=length, longer=length > profile["message"].item())

    def train(self, rows: pl.DataFrame, params: Any, work: TrainingContext) -> TrainingResult:
        from safetensors.numpy import save_file

        counts = rows.group_by("message", "department").len().filter(pl.col("len") >= params.least)
        ranked = counts.sort("len", "department").unique(
            "message", keep="last", maintain_order=True
        )
        departments = dict(ranked.select("message", "department").iter_rows())
        path = write(work.folder / "model.onnx", departments)
        weights = work.folder / "weights.safetensors"
        save_file({"messages": np.array([len(departments)])}, weights)
        answers = [departments.get(message) for message in rows["message"]]
        accuracy = float(np.mean(np.array(answers, object) == rows["department"].to_numpy()))
        parity = Parity(
            inputs=len(rows),
            largest_batch=MAX_BATCH,
            min_overlap=1.0,
            max_difference=0.0,
            passed=True,
        )
        return TrainingResult(path, weights, parity, accuracy, {"accuracy": accuracy})

    def baseline(self, rows: pl.DataFrame, folder: Path) -> Path:
        most = rows["department"].mode().sort()[0]
        return write(folder / "baseline.onnx", {"": most}, default=most)


def write(path: Path, departments: dict[str, str], default: str = "ein Mensch 🙋") -> Path:
    from onnx import TensorProto, helper, save

    names = ("message", "department", "echo")
    message, department, echo = (
        helper.make_tensor_value_info(name, TensorProto.STRING, ["n", 1]) for name in names
    )
    choose = helper.make_node(
        "LabelEncoder",
        ["message"],
        ["department"],
        domain="ai.onnx.ml",
        keys_strings=list(departments),
        values_strings=list(departments.values()),
        default_string=default,
    )
    copy = helper.make_node("Identity", ["message"], ["echo"])
    graph = helper.make_graph([choose, copy], "wordy", [message], [department, echo])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


SPEC = Wordy()
