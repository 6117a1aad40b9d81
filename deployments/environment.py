"""With which environment a server was started, so that another one starts it anew."""

import hashlib
import os

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


def digests(server: str) -> dict[str, str]:
    """Digests of the server's variables in this process, because some hold passwords."""
    return {
        name: hashlib.sha256(value.encode()).hexdigest()[:16]
        for name, value in sorted(os.environ.items())
        if name.startswith(PREFIXES.get(server, ())) and name not in EXEMPT
    }


def changes(server: str, record: dict) -> list[str]:
    """Names of the variables that are not as they were when the recorded server was started."""
    before = record.get("environment")
    if before is None:
        return []
    now = digests(server)
    return [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
