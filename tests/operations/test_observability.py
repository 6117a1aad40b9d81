"""`make up` brings Prometheus, Alertmanager and the bridge, where they are installed."""

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.events.filters import EventFilter, EventNameFilter

from deployments import observability, processes, stack
from tests.operations.conftest import start
from tests.stream_tools import until

SERVERS = ("postgres", "prefect", "triton", "gateway", "bridge", "alertmanager", "prometheus")


def test_without_prometheus_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setattr(observability, "program", lambda name: None)
    assert observability.installed() == ()
    assert "Without alertmanager and prometheus" in observability.hint()
    assert "apt-get install prometheus prometheus-alertmanager" in observability.hint()


@pytest.mark.system
def test_prometheus_sees_the_stack_and_its_alerts_reach_prefect(tmp_path, monkeypatch):
    monkeypatch.setenv("KREISLAUF_GATEWAY_TOKEN", "secret-token")
    home = tmp_path / "home"
    running = start(home, SERVERS)
    try:
        until(lambda: targets(running) == {"gateway": "up", "triton": "up"}, 120, "both are seen")
        rules = httpx.get(f"{running['prometheus']['url']}/api/v1/rules").json()["data"]["groups"]
        assert rules[0]["rules"]
        managers = httpx.get(f"{running['prometheus']['url']}/api/v1/alertmanagers").json()
        (manager,) = managers["data"]["activeAlertmanagers"]
        assert manager["url"].startswith(running["alertmanager"]["url"])
        for file in (home / "prometheus").glob("*"):
            if file.is_file():
                assert file.stat().st_mode & 0o077 == 0, f"{file} may hold a token"

        alert = {"labels": {"alertname": "Test", "model": "tiny", "severity": "page"}}
        httpx.post(f"{running['alertmanager']['url']}/api/v2/alerts", json=[alert])
        until(lambda: alerts(running) == 1, 120, "Prefect hears of the alert")
        assert all(processes.find(record) for record in running.values())
        assert start(home, SERVERS) == running, "a second `make up` leaves them alone"
    finally:
        stack.down(home)


def targets(running: dict) -> dict[str, str]:
    """Health of what Prometheus scrapes, by job."""
    answer = httpx.get(f"{running['prometheus']['url']}/api/v1/targets").json()
    return {each["labels"]["job"]: each["health"] for each in answer["data"]["activeTargets"]}


def alerts(running: dict) -> int:
    """Number of alerts that Prefect has heard of."""
    with SyncPrefectClient(running["prefect"]["api"]) as client:
        wanted = EventFilter(event=EventNameFilter(name=["kreislauf.alert"]))
        return len(client.read_events(wanted, limit=10).events)
