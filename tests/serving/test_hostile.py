"""What strangers send: anything the API's description allows, anything it does not, and too much of it."""

import itertools
import socket
import time

import httpx
import schemathesis
from hypothesis import HealthCheck, given, settings

from serving import app

DELIBERATE = 503


def test_whatever_is_sent_is_answered_as_described(listening: str):
    schema = schemathesis.openapi.from_url(f"http://{listening}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert {operation.path for operation in operations} >= {"/v1/{model}/predict", "/v1/feedback", "/metrics"}
    modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    for operation, mode in itertools.product(operations, modes):
        if operation.method == "get" and mode is modes[1]:
            continue  # Without parameters there is nothing to get wrong.
        strategy = operation.as_strategy(generation_mode=mode)

        @settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
        @given(case=strategy)
        def send(case):
            answered(case)
            if "model" in case.path_parameters:
                case.path_parameters["model"] = "tiny"
                answered(case)

        send()


def answered(case: schemathesis.Case) -> None:
    """With what the description says, and never with an error of the server's own."""
    response = case.call()
    assert response.status_code < 500 or response.status_code == DELIBERATE, response.text
    assert "Traceback" not in response.text
    described = case.operation.definition.raw["responses"]
    assert str(response.status_code) in described or response.status_code in (404, 405), response.text


def test_clients_that_never_finish_do_not_keep_others_out(listening: str, monkeypatch):
    monkeypatch.setattr(app, "BODY_SECONDS", 1.0)
    monkeypatch.setattr(app, "IN_FLIGHT", 20)
    host, port = listening.split(":")
    head = b"POST /v1/tiny/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n{"
    stuck = [socket.create_connection((host, int(port))) for _ in range(20)]
    for one in stuck:
        one.sendall(head)
    time.sleep(0.3)
    full = httpx.post(f"http://{listening}/v1/tiny/predict", json={"price": 1})
    assert (full.status_code, full.headers["retry-after"]) == (DELIBERATE, "1")
    assert httpx.get(f"http://{listening}/health").status_code == 200
    time.sleep(1)
    assert httpx.post(f"http://{listening}/v1/tiny/predict", json={"price": 1}).status_code == 200
    assert b" 408 " in stuck[0].recv(100)
    for one in stuck:
        one.close()
