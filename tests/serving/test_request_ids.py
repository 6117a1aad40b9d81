"""Feedback is taken for answers that the gateway gave, and for no others."""

import logging
import subprocess
import sys
from hashlib import blake2b
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from deployments import processes
from kreislauf.exposures import Exposure, Feedback
from kreislauf.settings import settings
from serving.app import create
from tests.conftest import ROOT
from tests.serving.test_gateway import ask, metric, spooled

GIVEN = "given-" + 30 * "s"


def react(gateway: TestClient, request_id: str, model: str = "tiny"):
    """The response to a click on the answer with this id."""
    click = {"request_id": request_id, "model": model, "kind": "click", "item": True}
    return gateway.post("/v1/feedback", json=click)


def test_feedback_for_an_answer_that_was_never_given_is_refused(gateway: TestClient):
    assert react(gateway, f"{'0' * 32}.champion.1").status_code == 422
    given = ask(gateway)["request_id"]
    unique, variant, version, signature = given.split(".")
    made_up = [
        f"{'0' * 32}.{variant}.{version}.{signature}",
        f"{unique}.{variant}.{version}",
        f"{unique}.challenger.{version}.{signature}",
        f"{unique}.{variant}.2.{signature}",
        f"{unique}.{variant}.{version}.{'0' * 32}",
        f"{given}.",
        f" {given}",
        "...",
        "",
        "ä.champion.1.ö",
    ]
    for request_id in made_up:
        response = react(gateway, request_id)
        assert response.status_code == 422, request_id
        assert "send it back as it came" in response.json()["detail"]
    assert react(gateway, given, model="session_recommender").status_code == 422
    assert spooled(1, Feedback) == []
    assert metric(gateway, "kreislauf_feedback_total") == 0
    assert react(gateway, given).status_code == 204


def test_a_restarted_gateway_takes_feedback_for_its_earlier_answers(live):
    live(1)
    with TestClient(create(settings())) as gateway:
        request_id = ask(gateway, user=7)["request_id"]
    with TestClient(create(settings())) as gateway:
        assert react(gateway, request_id).status_code == 204
        ask(gateway, user=7)
    first, second = spooled(0, Exposure)
    assert first.user == second.user


def test_gateways_with_the_same_secret_take_each_others_feedback(
    live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    live(1)
    monkeypatch.setenv("KREISLAUF_RELEASES", settings().releases)
    monkeypatch.setenv("KREISLAUF_GATEWAY_SECRET", GIVEN)
    with TestClient(create(settings())) as gateway:
        request_id = ask(gateway, user=7)["request_id"]
    exposure = spooled(0, Exposure)[0]
    monkeypatch.setenv("KREISLAUF_HOME", str(tmp_path / "replica"))
    with TestClient(create(settings())) as replica:
        assert react(replica, request_id).status_code == 204
        ask(replica, user=7)
    assert spooled(0, Exposure)[0].user == exposure.user
    monkeypatch.setenv("KREISLAUF_GATEWAY_SECRET", GIVEN + "!")
    with TestClient(create(settings())) as stranger:
        response = react(stranger, request_id)
        ask(stranger, user=7)
    assert response.status_code == 422
    assert "the same KREISLAUF_GATEWAY_SECRET" in response.json()["detail"]
    assert exposure.user != spooled(0, Exposure)[1].user


def test_users_are_not_stored_by_a_hash_that_everybody_can_make(gateway: TestClient):
    for user in (7, "anna"):
        ask(gateway, user=user)
    hashes = {blake2b(user.encode(), digest_size=8).hexdigest() for user in ("7", "anna")}
    assert not {line.user for line in spooled(0, Exposure)} & hashes


@pytest.mark.parametrize("source", ["environment", "file"])
def test_the_secret_is_in_no_answer_no_line_and_no_message(
    source: str, live, home: Path, monkeypatch, caplog, capfd
):
    if source == "environment":
        monkeypatch.setenv("KREISLAUF_GATEWAY_SECRET", GIVEN)
    caplog.set_level(logging.DEBUG)
    live(1)
    texts = []
    with TestClient(create(settings())) as gateway:
        request_id = ask(gateway, user=7)["request_id"]
        for response in (
            react(gateway, request_id),
            react(gateway, "made up"),
            gateway.get("/metrics"),
            gateway.get("/ready"),
            gateway.get("/openapi.json"),
        ):
            texts.append(response.text)
    file = home / "gateway" / "secret"
    secret = GIVEN
    if source == "file":
        secret = file.read_text()
    texts += [request_id, caplog.text, *capfd.readouterr()]
    kept = [path for path in home.rglob("*") if path.is_file() and path != file]
    assert any("exposures" in path.parts for path in kept)
    texts += [path.read_text(errors="replace") for path in kept]
    assert not [text for text in texts if secret in text]


def test_a_gateway_with_a_secret_that_can_be_guessed_does_not_start(monkeypatch):
    monkeypatch.setenv("KREISLAUF_GATEWAY_SECRET", "hunter2")
    command = [sys.executable, "-m", "serving.app", "--port", str(processes.free_port())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "KREISLAUF_GATEWAY_SECRET has 7 characters" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
