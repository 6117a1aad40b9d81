"""The support answers go live: questions of a shop are ingested, learnt from, judged, published."""

import pytest

from flows.ingest import ingest
from flows.promote import promote
from flows.publish import publish
from flows.train import train
from kreislauf import registry
from kreislauf.evaluation import scoring
from kreislauf.release import golden, releases
from models.support_answers import SPEC, Params
from serving import live
from tests.models.support_questions import questions

pytestmark = pytest.mark.usefixtures("prefect_harness", "mlflow_store", "triton")

MINUTES = 2 * 1_440 + 60
"""Two days and an hour, with a question a minute."""


def test_support_answers_are_judged_go_live_and_answer_as_in_the_file(tmp_path):
    path = tmp_path / "questions.jsonl"
    path.write_text(questions(MINUTES).write_ndjson())
    ingest(str(path), SPEC.name)
    version = train(SPEC.name, Params.tiny().model_dump())
    decision = promote(SPEC.name, version.number)
    assert decision.outcome == "promote", decision.reasons
    publish(SPEC.name, version.number)
    assert releases.current(SPEC.name).champion == version.number
    asked = SPEC.tensors([*SPEC.golden(), {"text": "Wo bleibt mein Päckchen?"}])
    expected = scoring.answer(registry.onnx_file(registry.get(SPEC.name, version.number)), asked)
    number, outputs = live.answer(SPEC.name, asked)
    assert (number, golden.compare(outputs, expected)) == (version.number, "")
    assert SPEC.answers(outputs)[-1]["intent"] == "delivery"
    assert SPEC.answers(outputs)[0]["hand_over"]
