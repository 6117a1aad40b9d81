"""Debian's Prometheus: the rules, and the dashboard's every PromQL on what a real gateway said."""

import json
import os
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from deployments import dashboards, processes
from tests.conftest import ROOT

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
    alerts = {rule["alert"] for rule in yaml.safe_load((RULES / "alerts.yaml").read_text())["groups"][0]["rules"][1:]}
    told = yaml.safe_load((RULES / "alerts.test.yaml").read_text())["tests"]
    fired = {case["alertname"] for test in told for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert fired == alerts


@pytest.fixture
def prometheus(listening: str, triton: dict, tmp_path: Path) -> Iterator[str]:
    """Address of a Prometheus that scrapes the gateway and Triton every second, with our rules."""
    config = yaml.safe_load((RULES / "prometheus.yaml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    targets = {"gateway": listening, "triton": urllib.parse.urlparse(triton["metrics"]).netloc}
    for job in config["scrape_configs"]:
        job["static_configs"][0]["targets"] = [targets[job["job_name"]]]
    shutil.copy(RULES / "alerts.yaml", tmp_path)
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config))
    port = processes.free_port()
    command = [
        "prometheus", f"--config.file={tmp_path / 'prometheus.yaml'}", f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    record = processes.spawn("prometheus", command, tmp_path, os.environ)
    try:
        processes.wait(record, f"http://127.0.0.1:{port}/-/ready", 60)
        yield f"http://127.0.0.1:{port}"
    finally:
        processes.stop(record)


def query(prometheus: str, expression: str) -> list:
    told = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(f"{prometheus}/api/v1/query?{told}") as response:
        return json.load(response)["data"]["result"]


def curves() -> list[str]:
    """PromQL of the dashboard."""
    panels = json.loads(dashboards.FILE.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def test_every_curve_of_the_dashboard_has_data_from_a_real_gateway(prometheus: str, listening: str):
    expressions = [expression.replace("$__rate_interval", "10s") for expression in curves()]
    # Nothing is lost and Triton is there: these two have no data, and must only be valid.
    silent = ("kreislauf_lost_lines_total", "kreislauf_fallbacks_total")
    wanted = {expression for expression in expressions if not any(name in expression for name in silent)}
    end, missing = time.monotonic() + 60, wanted
    while missing:
        assert time.monotonic() < end, missing
        ask(listening)
        missing = {expression for expression in wanted if not query(prometheus, expression)}
    for expression in set(expressions) - wanted:
        query(prometheus, expression)
    assert query(prometheus, 'up{job="gateway"}')[0]["value"][1] == "1"
    with urllib.request.urlopen(f"{prometheus}/api/v1/rules") as response:
        (group,) = json.load(response)["data"]["groups"]
    assert {rule["health"] for rule in group["rules"]} == {"ok"}


def ask(gateway: str) -> None:
    """One answer with all that can follow from it, and a request that is refused."""
    found = httpx.post(f"http://{gateway}/v1/tiny/predict", json={"price": 150}).json()
    for kind in ("click", "cart", "order"):
        told = {"request_id": found["request_id"], "model": "tiny", "kind": kind, "item": True}
        assert httpx.post(f"http://{gateway}/v1/feedback", json=told).status_code == 204
    assert httpx.post(f"http://{gateway}/v1/tiny/predict", json={}).status_code == 422


def test_the_dashboard_is_what_the_code_makes():
    assert dashboards.FILE.read_text() == dashboards.text()
