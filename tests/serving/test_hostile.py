"""What strangers send: anything the API's description allows, anything it does not, and too much of
it."""

import itertools
import socket
import time
from collections.abc import Callable, Iterator

import httpx
import psutil
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

from serving import app, connections, guard
from tests.serving.conftest import running

DELIBERATE = 503


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a gateway that has nothing to answer with."""
    monkeypatch.setenv("KREISLAUF_TRITON_URL", "127.0.0.1:1")
    with running() as gateway:
        yield gateway


def test_whatever_is_sent_is_answered_as_described(listening: str):
    schema = schemathesis.openapi.from_url(f"http://{listening}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    assert {operation.path for operation in operations} >= {
        "/v1/{model}/predict",
        "/v1/feedback",
        "/metrics",
    }
    modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    for operation, mode in itertools.product(operations, modes):
        if operation.method == "get" and mode is modes[1]:
            continue  # Without parameters there is nothing to get wrong.
        strategy = operation.as_strategy(generation_mode=mode)

        @settings(
            max_examples=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        )
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
    assert str(response.status_code) in described or response.status_code in (404, 405), (
        response.text
    )


def test_clients_that_never_finish_do_not_keep_others_out(listening: str, monkeypatch):
    monkeypatch.setattr(app, "BODY_SECONDS", 1.0)
    monkeypatch.setattr(guard, "IN_FLIGHT", 20)
    host, port = listening.split(":")
    head = b"POST /v1/tiny/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n{"
    stuck = [socket.create_connection((host, int(port))) for _ in range(20)]
    for client in stuck:
        client.sendall(head)
    time.sleep(0.3)
    full = httpx.post(f"http://{listening}/v1/tiny/predict", json={"price": 1})
    assert (full.status_code, full.headers["retry-after"]) == (DELIBERATE, "1")
    assert httpx.get(f"http://{listening}/health").status_code == 200
    time.sleep(1)
    assert httpx.post(f"http://{listening}/v1/tiny/predict", json={"price": 1}).status_code == 200
    assert b" 408 " in stuck[0].recv(100)
    for client in stuck:
        client.close()


@pytest.mark.parametrize(
    "endless", [b"a" * 1_000_000, b"a: b\r\n" * 150_000], ids=["one header", "headers"]
)
def test_headers_without_end_do_not_fill_the_memory(address: str, endless: bytes):
    host, port = address.split(":")
    before = psutil.Process().memory_info().rss
    with socket.create_connection((host, int(port))) as stranger:
        stranger.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nA: ")
        assert ends(lambda: stranger.sendall(endless), 50)
    assert psutil.Process().memory_info().rss - before < 20_000_000


def test_clients_that_ask_nothing_or_read_nothing_lose_their_connection(address: str, monkeypatch):
    monkeypatch.setattr(connections, "IDLE_SECONDS", 1.0)
    host, port = address.split(":")
    silent, deaf = (socket.create_connection((host, int(port)), timeout=10) for _ in range(2))
    with silent, deaf:
        assert ends(
            lambda: deaf.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 1_000), 10_000
        )
        assert ends(lambda: silent.recv(1), 1)
    assert httpx.get(f"http://{address}/health").status_code == 200


def test_a_connection_whose_answer_was_read_is_kept_for_the_next_request(address: str, monkeypatch):
    monkeypatch.setattr(connections, "IDLE_SECONDS", 0.5)
    host, port = address.split(":")
    balancer, slow = (socket.create_connection((host, int(port)), timeout=10) for _ in range(2))
    with balancer, slow:
        ask(balancer)
        ask(slow)
        slow.sendall(b"GET /hea")
        time.sleep(3)
        ask(balancer)
        assert ends(lambda: slow.recv(1), 1), "a request that is never finished is none"


def test_a_kept_connection_is_closed_after_the_time_that_was_set(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KREISLAUF_TRITON_URL", "127.0.0.1:1")
    monkeypatch.setenv("KREISLAUF_KEEP_ALIVE_S", "1")
    with running() as gateway:
        host, port = gateway.split(":")
        with socket.create_connection((host, int(port)), timeout=10) as client:
            ask(client)
            assert ends(lambda: client.recv(1), 1)


def ask(client: socket.socket) -> None:
    """Ask on an open connection, and read the whole answer."""
    client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = b""
    while not answer.endswith(b"}"):
        more = client.recv(1_000)
        assert more, "the connection was closed"
        answer += more


def test_more_connections_than_there_are_file_handles_for_are_closed(address: str, monkeypatch):
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 20)
    host, port = address.split(":")
    many = [socket.create_connection((host, int(port)), timeout=10) for _ in range(30)]
    time.sleep(0.5)
    for client in many[:20]:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 200 " in client.recv(100)
    for client in many[20:]:
        assert ends(lambda client=client: client.recv(1), 1)
        client.close()
    for client in many[:20]:
        client.close()


def ends(step: Callable[[], bytes | None], times: int) -> bool:
    """Whether the gateway closes the connection within so many steps."""
    try:
        return any(step() == b"" for _ in range(times))
    except ConnectionError:
        return True
