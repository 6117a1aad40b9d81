"""Debian's Prometheus: the rules, and the dashboard's every PromQL on what a real gateway said."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import yaml

from deployments import dashboards, processes
from kreislauf.monitoring import status
from tests.conftest import ROOT
from tests.test_bridge import read_events

pytestmark = pytest.mark.system
RULES = ROOT / "deployments" / "prometheus"


@pytest.mark.parametrize(
    "command",
    [
        ["promtool", "check", "config", "prometheus.yaml"],
        ["promtool", "check", "rules", "alerts.yaml"],
        ["promtool", "test", "rules", "alerts.test.yaml"],
        ["amtool", "check-config", "alertmanager.yaml"],
    ],
    ids=lambda command: " ".join(command[:3]),
)
def test_the_configuration_is_as_the_tools_want_it(command: list[str]):
    done = subprocess.run(command, cwd=RULES, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_test():
    alerts = {
        rule["alert"]
        for rule in yaml.safe_load((RULES / "alerts.yaml").read_text())["groups"][0]["rules"][1:]
    }
    tests = yaml.safe_load((RULES / "alerts.test.yaml").read_text())["tests"]
    fired = {
        case["alertname"]
        for test in tests
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }
    assert fired == alerts


@contextmanager
def running(
    folder: Path, targets: dict[str, str], alertmanager: str = "127.0.0.1:1"
) -> Iterator[str]:
    """Address of a Prometheus that scrapes these targets, by job, every second, with our rules,
    none of which waits."""
    config = yaml.safe_load((RULES / "prometheus.yaml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
    for job in config["scrape_configs"]:
        job["static_configs"][0]["targets"] = [targets[job["job_name"]]]
    rules = re.sub(r"for: \d+[mh]", "for: 0s", (RULES / "alerts.yaml").read_text())
    (folder / "alerts.yaml").write_text(rules)
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{processes.free_port()}"
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    with started("prometheus", command, folder, f"http://{address}/-/ready"):
        yield f"http://{address}"


@contextmanager
def started(name: str, command: list[str], folder: Path, probe: str, **env: str) -> Iterator[None]:
    """A server process, until it is no longer wanted."""
    record = processes.spawn(name, command, folder, os.environ | env)
    try:
        processes.wait(record, probe, 60)
        yield
    finally:
        processes.stop(record)


@pytest.fixture
def prometheus(listening: str, triton: dict, tmp_path: Path) -> Iterator[str]:
    """Address of a Prometheus that scrapes a gateway and Triton."""
    signals = {"accuracy": status.SignalStatus(value=0.8, mean=0.9, tolerance=0.05)}
    now = int(time.time() * 1000)
    status.write(
        status.MonitorStatus(
            model="tiny", version=1, end=now, at=now, verdict="concept drift", signals=signals
        )
    )
    targets = {"gateway": listening, "triton": urllib.parse.urlparse(triton["metrics"]).netloc}
    with running(tmp_path, targets) as address:
        yield address


def test_an_alert_of_prometheus_goes_through_alertmanager_and_the_bridge_to_prefect(
    prefect_harness, tmp_path: Path
):
    from prefect.settings import PREFECT_API_URL

    since, bridge, manager = (
        datetime.now(UTC),
        processes.free_port(),
        f"127.0.0.1:{processes.free_port()}",
    )
    (tmp_path / "bridge-token").write_text("secret")
    config = (
        (RULES / "alertmanager.yaml")
        .read_text()
        .replace("8090", str(bridge))
        .replace("group_wait: 5s", "group_wait: 0s")
    )
    (tmp_path / "alertmanager.yaml").write_text(config)
    command = [
        "prometheus-alertmanager",
        f"--config.file={tmp_path / 'alertmanager.yaml'}",
        f"--storage.path={tmp_path / 'alerts'}",
        f"--web.listen-address={manager}",
        "--cluster.listen-address=",
    ]
    env = {
        "KREISLAUF_BRIDGE_TOKEN": "secret",
        "PREFECT_API_URL": str(PREFECT_API_URL.value()),
        "PYTHONPATH": str(ROOT),
    }
    unreachable = {"gateway": "127.0.0.1:1", "triton": "127.0.0.1:1"}
    with (
        started(
            "bridge",
            [sys.executable, "-m", "deployments.bridge", "--port", str(bridge)],
            tmp_path,
            f"http://127.0.0.1:{bridge}/health",
            **env,
        ),
        started("alertmanager", command, tmp_path, f"http://{manager}/-/ready"),
        running(tmp_path, unreachable, manager),
    ):
        (event,) = read_events("kreislauf.alert", since)
    assert event.resource["prefect.resource.id"] == "kreislauf.alert.GatewayDown"
    assert "127.0.0.1:1 cannot be reached" in event.payload["reason"]


def query(prometheus: str, expression: str) -> list:
    parameters = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(f"{prometheus}/api/v1/query?{parameters}") as response:
        return json.load(response)["data"]["result"]


def curves() -> list[str]:
    """PromQL of the dashboard."""
    panels = json.loads(dashboards.FILE.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def of_model(expression: str, chosen: str) -> str:
    """PromQL of a curve as Grafana asks for it, for the models that are chosen."""
    return expression.replace("$__rate_interval", "10s").replace("$model", chosen)


def test_every_curve_of_the_dashboard_has_data_from_a_real_gateway(prometheus: str, listening: str):
    wanted = {of_model(expression, ".*") for expression in curves()}
    end, missing = time.monotonic() + 60, wanted
    while missing:
        assert time.monotonic() < end, missing
        ask(listening)
        missing = {expression for expression in wanted if not query(prometheus, expression)}
    assert all(query(prometheus, of_model(expression, "tiny|other")) for expression in curves())
    assert [
        expression
        for expression in curves()
        if query(prometheus, of_model(expression, "other")) and "lost_lines" not in expression
    ] == []
    (choice,) = json.loads(dashboards.FILE.read_text())["templating"]["list"]
    series, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", choice["query"]).groups()
    assert {each["metric"][label] for each in query(prometheus, series)} == {"tiny"}
    assert query(prometheus, 'up{job="gateway"}')[0]["value"][1] == "1"
    with urllib.request.urlopen(f"{prometheus}/api/v1/rules") as response:
        (group,) = json.load(response)["data"]["groups"]
    assert {rule["health"] for rule in group["rules"]} == {"ok"}


def ask(gateway: str) -> None:
    """One answer with all that can follow from it, and a request that is refused."""
    answer = httpx.post(f"http://{gateway}/v1/tiny/predict", json={"price": 150}).json()
    for event in ("click", "cart", "order"):
        feedback = {
            "request_id": answer["request_id"],
            "model": "tiny",
            "kind": event,
            "item": True,
        }
        assert httpx.post(f"http://{gateway}/v1/feedback", json=feedback).status_code == 204
    assert httpx.post(f"http://{gateway}/v1/tiny/predict", json={}).status_code == 422


def test_the_dashboard_is_what_the_code_makes():
    assert dashboards.FILE.read_text() == dashboards.text()
