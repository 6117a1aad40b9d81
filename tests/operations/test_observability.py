"""`make up` brings Prometheus, Alertmanager, the bridge and Grafana, where they are installed."""

import json
import os
import sys
from pathlib import Path

import httpx
import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.events.filters import EventFilter, EventNameFilter

from deployments import grafana_server, observability, processes, stack, status
from tests.operations.conftest import start
from tests.waiting import until

SERVERS = ("postgres", "prefect", "triton", "gateway", "bridge", "alertmanager", "prometheus")


def test_without_prometheus_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setattr(observability, "program", lambda name: None)
    monkeypatch.setattr(grafana_server, "program", lambda: "/usr/bin/grafana")
    assert observability.installed() == ()
    assert "Without alertmanager and prometheus" in observability.hint()
    assert "apt-get install prometheus prometheus-alertmanager" in observability.hint()


def test_without_grafana_the_others_are_started_and_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setattr(observability, "program", lambda name: name)
    monkeypatch.setattr(grafana_server, "program", lambda: None)
    assert observability.installed() == ("bridge", "alertmanager", "prometheus")
    assert observability.hint().startswith("Without grafana: nobody draws the dashboard.")
    monkeypatch.setattr(grafana_server, "program", lambda: "/usr/bin/grafana")
    assert observability.installed() == ("bridge", "alertmanager", "prometheus", "grafana")
    assert observability.hint() == ""


STAND_IN = """#!{python}
# Not Grafana, which neither Debian nor PyPI has: it notes how it was started, and is healthy.
import http.server, json, os, sys

class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/api/health" else 404)
        self.end_headers()

with open(os.environ["GF_PATHS_DATA"] + ".json", "w") as file:
    json.dump([sys.argv[1:], dict(os.environ)], file)
address = os.environ["GF_SERVER_HTTP_ADDR"], int(os.environ["GF_SERVER_HTTP_PORT"])
http.server.HTTPServer(address, Health).serve_forever()
"""


@pytest.fixture
def grafana(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of a stand-in for Grafana, laid out as its archive is, on the path."""
    folder = tmp_path / "grafana-13"
    (folder / "conf").mkdir(parents=True)
    (folder / "conf" / "defaults.ini").touch()
    (folder / "bin").mkdir()
    program = folder / "bin" / "grafana"
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    return folder


def test_grafana_gets_the_dashboard_and_the_running_prometheus(home, grafana, capsys):
    idle = [sys.executable, "-c", "import time; time.sleep(999)"]
    prometheus = {**processes.spawn("prometheus", idle, home, os.environ), "url": "http://p:1"}
    processes.write(home, {"prometheus": prometheus})
    try:
        running = stack.up(home, ("grafana",))
        assert capsys.readouterr().out == ""
        record = running["grafana"]
        assert processes.answers(f"{record['url']}/api/health")
        line = next(line for line in status.show(running).splitlines() if "grafana" in line)
        assert line == f"grafana      runs  {record['url']}"
        words, env = json.loads((home / "grafana" / "data.json").read_text())
        assert words == ["server", f"--homepath={grafana}"]
        assert env["GF_SECURITY_ADMIN_PASSWORD"] == (home / "grafana" / "password").read_text()
        assert (home / "grafana" / "password").stat().st_mode & 0o077 == 0

        provisioning = Path(env["GF_PATHS_PROVISIONING"])
        sources = yaml.safe_load((provisioning / "datasources" / "kreislauf.yaml").read_text())
        (source,) = sources["datasources"]
        assert (source["type"], source["url"], source["isDefault"]) == (
            "prometheus",
            "http://p:1",
            True,
        )
        providers = yaml.safe_load((provisioning / "dashboards" / "kreislauf.yaml").read_text())
        folder = Path(providers["providers"][0]["options"]["path"])
        boards = {file: json.loads(file.read_text())["uid"] for file in folder.glob("*.json")}
        assert boards[Path(env["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])] == "kreislauf"

        assert stack.up(home, ("grafana",)) == running, "a second `make up` leaves it alone"
        processes.stop(record)
        assert stack.up(home, ("grafana",))["grafana"]["url"] == record["url"], "the port is kept"
    finally:
        stack.down(home)
    assert not processes.answers(f"{record['url']}/api/health")


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
