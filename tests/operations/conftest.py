"""The data of the tiny model type, and a stack as `make up` starts it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from deployments import processes
from tests.conftest import ROOT
from tests.flows.conftest import orders, prepared  # noqa: F401

COPIED = ("flows", "tasks", "kreislauf", "models", "serving", "deployments", "prefect.yaml")
"""What a deployment and a worker need of a checkout."""


def start(home: Path, services: tuple[str, ...]) -> dict[str, dict]:
    """Start the servers in a process of its own, as the command does: what starts Postgres keeps in
    mind that it runs. Returns `run.json`."""
    code = f"from deployments import stack; stack.up(stack.Path({str(home)!r}), {services!r})"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    return processes.read(home)


class Checkout:
    """A checkout of its own, with a home of its own, in which commands run as a person's do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def copied_to(cls, folder: Path) -> "Checkout":
        """A copy of this checkout; the interpreter is the same, under another path."""
        folder.mkdir(parents=True)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copyfile(source, folder / name)
        (folder / ".venv").symlink_to(Path(sys.executable).parent.parent)
        return cls(folder)

    @property
    def python(self) -> Path:
        """The checkout's interpreter."""
        return self.folder / ".venv" / "bin" / "python"

    def env(self, api: str, **variables: str) -> dict[str, str]:
        """The environment of a shell that knows the Prefect server and these variables."""
        plain = {name: v for name, v in os.environ.items() if name != "KREISLAUF_HOME"}
        return {**plain, "PREFECT_API_URL": api, "PYTHONPATH": str(self.folder), **variables}

    def run(self, module: str, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        """`python -m module words` in the checkout."""
        return subprocess.run(
            [self.python, "-m", module, *words],
            cwd=self.folder,
            env=self.env(**env),
            capture_output=True,
            text=True,
        )
