"""What a training starts from: which rows are new to its parent, and whether it was warm at all."""

import json
from dataclasses import replace

import polars as pl
import pytest

from flows.ingest import ingest
from flows.retrain import retrain
from flows.tidy import tidy
from flows.train import train
from kreislauf import registry
from kreislauf.lake import exclusions
from models import spec
from models.spec import TrainingContext, TrainingResult

pytestmark = pytest.mark.usefixtures("prefect_harness", "mlflow_store", "triton")
T0 = 1_700_000_000_000
DAY = 86_400_000


def test_rows_that_arrived_since_the_parent_are_new_whatever_their_time(
    tiny, orders, tmp_path, monkeypatch
):
    model_type = spec.load(tiny)
    contexts = []
    fit = type(model_type).train

    def watch(self, rows: pl.DataFrame, params, work: TrainingContext) -> TrainingResult:
        contexts.append((rows, work))
        return fit(self, rows, params, work)

    monkeypatch.setattr(type(model_type), "train", watch)
    ingest(orders(0, 20, threshold=50), tiny)
    exclusions.exclude(model_type.table.name, T0 + 3 * DAY, T0 + 4 * DAY - 1, "a test")
    retrain(tiny)
    parent = registry.get(tiny, 1).lineage
    assert contexts[0][1].new_groups is None
    ingest(orders(20, 30, threshold=50), tiny)
    late = [
        {"order": 20_000 + number, "ts": T0 + 5 * DAY + number, "price": 9.0, "returned": False}
        for number in range(50)
    ]
    (tmp_path / "late.jsonl").write_text("\n".join(json.dumps(order) for order in late))
    ingest(str(tmp_path / "late.jsonl"), tiny)
    verdict = exclusions.HumanVerdict(
        table=model_type.table.name, start=T0, end=T0 + 9 * DAY, who="a test", reason="Good.", at=1
    )
    exclusions.record_verdict(verdict)
    tidy(retention_hours=0)
    assert train(tiny).lineage.parent == 1
    rows, work = contexts[1]
    new = rows.filter(pl.col("order").is_in(work.new_groups.implode()))
    is_late = pl.col("order") >= 20_000
    left_out = pl.col("ts").is_between(T0 + 3 * DAY, T0 + 4 * DAY - 1)
    is_new = is_late | left_out | (pl.col("ts") >= parent.holdout)
    assert new.sort("order").equals(rows.filter(is_new).sort("order"))
    assert new.filter(is_late).height == 50
    assert new.filter(left_out).height == 200


def test_a_version_names_a_parent_only_if_its_training_was_warm(tiny, orders, monkeypatch):
    model_type = spec.load(tiny)
    ingest(orders(0, 20, threshold=50), tiny)
    retrain(tiny)
    ingest(orders(20, 30, threshold=50), tiny)
    assert train(tiny).lineage.parent == 1
    fit = type(model_type).train
    monkeypatch.setattr(
        type(model_type), "train", lambda *given: replace(fit(*given), is_warm=False)
    )
    cold = train(tiny, {"steps": 30})
    assert cold.lineage.parent is None
    assert train(tiny, {"steps": 30}) == cold, "it is the same training all the same"
