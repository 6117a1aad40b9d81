"""What servers are started with, variables and code, and which change of it starts them anew."""

import hashlib
import os
import sys
from pathlib import Path

import certifi

from kreislauf.settings import WrongSetting, settings

ROOT = Path(__file__).resolve().parent.parent

PREFIXES = {
    "mlflow": ("MLFLOW_", "AWS_"),
    "triton": ("KREISLAUF_TRITON", "AWS_"),
    "gateway": ("KREISLAUF_", "AWS_"),
    "bridge": ("KREISLAUF_",),
    "prometheus": ("KREISLAUF_GATEWAY_TOKEN",),
    "worker": ("KREISLAUF_", "MLFLOW_", "AWS_"),
}
"""Beginnings of the names of the variables that a server, or what it starts, reads."""
EXEMPT = ("KREISLAUF_HOME",)
"""The stack gives it to each of its servers."""
CODE = {
    "prefect": ("constraints.txt",),
    "mlflow": ("constraints.txt",),
    "triton": ("deployments/triton",),
    "gateway": ("constraints.txt", "serving", "kreislauf", "models"),
    "bridge": ("constraints.txt", "deployments", "kreislauf"),
    "alertmanager": ("deployments/prometheus",),
    "prometheus": ("deployments/prometheus",),
    "grafana": ("deployments/grafana",),
    "worker": ("constraints.txt", "prefect.yaml", "deployments", "flows"),
}
"""Files and folders of the checkout that a server is made of. Those of the worker are what it puts
in place when it starts: each run of it reads the rest anew."""
VERSION = "version of Kreislauf"
"""Name of the digest of a server's code."""


def home() -> Path:
    """The folder of the stack; ends the process, with what is wrong, if a setting is."""
    try:
        return settings().home
    except WrongSetting as error:
        sys.exit(str(error))


def python_path() -> str:
    """The checkout, then this process's own PYTHONPATH."""
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def prefect_api_url() -> str:
    """Address of the Prefect server; ends the process, with what to do, if there is none."""
    api = settings().prefect_api_url
    if not api:
        sys.exit("No Prefect server: set PREFECT_API_URL, or start a local one with `make up`.")
    return api


def one_certificate(folder: Path) -> Path:
    """A file with one certificate, for clients of the embedded Prefect server; it is written anew
    at each call, because a client fails without it.

    Each client reads all that it may trust when it is made, which takes 30 ms, though the address
    of this server is http://. A flow run makes dozens of clients. With this file, none can ask a
    Prefect server whose address is https://.
    """
    path = folder / "certificate.pem"
    new = folder / f"certificate-{os.getpid()}.pem"
    end = "-----END CERTIFICATE-----\n"
    folder.mkdir(parents=True, exist_ok=True)
    new.write_text(Path(certifi.where()).read_text().partition(end)[0] + end)
    new.replace(path)
    return path


def digests(server: str) -> dict[str, str]:
    """Digests of what the server is started with: its variables in this process, of which some hold
    passwords, and its code."""
    variables = {
        name: _digest(value.encode())
        for name, value in sorted(os.environ.items())
        if name.startswith(PREFIXES.get(server, ())) and name not in EXEMPT
    }
    if server not in CODE:
        return variables
    return variables | {VERSION: _digest(code(server))}


def code(server: str) -> bytes:
    """Names and contents of the files that the server is made of."""
    parts = []
    for name in CODE[server]:
        for path in sorted([ROOT / name, *(ROOT / name).rglob("*")]):
            if path.is_file() and path.suffix not in (".pyc", ".md"):
                parts += [os.path.relpath(path, ROOT).encode(), path.read_bytes()]
    return b"\0".join(parts)


def changes(server: str, record: dict) -> list[str]:
    """Names of what is not as it was when the recorded server was started. A record of an earlier
    version of Kreislauf does not say what the code was."""
    before = record.get("environment")
    if before is None:
        return []
    now = digests(server)
    return [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
