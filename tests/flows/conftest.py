"""A real Triton, and the tiny model type of another kind with its data."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from deployments import processes, stack

DAY = 86_400_000


@pytest.fixture
def triton(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict]:
    """Triton on this test's model repository."""
    running = stack.up(home, ("triton",))
    yield running["triton"]
    processes.stop(running["triton"])


@pytest.fixture
def tiny(other_models: Path) -> str:
    """The name of a model type that no flow has heard of."""
    (other_models / "tiny").mkdir()
    shutil.copyfile(Path(__file__).parent.parent / "models" / "tiny.py", other_models / "tiny" / "__init__.py")
    return "tiny"


@pytest.fixture
def orders(tmp_path: Path) -> Callable[[int, int, float], str]:
    """Writes days [first, last) of orders to a file: those above the price `threshold` are mostly sent back."""

    def write(first: int, last: int, threshold: float) -> str:
        path, rng = tmp_path / "orders" / f"{first}.jsonl", np.random.default_rng(first)
        path.parent.mkdir(exist_ok=True)
        lines = []
        for number in range(first * 200, last * 200):
            price = float(rng.integers(1, 200))
            returned = bool((price > threshold) ^ (rng.random() < 0.1))
            order = {"order": number, "ts": 1_700_000_000_000 + number * DAY // 200, "price": price}
            lines.append(msgspec.json.encode(order | {"returned": returned}))
        path.write_bytes(b"\n".join(lines))
        return str(path)

    return write
