"""What runs and where, and the line that makes a shell one of this stack."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from deployments import processes
from kreislauf.settings import NO_PROXY


def show(running: dict[str, dict], sources: Sequence[str] = ()) -> str:
    """One line per service: whether it runs, and where it answers. Then come the lines of
    `sources`, and the last line is `export`."""
    lines = []
    for name, record in running.items():
        state = "runs" if processes.find(record) else "gone"
        addresses = [record[key] for key in ("url", "grpc", "metrics") if key in record]
        lines.append(f"{name:12} {state}  {'  '.join(addresses)}".rstrip())
    return "\n".join(filter(None, [*lines, *sources, export(running)]))


def export(running: dict[str, dict]) -> str:
    """A line that, copied into a shell, sets what the examples of the documentation need; empty if
    nothing runs.

    Behind a proxy, the shell asks this machine without it from then on: curl, Python, Prefect.
    """
    addresses = {
        "PREFECT_API_URL": running.get("prefect", {}).get("api"),
        "GATEWAY": running.get("gateway", {}).get("url"),
        "TRITON": running.get("triton", {}).get("grpc"),
    }
    variables = {name: address for name, address in addresses.items() if address}
    if not variables:
        return ""
    if any(name.lower().endswith("_proxy") and name not in NO_PROXY for name in os.environ):
        variables |= {name: os.environ[name] for name in NO_PROXY}
    words = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
    return f'export {" ".join(words)} PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"'
