"""A model type of another kind, which the tests copy into a temporary `models/tiny/__init__.py`.

Will an order be sent back? A threshold on its price, learnt by counting: no torch, no sequences,
float inputs.
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


class RawOrder(msgspec.Struct, forbid_unknown_fields=True):
    order: Natural
    ts: Natural
    price: float
    returned: bool


class Order(pa.DataFrameModel):
    order: pl.Int64 = pa.Field(ge=0)
    ts: pl.Int64 = pa.Field(ge=0)
    price: pl.Float64 = pa.Field(ge=0)
    returned: pl.Boolean


class Params(BaseModel, extra="forbid"):
    steps: int = Field(50, ge=2, description="Thresholds tried.")

    @classmethod
    def small(cls) -> "Params":
        return cls()

    @classmethod
    def tiny(cls) -> "Params":
        return cls(steps=20)


class TinyRequest(BaseModel):
    price: float = Field(ge=-1e30, le=1e30)


class TinyAnswer(BaseModel):
    returned: bool


class Tiny(ModelSpec):
    name = "tiny"
    table = Table("orders", RawOrder, Order, key=("order",), time="ts", group="order")
    Params = Params
    Request = TinyRequest
    Answer = TinyAnswer
    policy = Policy(min_groups=50, group_sd=0.3, min_effect=0.05)
    metric = "accuracy"
    fallback: ClassVar[dict] = {"price": 0}

    def examples(self, rows: pl.DataFrame) -> Examples:
        rows = rows.sort("order")
        price = rows["price"].to_numpy().astype(np.float32)[:, None]
        return Examples({"price": price}, rows["returned"].to_numpy(), rows["order"].to_numpy())

    def score(self, examples: Examples, outputs: Tensors) -> np.ndarray:
        return (outputs["returned"][:, 0] == examples.labels).astype(float)

    def tensors(self, requests: list[dict]) -> Tensors:
        for i, request in enumerate(requests):
            price = request.get("price")
            is_number = isinstance(price, (int, float)) and not isinstance(price, bool)
            if not is_number or not -1e30 <= price <= 1e30:
                raise ValueError(f'Request {i}: "price" must be a number.')
        return {"price": np.array([[r["price"]] for r in requests], np.float32).reshape(-1, 1)}

    def answers(self, outputs: Tensors) -> list[dict]:
        return [{"returned": bool(value)} for value in outputs["returned"][:, 0]]

    def items(self, answer: dict) -> list:
        return [answer["returned"]]

    def golden(self) -> list[dict]:
        return [{"price": 0}, {"price": 10**6}]

    def training_profile(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        return rows.select(pl.col("price").max())

    def monitored(self, rows: pl.LazyFrame, profile: pl.DataFrame) -> pl.LazyFrame:
        return rows.select("price", dear=pl.col("price") > profile["price"].item())

    def train(self, rows: pl.DataFrame, params: Any, work: TrainingContext) -> TrainingResult:
        from safetensors.numpy import load_file, save_file

        price, returned = rows["price"].to_numpy(), rows["returned"].to_numpy()
        grid = np.linspace(price.min(), price.max(), params.steps)
        if work.parent:
            grid = np.append(grid, load_file(work.parent)["threshold"])
        threshold = grid[np.argmax([((price > t) == returned).mean() for t in grid])]
        path = write(work.folder / "model.onnx", threshold)
        weights = work.folder / "weights.safetensors"
        save_file({"threshold": np.array([threshold])}, weights)
        accuracy = float(((price > threshold) == returned).mean())
        parity = Parity(
            inputs=len(rows),
            largest_batch=MAX_BATCH,
            min_overlap=1.0,
            max_difference=0.0,
            passed=True,
        )
        curves = [("accuracy", 0, accuracy)]
        is_warm = work.parent is not None
        return TrainingResult(
            path, weights, parity, accuracy, {"accuracy": accuracy}, curves, is_warm
        )

    def baseline(self, rows: pl.DataFrame, folder: Path) -> Path:
        return write(folder / "baseline.onnx", rows["price"].max() + 1)


def write(path: Path, threshold: float) -> Path:
    from onnx import TensorProto, helper, save

    graph = helper.make_graph(
        [helper.make_node("Greater", ["price", "threshold"], ["returned"])],
        "tiny",
        [helper.make_tensor_value_info("price", TensorProto.FLOAT, ["n", 1])],
        [helper.make_tensor_value_info("returned", TensorProto.BOOL, ["n", 1])],
        [helper.make_tensor("threshold", TensorProto.FLOAT, [1], [threshold])],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


SPEC = Tiny()
