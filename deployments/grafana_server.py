"""Grafana beside the stack, where it is installed: it opens with our dashboard, which reads from
the stack's Prometheus. Whoever gets to this machine's loopback may look; to change something, log
in as `admin` with the password in the home's `grafana/password`.
"""

import os
import secrets
import shutil
from pathlib import Path
from typing import Any

import yaml

from deployments import processes
from deployments.environment import ROOT
from kreislauf import private_file

PROGRAMS = ("grafana", "grafana-server", "/usr/share/grafana/bin/grafana")
"""Names that the server has; its package keeps it where not everybody's PATH leads."""
DASHBOARDS = ROOT / "deployments" / "grafana"
OFFLINE = {
    "GF_ANALYTICS_REPORTING_ENABLED": "false",
    "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
    "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
    "GF_PLUGINS_PREINSTALL_DISABLED": "true",
}
"""Settings with which Grafana asks nobody outside."""


def program() -> str | None:
    """Path of the server; None if it is not installed."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


def installation(server: str) -> Path:
    """Folder of Grafana's own files, which it does not find by itself. Raises StartError."""
    prefix = Path(server).resolve().parent.parent
    candidates = (prefix, prefix / "share" / "grafana", Path("/usr/share/grafana"))
    for folder in candidates:
        if (folder / "conf" / "defaults.ini").exists():
            return folder
    raise processes.StartError(
        f"Grafana's own files (conf/defaults.ini) are in none of {', '.join(map(str, candidates))}."
    )


def start(home: Path, running: dict) -> dict:
    """Grafana, with the running Prometheus and the shipped dashboard. Returns its record."""
    server = program() or PROGRAMS[0]
    command = [server, f"--homepath={installation(server)}"]
    if Path(server).name == "grafana":
        command.insert(1, "server")
    folder = home / "grafana"
    write_provisioning(folder / "provisioning", running["prometheus"]["url"])
    port = processes.lasting_port(home, "grafana")
    env = {
        **os.environ,
        **OFFLINE,
        "GF_SERVER_HTTP_ADDR": "127.0.0.1",
        "GF_SERVER_HTTP_PORT": str(port),
        "GF_PATHS_DATA": str(folder / "data"),
        "GF_PATHS_LOGS": str(folder / "logs"),
        "GF_PATHS_PLUGINS": str(folder / "plugins"),
        "GF_PATHS_PROVISIONING": str(folder / "provisioning"),
        "GF_SECURITY_ADMIN_PASSWORD": password(folder / "password"),
        "GF_AUTH_ANONYMOUS_ENABLED": "true",
        "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": str(DASHBOARDS / "kreislauf.json"),
    }
    url = f"http://127.0.0.1:{port}"
    record = processes.spawn("grafana", command, home, env)
    return {**record, "url": url, "probe": f"{url}/api/health"}


def write_provisioning(folder: Path, prometheus: str) -> None:
    """Write what Grafana reads at its start: where the numbers and the dashboards are."""
    source: dict[str, Any] = {"name": "Prometheus", "uid": "kreislauf", "type": "prometheus"}
    source |= {"access": "proxy", "url": prometheus, "isDefault": True}
    # Grafana takes a dollar for the beginning of a variable.
    path = str(DASHBOARDS).replace("$", "$$")
    provider: dict[str, Any] = {"name": "kreislauf", "type": "file", "options": {"path": path}}
    files: dict[str, dict] = {
        "datasources": {"datasources": [source]},
        "dashboards": {"providers": [provider]},
    }
    for kind, content in files.items():
        file = folder / kind / "kreislauf.yaml"
        private_file.write(file, yaml.safe_dump({"apiVersion": 1, **content}))


def password(file: Path) -> str:
    """The password of `admin`, made once."""
    return private_file.kept(file, secrets.token_urlsafe(16))
