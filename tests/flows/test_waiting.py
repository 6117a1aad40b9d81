"""A retraining that could not be judged is not begun: it says until when, and loses nothing."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from deployments import first_model
from flows.ingest import ingest
from flows.monitor import monitor
from flows.retrain import retrain
from flows.train import train
from kreislauf import lake, registry
from kreislauf.evaluation import split
from kreislauf.registry import claims
from kreislauf.settings import settings
from models import spec
from tests.flows.conftest import DAY

pytestmark = pytest.mark.usefixtures("prefect_harness", "mlflow_store", "triton")


def few_orders(folder: Path, first: int, count: int) -> str:
    """A file with ten orders a day from day 20 on, `count` of them from number `first`."""
    rng = np.random.default_rng(first)
    lines = []
    for number in range(first, first + count):
        ts = 1_700_000_000_000 + 20 * DAY + number * DAY // 10
        order = {"order": 10**6 + number, "ts": ts, "price": float(rng.integers(1, 200))}
        lines.append(msgspec.json.encode(order | {"returned": order["price"] > 50}))
    path = folder / f"few-{first}.jsonl"
    path.write_bytes(b"\n".join(lines))
    return str(path)


@pytest.mark.parametrize("model", spec.names())
def test_a_model_without_data_is_neither_trained_nor_watched_and_no_run_fails(model):
    weekly = retrain(model, reason="weekly schedule")
    assert (weekly.outcome, weekly.version, weekly.release) == ("waiting", None, None)
    table = spec.load(model).table.name
    assert weekly.reason == (
        f"No data of {model} has come yet: the table {table} in {settings().lake} has no rows. "
        "Load some with the flow ingest; then the next retraining makes the first model."
    )
    assert monitor(model) is None
    assert registry.versions(model) == []
    assert claims.unfinished(model) == []


@pytest.mark.parametrize("reason", ["weekly schedule", "asked for by a person"])
def test_the_first_training_waits_for_enough_rows_and_no_run_fails(tiny, orders, reason):
    ingest(orders(0, 2, threshold=50), tiny)
    state = retrain(tiny, reason=reason, return_state=True)
    assert state.is_completed()
    waiting = state.result()
    assert (waiting.outcome, waiting.version, waiting.release) == ("waiting", None, None)
    assert waiting.reason == (
        "The table orders is too small to judge a model: a hold-out of 0 days, half of what is "
        "there, has 0 order values with a right answer and the policy needs 283. Ingest more "
        "history, or raise min_effect in the model's policy."
    )
    assert first_model.refusal(tiny) == waiting.reason, "`make up DATA=...` says the same"
    assert registry.versions(tiny) == []
    assert claims.unfinished(tiny) == []
    with pytest.raises(split.TooSmall):
        train(tiny)
    ingest(orders(2, 20, threshold=50), tiny)
    assert retrain(tiny, reason=reason).release == 1


def test_a_lake_that_does_not_answer_is_no_lake_without_data(tiny, monkeypatch):
    monkeypatch.setenv("KREISLAUF_LAKE", "s3://shop/lake")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(lake.LakeUnreachable):
        retrain(tiny)


def test_after_traffic_has_fallen_a_retraining_waits_and_then_starts_warm(tiny, orders, tmp_path):
    ingest(orders(0, 20, threshold=50), tiny)
    first = retrain(tiny)
    assert (first.outcome, first.release) == ("promote", 1)

    ingest(few_orders(tmp_path, 0, 29), tiny)
    waiting = retrain(tiny, reason="the shop changed")
    assert waiting.outcome == "waiting"
    assert waiting.reason == (
        "The longest hold-out that can judge has 4 days, because the champion has learnt from what "
        "was before, or because half of the time is learnt from. It has 268 order values with a "
        "right answer, and the gate needs 283. At the pace since then, there will be enough by "
        "2024-01-09 22:13 (UTC)."
    )
    assert (waiting.version, waiting.release) == (None, None)
    assert [version.number for version in registry.versions(tiny)] == [1], "nothing was trained"
    assert registry.finished(tiny).number == 1, "so the regret since its training is kept"

    ingest(few_orders(tmp_path, 29, 370), tiny)
    second = retrain(tiny)
    assert second.version == 2
    assert registry.get(tiny, 2).lineage.parent == 1, "it starts warm"
    assert "was trained on part of the hold-out" not in second.reason
