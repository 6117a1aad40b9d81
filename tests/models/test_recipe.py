"""docs/add_your_model.md, word for word: a fourth model type, without an edit elsewhere."""

import importlib
import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from flows.ingest import ingest
from flows.monitor import monitor
from kreislauf import registry
from kreislauf.evaluation import gate
from kreislauf.release import releases
from serving import live
from tests import documented
from tests.conftest import ROOT
from tests.models.conftest import PAGE
from tests.models.test_broken_types import suite

DAYS = 20
SHOP = "path/to/shop"
SALES = "path/to/sales.jsonl"


@pytest.mark.slow
def test_it_passes_the_checks_of_every_model_type(bestseller: str, other_models: Path):
    (block,) = documented.blocks(PAGE, "sh")
    assert SHOP in block
    command = block.replace(SHOP, str(other_models.parent))
    done = subprocess.run(command, cwd=ROOT, shell=True, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    (passed,) = re.findall(r"(\d+) passed", done.stdout)
    assert int(passed) == len(suite()) > 20


@pytest.mark.usefixtures("prefect_harness", "mlflow_store", "triton")
def test_it_goes_through_all_flows(bestseller: str, tmp_path: Path):
    sample = importlib.import_module(f"models.{bestseller}.sample")
    path = tmp_path / "sales.jsonl"
    path.write_text("\n".join(map(json.dumps, sample.lines(0, DAYS))))
    block = documented.files(PAGE)["loop.py"]
    assert SALES in block
    names: dict = {}
    exec(block.replace(SALES, str(path)), names)
    version = registry.get(bestseller, names["version"].number)
    decision = gate.Decision.model_validate_json(version.decision)
    assert decision.outcome == "promote", decision.reasons
    assert decision.challenger > decision.baseline + 0.2
    assert releases.current(bestseller).champion == version.number
    asked = {"category": np.array([["category 1"], ["category 4"], ["nobody has it"]], object)}
    number, outputs = live.answer(bestseller, asked)
    assert number == version.number
    assert outputs["product"][:2].tolist() == [["product 1"], ["product 4"]]
    assert names["finding"].verdict == "not enough data", "nothing came since it was judged"
    path.write_text("\n".join(map(json.dumps, sample.lines(DAYS, DAYS + 5))))
    ingest(str(path), bestseller)
    finding = monitor(bestseller)
    assert (finding.version, finding.verdict) == (version.number, "stable"), finding.reason
