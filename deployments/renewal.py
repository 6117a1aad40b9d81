"""Which servers `make up` starts anew: those whose settings, code or packages are others now."""

import hashlib
import os
from collections.abc import Collection, Iterable, Mapping

from deployments import environment
from deployments.environment import ROOT
from kreislauf.settings import settings

CODE = {
    "prefect": ("constraints.txt", "deployments/stack.py"),
    "mlflow": ("constraints.txt", "deployments/stack.py"),
    "triton": ("deployments/triton", "deployments/triton_server.py"),
    "gateway": ("constraints.txt", "serving", "kreislauf", "models"),
    "worker": ("constraints.txt", "deployments/stack.py", "deployments/worker.py"),
    "bridge": ("constraints.txt", "deployments/bridge.py", "kreislauf"),
    "alertmanager": ("deployments/observability.py", "deployments/prometheus/alertmanager.yaml"),
    "prometheus": (
        "deployments/observability.py",
        "deployments/prometheus/alerts.yaml",
        "deployments/prometheus/prometheus.yaml",
    ),
    "grafana": ("deployments/grafana_server.py", "deployments/grafana"),
}
"""Files and folders of the checkout that a server is made of. Each run of the worker reads its own
anew."""
DEPLOYMENTS = ("constraints.txt", "prefect.yaml", "deployments", "flows", "kreislauf", "models")
"""What the deployments are made of: the forms of the flows show types and defaults of the rest."""
NEEDS = {"prefect": "postgres", "worker": "prefect", "gateway": "triton", "grafana": "prometheus"}
"""Servers by those that hold their address, and have to start anew with them."""
VERSION = "version of Kreislauf"
"""Name of the digest of a server's code."""


def reasons(
    servers: Iterable[str], running: Mapping[str, dict], selected: Collection[str]
) -> dict[str, str]:
    """Why servers that run have to start anew, by name, in the order of `servers`, in which they
    start: `selected` ones that are others now, and what needs one that starts."""
    why: dict[str, str] = {}
    for name in filter(running.__contains__, servers):
        changed = changes(name, running[name])
        needed = NEEDS.get(name, "")
        if name in selected and changed:
            why[name] = f"because of another {', '.join(changed)}"
        elif needed in selected and (needed in why or needed not in running):
            why[name] = f"with {needed}"
    return why


def changes(server: str, record: Mapping) -> list[str]:
    """Names of what is not as it was when the recorded server was started."""
    before = record.get("environment", {})
    now = digests(server)
    return [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]


def digests(server: str) -> dict[str, str]:
    """Digests of what a server would be started with now, by name: variables, of which some hold
    passwords, and code."""
    if server not in CODE:
        return environment.digests(server)
    return environment.digests(server) | {VERSION: digest(files(server))}


def files(server: str) -> tuple[str, ...]:
    """Files and folders of which a server is made here. The gateway reads its mapping once."""
    if server == "gateway" and settings().mapping:
        return (*CODE[server], settings().mapping)
    return CODE[server]


def digest(names: Iterable[str]) -> str:
    """Digest of files and folders of the checkout, and of their names. What Python and numba keep
    there, and what people read, is left out."""
    sha = hashlib.sha256()
    for name in names:
        for path in sorted([ROOT / name, *(ROOT / name).rglob("*")]):
            if "__pycache__" not in path.parts and path.suffix != ".md" and path.is_file():
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                sha.update(f"{os.path.relpath(path, ROOT)} {content}\n".encode())
    return sha.hexdigest()[:16]
