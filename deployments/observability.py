"""Prometheus, Alertmanager and the bridge beside the stack, where they are installed.

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

from deployments import processes
from deployments.environment import ROOT, python_path
from kreislauf.settings import settings

RULES = ROOT / "deployments" / "prometheus"
PROGRAMS = {
    "alertmanager": ("prometheus-alertmanager", "alertmanager"),
    "prometheus": ("prometheus",),
}
"""Servers by the names that their programs have on Debian, and where they come from."""


def installed() -> tuple[str, ...]:
    """Names of the servers that can be started: all of them or, without Prometheus, none."""
    if all(program(name) for name in PROGRAMS):
        return ("bridge", *PROGRAMS)
    return ()


def hint() -> str:
    """How to get what is not installed; empty if nothing is missing."""
    missing = [name for name in PROGRAMS if not program(name)]
    if not missing:
        return ""
    return (
        f"Without {' and '.join(missing)}: nobody watches clicks and latency. `apt-get install "
        "prometheus prometheus-alertmanager`, and `make up` starts them, too."
    )


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
    if not path.exists():
        write(path, secrets.token_urlsafe(32))
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
    write(file, yaml.safe_dump(config))
    address = f"127.0.0.1:{processes.lasting_port(home, name)}"
    command = [program(name) or "", f"--config.file={file}", f"--web.listen-address={address}"]
    record = processes.spawn(name, [*command, *options], home, os.environ)
    return {**record, "url": f"http://{address}", "probe": f"http://{address}/-/ready"}


def write(path: Path, content: str) -> None:
    """Write a file at once that only its owner can read, because it may hold a token."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.draft")
    draft.touch(mode=0o600)
    draft.write_text(content)
    draft.replace(path)
