"""The search ranker goes through the flows as any model type: from searches to a live version."""

import msgspec
import pytest

from flows.ingest import ingest
from flows.promote import promote
from flows.publish import publish
from flows.train import train
from kreislauf.release import releases
from models import spec
from models.search_ranker import Params
from serving import live
from tests.models import searches

pytestmark = pytest.mark.usefixtures("prefect_harness", "mlflow_store", "triton")
MODEL = "search_ranker"


def test_a_ranker_is_trained_judged_and_answers_a_list_as_it_was_sent(tmp_path):
    path = tmp_path / "searches.jsonl"
    path.write_bytes(b"\n".join(map(msgspec.json.encode, searches.lines(0, 8, a_day=250))))
    ingest(str(path), MODEL)
    version = train(MODEL, Params.tiny().model_dump())
    decision = promote(MODEL, version.number)
    assert decision.outcome == "promote", decision.reasons
    assert decision.challenger > decision.baseline
    publish(MODEL, version.number)
    assert releases.current(MODEL).champion == version.number
    model_type = spec.load(MODEL)
    results = [{"item": i, "features": [float(i), None]} for i in (3, 1, 2)]
    number, outputs = live.answer(MODEL, model_type.tensors([{"results": results}]))
    (answer,) = model_type.answers(outputs)
    assert number == version.number
    assert answer["items"] == ["3", "2", "1"], "dear is good in this shop"
    assert answer["scores"] == sorted(answer["scores"], reverse=True)
