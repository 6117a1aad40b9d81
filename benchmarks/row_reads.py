"""How often does a retraining read the rows that it learns from?

`python -m benchmarks.row_reads` ingests orders of the tests' tiny model type into a temporary home,
then plans, fits, judges and describes a version, as the flows train and promote do, but without
Prefect's server. It counts how often rows of the table are scanned. The last line is JSON.
"""

import importlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from unittest.mock import patch

import models
from kreislauf import lake, registry
from models import spec
from models.table import RawLines

MODEL = "tiny"
MODEL_FILE = Path(__file__).parent.parent / "tests" / "models" / "tiny.py"
DAYS = 20
ORDERS_PER_DAY = 200
THRESHOLD = 50
"""Price above which an order is sent back."""
DAY_MS = 86_400_000


def reads_per_retraining() -> int:
    """Scans of the table while one version is trained, judged and described."""
    with tempfile.TemporaryDirectory() as folder, tiny_model(Path(folder)) as model_type:
        load_orders(model_type)
        with counted_scans(model_type.table.name) as tables:
            retrain(model_type)
        return len(tables)


def retrain(model_type: spec.ModelSpec) -> None:
    """The steps of the flows train and promote."""
    from kreislauf import progress
    from kreislauf.training import inputs
    from tasks import promote, train

    params = model_type.Params()
    lineage = train.plan(model_type, params, inputs.read_newest(model_type))
    with patch.object(progress.Progress, "of", return_value=spec.ignore):
        version = train.fit.fn(model_type.name, params.model_dump(mode="json"), lineage)
    decision = promote.judge.fn(model_type.name, version.number, None)
    promote.note_decision(version, decision)
    promote.describe.fn(model_type.name, version.number, decision)
    registry.record_decision(version, decision)


@contextmanager
def tiny_model(folder: Path) -> Iterator[spec.ModelSpec]:
    """The model type, with an empty home of its own."""
    package = folder / "models" / MODEL
    package.mkdir(parents=True)
    shutil.copyfile(MODEL_FILE, package / "__init__.py")
    paths = [*models.__path__, str(package.parent)]
    home = {"KREISLAUF_HOME": str(folder / "home")}
    module = f"models.{MODEL}"
    loaded = sys.modules.pop(module, None)
    with patch.object(models, "__path__", paths), patch.dict(os.environ, home):
        importlib.invalidate_caches()
        yield spec.load(MODEL)
    del sys.modules[module]
    if loaded:
        sys.modules[module] = loaded


def load_orders(model_type: spec.ModelSpec) -> None:
    """Put `DAYS` of orders into the lake."""
    lines = [order(number) for number in range(DAYS * ORDERS_PER_DAY)]
    lake.load_file(model_type.table, RawFile(lines))


class RawFile:
    """A raw file that is not on a disk."""

    path = "rows.jsonl"
    mapping = None

    def __init__(self, lines: list[bytes]) -> None:
        self.lines = lines
        self.sha256 = sha256(b"\n".join(self.lines)).hexdigest()
        self.stamp = self.sha256

    def chunks(self) -> Iterator[RawLines]:
        """All of it."""
        yield RawLines.of(self.path, self.lines)


def order(number: int) -> bytes:
    """One raw line."""
    price = number * 37 % 200
    values = {
        "order": number,
        "ts": 1_700_000_000_000 + number * DAY_MS // ORDERS_PER_DAY,
        "price": float(price),
        "returned": price > THRESHOLD,
    }
    return json.dumps(values).encode()


@contextmanager
def counted_scans(table: str) -> Iterator[list[str]]:
    """Names of the table, one for each scan of its rows meanwhile."""
    reading = importlib.import_module("kreislauf.lake.reading")
    scan = reading.scan
    tables: list[str] = []

    def counted(scanned, *arguments, **options):
        if scanned.name == table:
            tables.append(scanned.name)
        return scan(scanned, *arguments, **options)

    with patch.object(reading, "scan", counted), patch.object(lake, "scan", counted):
        yield tables


def main() -> None:
    """See the module."""
    print(json.dumps({"reads_per_retraining": reads_per_retraining()}))


if __name__ == "__main__":
    main()
