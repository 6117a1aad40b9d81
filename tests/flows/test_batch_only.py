"""A model type that is only asked in batches closes its loop without Triton and gateway."""

import json

import msgspec
import polars as pl
import pytest

from flows.experiment import experiment
from flows.ingest import ingest
from flows.monitor import monitor
from flows.retrain import retrain
from flows.rollback import rollback
from flows.score import score
from kreislauf import registry
from kreislauf.batch import answers
from kreislauf.monitoring import feedback
from kreislauf.release import golden, lifecycle_page, permission, releases
from kreislauf.settings import settings
from models import spec

pytestmark = pytest.mark.usefixtures("prefect_harness", "mlflow_store")
HOUR_MS = 3_600_000


@pytest.fixture
def batch_only(tiny, monkeypatch) -> str:
    """The tiny model type, which no server serves here, and no server is there."""
    monkeypatch.setattr(type(spec.load(tiny)), "is_served", False)
    assert not settings().triton_url
    return tiny


@pytest.mark.slow
def test_a_loop_closes_without_a_server(batch_only, orders, tmp_path):
    ingest(orders(0, 20, threshold=50), batch_only)
    first = retrain(batch_only, reason="the first")
    assert (first.outcome, first.release) == ("promote", 1)
    night = score(batch_only)
    assert night.batch.version == 1
    page = (lifecycle_page.read(batch_only) or b"").decode()
    assert night.batch.name in page.split(">Batches</h2>")[1], "the page was drawn anew"

    ingest(orders(20, 25, threshold=50), batch_only)
    report = score(batch_only)
    assert report.answered == 200
    react(report, 0.25, tmp_path)
    finding = monitor(batch_only)
    assert finding.verdict == "stable", finding.reason
    shown = feedback.reactions(batch_only, 0, 2**62)
    assert shown["variant"].unique().to_list() == ["batch"]
    assert shown.height == 200, "nobody has said anything of the other batch"
    assert shown["click"].mean() == 0.25
    signals = feedback.clicks_per_answer(shown, 1, report.batch.ts)
    assert signals["clicks"].value == 0.25

    ingest(orders(25, 60, threshold=120), batch_only)
    drift = monitor(batch_only)
    assert drift.verdict == "concept drift"
    better = retrain(batch_only, reason=drift.reason)
    assert (better.outcome, better.release) == ("promote", 2)
    after = score(batch_only)
    assert after.batch.version == better.version
    assert right_share(report) > 0.85
    assert right_share(after) > 0.85

    assert rollback(batch_only, reason="a person prefers it").champion == 1
    assert score(batch_only).batch.version == 1
    assert right_share(score(batch_only)) < 0.75
    with pytest.raises(permission.ExperimentRefused, match="only asked in batches"):
        experiment(batch_only, better.version)


def test_a_file_that_answers_otherwise_does_not_go_live(batch_only, orders, monkeypatch):
    ingest(orders(0, 20, threshold=50), batch_only)
    monkeypatch.setattr(golden, "compare", lambda *_: "output returned differs")
    with pytest.raises(permission.PublishRefused, match="otherwise than registered"):
        retrain(batch_only)
    assert releases.current(batch_only) is None
    assert registry.get(batch_only, 1).closed


def react(report, share: float, folder) -> None:
    """Load clicks on a share of the answers, an hour later; and one more a day later, so that the
    others are known not to be clicked."""
    ids = answers.read(report.batch.name)["request_id"].to_list()
    clicked = ids[: int(len(ids) * share)]
    lines = [
        {
            "request_id": request_id,
            "ts": report.batch.ts + HOUR_MS,
            "model": report.batch.model,
            "version": report.batch.version,
            "variant": "champion",
            "kind": "click",
            "item": "true",
        }
        for request_id in clicked
    ]
    later = {"request_id": "another", "ts": report.batch.ts + 24 * HOUR_MS}
    path = folder / "feedback.jsonl"
    path.write_bytes(b"\n".join(map(msgspec.json.encode, [*lines, lines[0] | later])))
    ingest(str(path), table="feedback")


def right_share(report) -> float:
    """Share of a batch's answers that are right."""
    from kreislauf import lake

    given = answers.read(report.batch.name).with_columns(pl.col("id").cast(pl.Int64))
    table = spec.load(report.batch.model).table
    joined = given.join(lake.read(table), left_on="id", right_on="order")
    answered = [json.loads(answer)["returned"] for answer in joined["answer"]]
    return float((pl.Series(answered) == joined["returned"]).mean())
