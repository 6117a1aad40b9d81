"""The environment that servers are started with."""

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


def without_prefect() -> dict[str, str]:
    """This process's environment without Prefect's settings, which may name another server."""
    return {name: v for name, v in os.environ.items() if not name.startswith("PREFECT_")}


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
    """Digests of the server's variables in this process, because some hold passwords."""
    return {
        name: hashlib.sha256(value.encode()).hexdigest()[:16]
        for name, value in sorted(os.environ.items())
        if name.startswith(PREFIXES.get(server, ())) and name not in EXEMPT
    }
