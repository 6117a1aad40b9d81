"""Alertmanager's webhook becomes events of a real Prefect server, each once."""

import time
from datetime import UTC, datetime

import pytest
from fastapi.testclient import TestClient
from prefect.client.orchestration import get_client
from prefect.events.filters import EventFilter, EventNameFilter, EventOccurredFilter

from deployments import bridge

TOKEN = {"Authorization": "Bearer secret"}


def alert(name: str, started: datetime, **changed: object) -> dict:
    return {
        "status": "firing",
        "labels": {"alertname": name, "model": "tiny"},
        "annotations": {"summary": f"{name}!"},
        "startsAt": started.isoformat(),
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "",
        "fingerprint": name,
    } | changed


def read_events(name: str, since: datetime) -> list:
    """The server stores what it took a little later."""
    end = time.monotonic() + 60
    with get_client(sync_client=True) as client:
        while True:
            # Until now, because nothing else is said.
            wanted = EventFilter(
                event=EventNameFilter(name=[name]), occurred=EventOccurredFilter(since=since)
            )
            if events := client.read_events(filter=wanted, limit=50).events:
                return events
            assert time.monotonic() < end, f"no {name}"
            time.sleep(0.2)


def test_an_alert_is_an_event_once_and_its_end_another(prefect_harness):
    start, app = datetime.now(UTC), TestClient(bridge.create("secret"))
    falling = alert(
        "Fell", start, labels={"alertname": "Fell", "model": "tiny", "event": "kreislauf.kpi.fell"}
    )
    for _ in range(2):
        assert (
            app.post(
                "/alerts", json={"alerts": [falling, alert("Slow", start)]}, headers=TOKEN
            ).status_code
            == 204
        )
    # Another bridge, that remembers nothing: the event has the same id.
    again = TestClient(bridge.create("secret"))
    assert again.post("/alerts", json={"alerts": [falling]}, headers=TOKEN).status_code == 204
    over = falling | {"status": "resolved", "endsAt": datetime.now(UTC).isoformat()}
    assert app.post("/alerts", json={"alerts": [over]}, headers=TOKEN).status_code == 204
    assert len(read_events("kreislauf.alert.resolved", start)) == 1
    assert len(read_events("kreislauf.alert", start)) == 1
    (fell,) = read_events("kreislauf.kpi.fell", start)
    assert fell.resource["prefect.resource.id"] == "kreislauf.model.tiny"
    assert (fell.payload["model"], fell.payload["reason"], fell.payload["alert"]) == (
        "tiny",
        "Fell!",
        "Fell",
    )


def test_an_alert_cannot_name_any_event_it_likes():
    sent = alert(
        "X", datetime.now(UTC), labels={"alertname": "X", "event": "prefect.flow-run.Completed"}
    )
    event = bridge.as_event(bridge.Alert.model_validate(sent))
    assert (event["event"], event["resource"]["prefect.resource.id"]) == (
        "kreislauf.alert",
        "kreislauf.alert.X",
    )


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer wrong"}])
def test_a_stranger_s_alert_is_refused(header: dict):
    app = TestClient(bridge.create("secret"))
    assert app.post("/alerts", json={"alerts": []}, headers=header).status_code == 401


def test_without_a_token_there_is_no_bridge():
    with pytest.raises(ValueError, match="KREISLAUF_BRIDGE_TOKEN"):
        bridge.create("")


def test_alertmanager_is_told_to_come_back_when_prefect_is_gone(monkeypatch):
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with temporary_settings(
        {PREFECT_API_URL: "http://127.0.0.1:1/api", PREFECT_CLIENT_MAX_RETRIES: 0}
    ):
        app = TestClient(bridge.create("secret"))
        sent = {"alerts": [alert("Slow", datetime.now(UTC))]}
        assert app.post("/alerts", json=sent, headers=TOKEN).status_code == 503
