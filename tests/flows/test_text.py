"""A model type with text inside and out goes live, answers through the gateway, is monitored and
trained again."""

import json

import msgspec
import numpy as np
import pytest
from starlette.testclient import TestClient

from flows.ingest import ingest
from flows.monitor import monitor
from flows.promote import promote
from flows.publish import publish
from flows.retrain import retrain
from flows.train import train
from kreislauf import registry
from kreislauf.evaluation import scoring
from kreislauf.exposures import Exposure, Feedback
from kreislauf.release import golden, releases
from kreislauf.settings import settings
from serving import live
from serving.app import create
from tests.flows.conftest import DEPARTMENTS
from tests.models.wordy import ODD

pytestmark = pytest.mark.usefixtures("prefect_harness", "mlflow_store", "triton")


def test_text_goes_live_and_comes_back_through_the_gateway(wordy, messages, monkeypatch):
    monkeypatch.setenv("KREISLAUF_DEADLINE_MS", "10000")
    ingest(messages(0, 10), wordy)
    version = train(wordy)
    assert promote(wordy, version.number).outcome == "promote"
    publish(wordy, version.number)
    assert releases.current(wordy).champion == version.number

    onnx = registry.onnx_file(registry.get(wordy, version.number))
    asked = np.array([[message] for message in [*ODD, "nobody wrote this 🤷"]], object)
    expected = scoring.answer(onnx, {"message": asked})
    assert expected["department"][-1, 0] == "ein Mensch 🙋"
    number, outputs = live.answer(wordy, {"message": asked})
    assert (number, golden.compare(outputs, expected)) == (version.number, "")

    with TestClient(create(settings())) as gateway:
        for message, department in zip(asked[:, 0], expected["department"][:, 0], strict=True):
            response = gateway.post(f"/v1/{wordy}/predict", json={"message": message, "user": "ä"})
            assert response.status_code == 200, response.text
            shown = response.json()
            assert shown["variant"] == "champion"
            assert shown["answer"] == {"department": department, "echo": message}
            feedback = {"request_id": shown["request_id"], "model": wordy, "kind": "click"}
            done = gateway.post("/v1/feedback", json=feedback | {"item": department})
            assert done.status_code == 204, done.text
        kept = json.loads((settings().home / "gateway" / f"{wordy}.json").read_text())
        assert kept == {"department": DEPARTMENTS[0], "echo": ""}
        for wrong in (b'{"message": 5}', b'{"message": "\\udc00"}', b'{"message": null}'):
            assert gateway.post(f"/v1/{wordy}/predict", content=wrong).status_code in (400, 422)
    exposed, clicked = (
        [json.loads(line.items if kind is Exposure else line.item) for line in spooled(i, kind)]
        for i, kind in enumerate((Exposure, Feedback))
    )
    assert exposed == [[department] for department in expected["department"][:, 0]]
    assert clicked == expected["department"][:, 0].tolist()


@pytest.mark.slow
def test_text_is_monitored_and_what_changed_is_learnt_and_goes_live(wordy, messages):
    ingest(messages(0, 20), wordy)
    assert retrain(wordy).outcome == "promote"
    ingest(messages(20, 25), wordy)
    finding = monitor(wordy)
    assert finding.verdict == "stable", finding.reason
    ingest(messages(25, 60, shift=1), wordy)
    again = retrain(wordy)
    assert (again.outcome, again.version) == ("promote", 2)
    assert live.answer(wordy, {"message": np.array([[""]])})[1]["department"] == [[DEPARTMENTS[1]]]


def spooled(which: int, line_type: type) -> list:
    """Lines of exposures (0) or feedback (1), in the order they were written."""
    return [
        msgspec.json.decode(line, type=line_type)
        for path in sorted(settings().spools[which].iterdir())
        for line in path.read_bytes().splitlines()
    ]
