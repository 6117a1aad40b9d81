"""Somebody else restarts Triton, or empties its disk: who looks first puts the release back."""

import shutil

import pytest
from starlette.testclient import TestClient
from tritonclient.grpc import InferenceServerClient

from flows.collect import collect
from kreislauf.settings import settings
from serving.app import create
from tests.flows.test_loop import one_release
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("prefect_harness", "mlflow_store", "triton")


def variant(gateway: TestClient, model: str) -> str:
    """Who answers."""
    answer = gateway.post(f"/v1/{model}/predict", json={"price": 60.0, "user": "u"})
    assert answer.status_code == 200, answer.text
    return answer.json()["variant"]


@pytest.fixture
def gateway(prepared, tiny, monkeypatch):
    """A gateway, version 1 being live."""
    prepared(one_release)
    monkeypatch.setenv("KREISLAUF_DEADLINE_MS", "10000")
    with TestClient(create(settings())) as client:
        assert variant(client, tiny) == "champion"
        yield client


def test_a_triton_without_models_gets_the_release_back_by_the_gateway(gateway, tiny, triton):
    with InferenceServerClient(triton["grpc"]) as client:
        client.unload_model(tiny)
        until(lambda: not client.is_model_ready(tiny, "1"))
        until(lambda: client.is_model_ready(tiny, "1"))
    until(lambda: variant(gateway, tiny) == "champion")
    until(lambda: gateway.get("/ready").json() == {"status": "ready"})


def test_an_empty_disk_is_told_and_filled_by_the_next_run_of_collect(gateway, tiny, triton):
    with InferenceServerClient(triton["grpc"]) as client:
        shutil.rmtree(triton["repository"] / tiny)
        client.unload_model(tiny)
        until(lambda: gateway.get("/ready").json()["status"] == "fallbacks only")
    assert variant(gateway, tiny) == "fallback"
    message = gateway.get("/ready").json()["models"][tiny]
    assert "Triton does not serve version 1, and cannot load it" in message
    with TestClient(create(settings())) as another:
        assert another.get("/ready").status_code == 503, "it never saw its champion"
    collect()
    until(lambda: variant(gateway, tiny) == "champion")
    until(lambda: gateway.get("/ready").json() == {"status": "ready"})
