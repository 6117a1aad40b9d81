"""What watches the stack, where it is installed: Prometheus, Alertmanager, the bridge, Grafana.

Their configuration is the shipped one, with the addresses of the servers that run. The bridge's
token is made once, and only its owner can read it.
"""

import os
import secrets
import shutil
import sys
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from deployments import grafana_server, processes
from deployments.environment import ROOT, python_path
from kreislauf import private_file
from kreislauf.settings import settings

RULES = ROOT / "deployments" / "prometheus"
PROGRAMS = {
    "alertmanager": ("prometheus-alertmanager", "alertmanager"),
    "prometheus": ("prometheus",),
}
"""Servers by the names that their programs have on Debian, and where they come from."""


def installed() -> tuple[str, ...]:
    """Names of the servers that can be started: without Prometheus and Alertmanager none."""
    if not all(program(name) for name in PROGRAMS):
        return ()
    if not grafana_server.program():
        return ("bridge", *PROGRAMS)
    return ("bridge", *PROGRAMS, "grafana")


def hint() -> str:
    """How to get what is not installed; empty if nothing is missing."""
    missing = [name for name in PROGRAMS if not program(name)]
    sentences = []
    if missing:
        sentences.append(
            f"Without {' and '.join(missing)}: nobody watches clicks and latency. `apt-get install "
            "prometheus prometheus-alertmanager`, and `make up` starts them, too."
        )
    if not grafana_server.program():
        sentences.append(
            "Without grafana: nobody draws the dashboard. Debian has no package of it: install it "
            "as grafana.com/docs/grafana/latest/setup-grafana/installation says, and `make up` "
            "starts it beside Prometheus."
        )
    return "\n".join(sentences)


def program(name: str) -> str | None:
    """Path of the server's program; None if it is not installed."""
    return next(filter(None, map(shutil.which, PROGRAMS[name])), None)


def start_bridge(home: Path, running: dict) -> dict:
    """Alertmanager's alerts into Prefect's events."""
    port = processes.lasting_port(home, "bridge")
    env = {
        **os.environ,
        "KREISLAUF_HOME": str(home),
        "KREISLAUF_BRIDGE_TOKEN": bridge_token(home).read_text(),
        "PREFECT_API_URL": running["prefect"]["api"],
        "PYTHONPATH": python_path(),
    }
    command = [sys.executable, "-m", "deployments.bridge", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    return {**processes.spawn("bridge", command, home, env), "url": url, "probe": f"{url}/health"}


def bridge_token(home: Path) -> Path:
    """File with the bridge's token."""
    path = home / "prometheus" / "bridge-token"
    private_file.kept(path, secrets.token_urlsafe(32))
    return path


def start_alertmanager(home: Path, running: dict) -> dict:
    """Alertmanager, which sends each alert to the bridge."""
    config = yaml.safe_load((RULES / "alertmanager.yaml").read_text())
    (webhook,) = config["receivers"][0]["webhook_configs"]
    webhook["url"] = f"{running['bridge']['url']}/alerts"
    webhook["http_config"]["authorization"]["credentials_file"] = str(bridge_token(home))
    options = (f"--storage.path={home / 'prometheus' / 'alerts'}", "--cluster.listen-address=")
    return start(home, "alertmanager", config, options)


def start_prometheus(home: Path, running: dict) -> dict:
    """Prometheus, which watches the gateway and Triton of this stack."""
    config = yaml.safe_load((RULES / "prometheus.yaml").read_text())
    config["rule_files"] = [str(RULES / "alerts.yaml")]
    alertmanagers = [{"targets": [urlsplit(running["alertmanager"]["url"]).netloc]}]
    config["alerting"]["alertmanagers"] = [{"static_configs": alertmanagers}]
    addresses = {"gateway": running["gateway"]["url"], "triton": running["triton"]["metrics"]}
    for job in config["scrape_configs"]:
        job["static_configs"] = [{"targets": [urlsplit(addresses[job["job_name"]]).netloc]}]
        token = settings().gateway_token
        if token and job["job_name"] == "gateway":
            job["authorization"] = {"credentials": token}
    options = (f"--storage.tsdb.path={home / 'prometheus' / 'data'}",)
    return start(home, "prometheus", config, options)


def start(home: Path, name: str, config: dict, options: tuple[str, ...]) -> dict:
    """Start a server of `PROGRAMS` with a configuration and further options. Returns its record."""
    file = home / "prometheus" / f"{name}.yaml"
    private_file.write(file, yaml.safe_dump(config))
    address = f"127.0.0.1:{processes.lasting_port(home, name)}"
    command = [program(name) or "", f"--config.file={file}", f"--web.listen-address={address}"]
    record = processes.spawn(name, [*command, *options], home, os.environ)
    return {**record, "url": f"http://{address}", "probe": f"http://{address}/-/ready"}
