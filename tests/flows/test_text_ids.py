"""The whole loop on ids that are text: ingest, train, promote, publish, gateway, feedback, monitor,
batch."""

import json
from pathlib import Path

import polars as pl
import pytest
from starlette.testclient import TestClient

from demo.shop import Plan, simulate
from flows.collect import collect
from flows.ingest import ingest
from flows.monitor import monitor
from flows.retrain import retrain
from kreislauf import exposures, lake, registry
from kreislauf.clock import DAY_MS
from kreislauf.evaluation import scoring
from kreislauf.monitoring.feedback import clicked
from kreislauf.settings import settings
from models import spec, text
from models.session_recommender import SessionRecommender
from serving import live
from serving.app import create
from tests.models.test_every_model import with_text_ids

pytestmark = pytest.mark.usefixtures("prefect_harness", "mlflow_store", "triton")
TEXT = spec.load("session_recommender_text")
MAPPING = """
model: session_recommender_text
columns:
  session: visit
  aid: product.sku
  ts: {from: at, format: iso}
  type: {from: event, values: {view: clicks, add_to_cart: carts, purchase: orders}}
"""
EVENTS = {"clicks": "view", "carts": "add_to_cart", "orders": "purchase"}


def load(rows: pl.DataFrame, folder: Path, name: str) -> None:
    """Ingest the rows as such a shop has them."""
    exported = rows.select(
        visit="session",
        **{"product.sku": "aid"},
        at=pl.from_epoch("ts", "ms").dt.replace_time_zone("UTC").dt.to_string("iso:strict"),
        event=pl.col("type").cast(pl.String).replace_strict(EVENTS),
    )
    exported.write_csv(folder / f"{name}.csv")
    (folder / "shop.yaml").write_text(MAPPING)
    report = ingest(str(folder / f"{name}.csv"), mapping=str(folder / "shop.yaml"))
    assert (report.table, report.rows_kept) == ("text_events", rows.height)


@pytest.mark.slow
def test_a_shop_whose_ids_are_text_has_the_whole_loop(tmp_path, monkeypatch):
    monkeypatch.setenv("KREISLAUF_DEADLINE_MS", "10000")
    lenient = TEXT.policy.model_copy(update={"baseline_margin": 0.2, "min_groups": 50})
    monkeypatch.setattr(SessionRecommender, "policy", lenient)
    plan = Plan(days=13, sessions_per_day=150, articles=120, change_day=14)
    rows = with_text_ids(simulate(plan))
    is_early = pl.col("ts").min().over("session") < rows["ts"].min() + 10 * DAY_MS
    load(rows.filter(is_early), tmp_path, "first")
    result = retrain(TEXT.name, params=TEXT.Params.tiny().model_dump())
    assert result.outcome == "promote", result.reason

    load(rows.filter(~is_early), tmp_path, "second")
    finding = monitor(TEXT.name)
    assert finding.verdict in ("stable", "covariate shift"), finding.reason
    assert finding.realised.mean > 0.3

    examples = TEXT.examples(lake.read(TEXT.table))
    version, batch = live.answer(TEXT.name, examples.inputs)
    onnx = registry.onnx_file(registry.get(TEXT.name, version))
    assert batch["answers"].tolist() == scoring.answer(onnx, examples.inputs)["answers"].tolist()
    assert TEXT.score(examples, batch).mean() > 0.3
    monkeypatch.setenv("KREISLAUF_MAPPING", str(tmp_path / "shop.yaml"))
    assert_clicks_are_joined(examples)


def assert_clicks_are_joined(examples: spec.Examples) -> None:
    """Ask the gateway as the session of the last example, in the shop's own words, click, and find
    the click again."""
    session = examples.groups[-1]
    mine = examples.take(examples.groups == session)
    asked = [aid for aid in mine.inputs["article_ids"][-1] if aid]
    with TestClient(create(settings())) as gateway:
        events = [{"product": {"sku": aid}, "event": "view"} for aid in asked]
        body = {"visit": session, "events": events}
        shown = gateway.post(f"/v1/{TEXT.name}/predict", json=body).json()
        assert all(aid.startswith("SKU ö-") for aid in shown["answer"]["article_ids"])
        feedback = {"request_id": shown["request_id"], "model": TEXT.name, "kind": "view"}
        reaction = feedback | {"item": mine.labels[-1]}
        assert gateway.post("/v1/feedback", json=reaction).status_code == 204
    collect()
    items = lake.read(exposures.FEEDBACK)["item"].to_list()
    assert [json.loads(item) for item in items] == [mine.labels[-1]]
    is_clicked = clicked(TEXT.name, mine, 0, lake.watermark(exposures.EXPOSURES))
    assert text.is_text(mine.groups)
    assert is_clicked.tolist() == (mine.labels == mine.labels[-1]).tolist()
