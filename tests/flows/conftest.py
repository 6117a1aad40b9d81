"""Data of the tiny model type and of the one with text, and what many tests begin with."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from mlflow.tracking._tracking_service import utils as mlflow_runs

from tests.flows.prepared import serve_live_versions
from tests.models.wordy import ODD

DAY = 86_400_000
DEPARTMENTS = ["Rückgabe ↩", "Lieferung 🚚", "", "Zahlung"]


@pytest.fixture
def orders(orders_folder: Path) -> Callable[[int, int, float], str]:
    """Writes days [first, last) of orders to a file: those above the price `threshold` are mostly
    sent back."""

    def write(first: int, last: int, threshold: float) -> str:
        path, rng = orders_folder / f"{first}.jsonl", np.random.default_rng(first)
        lines = []
        for number in range(first * 200, last * 200):
            price = float(rng.integers(1, 200))
            returned = bool((price > threshold) ^ (rng.random() < 0.1))
            order = {"order": number, "ts": 1_700_000_000_000 + number * DAY // 200, "price": price}
            lines.append(msgspec.json.encode(order | {"returned": returned}))
        path.write_bytes(b"\n".join(lines))
        return str(path)

    return write


@pytest.fixture
def messages(tmp_path: Path) -> Callable[..., str]:
    """Writes days [first, last) of messages to a file; `shift` changes which department answers."""

    def write(first: int, last: int, shift: int = 0) -> str:
        path, rng = tmp_path / f"messages-{first}.jsonl", np.random.default_rng(first)
        lines = []
        for number in range(first * 200, last * 200):
            which = int(rng.integers(len(ODD)))
            message = {
                "number": number,
                "ts": 1_700_000_000_000 + number * DAY // 200,
                "message": ODD[which],
                "department": DEPARTMENTS[(which + shift) % len(DEPARTMENTS)],
            }
            lines.append(msgspec.json.encode(message))
        path.write_bytes(b"\n".join(lines))
        return str(path)

    return write


@pytest.fixture
def prepared(
    preparations, tiny, orders, home, monkeypatch, prefect_harness, mlflow_store, triton
) -> Callable[[Callable[[str, Callable], object]], str]:
    """A function `begin(prepare)`, which makes this test's home and Triton as
    `prepare(model, orders)` leaves them for the tiny model type, and returns the model's name."""

    def begin(prepare: Callable[[str, Callable], object]) -> str:
        name = f"{prepare.__module__}.{prepare.__qualname__}"
        repository = triton["repository"]
        if preparations.begin(lambda: prepare(tiny, orders), name, home, repository):
            serve_live_versions(tiny)
        # MLflow keeps in mind where a run's files are, and the copies of a run have its name.
        monkeypatch.setattr(mlflow_runs, "_artifact_repos_cache", OrderedDict())
        return tiny

    return begin
