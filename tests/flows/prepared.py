"""What many tests begin with is made once by each process, and copied for each of them."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from kreislauf.release import releases, triton

OF_EACH_TEST = ("KREISLAUF_HOME", "KREISLAUF_TRITON_URL", "KREISLAUF_TRITON_REPOSITORY")
"""Variables that differ from test to test, and that a copy does not depend on."""


class Preparations:
    """The homes that preparations left, with the repositories of their Tritons."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.settings: dict[str, dict[str, str]] = {}
        """The variables with which each was made, by its name."""

    def begin(self, prepare: Callable[[], object], name: str, home: Path, repository: Path) -> bool:
        """Let a home and a Triton's repository be as `prepare` leaves them. Whether Triton has yet
        to load what is in its repository, because an earlier test made it."""
        is_made = name in self.settings
        if not is_made:
            self.make(prepare, name, home, repository)
        assert self.settings[name] == settings_of_tests(), f"{name} was made with other settings"
        kept = self.folder / name
        shutil.copytree(kept / "home", home, dirs_exist_ok=True)
        move_artifacts(home / "mlflow" / "mlflow.db", self.origin(name), home)
        if is_made:
            shutil.copytree(kept / "repository", repository, dirs_exist_ok=True)
        return is_made

    def make(self, prepare: Callable[[], object], name: str, home: Path, repository: Path) -> None:
        """Prepare in a home that is moved afterwards, so that what names it leads nowhere."""
        origin = self.origin(name)
        shutil.copytree(home, origin)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KREISLAUF_HOME", str(origin))
            prepare()
        shutil.copytree(repository, self.folder / name / "repository")
        origin.rename(self.folder / name / "home")
        self.settings[name] = settings_of_tests()

    def origin(self, name: str) -> Path:
        """Where a preparation is made."""
        return self.folder / name / "origin"


def settings_of_tests() -> dict[str, str]:
    """The variables of Kreislauf's that a test has set, but for those that each has."""
    mine = {name for name in os.environ if name.startswith("KREISLAUF_")}
    return {name: os.environ[name] for name in mine.difference(OF_EACH_TEST)}


def move_artifacts(database: Path, origin: Path, home: Path) -> None:
    """Let MLflow's database name another home than the one that it was made in."""
    with closing(sqlite3.connect(database)) as connection, connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for (table,) in tables.fetchall():
            columns = connection.execute(f"SELECT name FROM pragma_table_info('{table}')")
            for (column,) in columns.fetchall():
                connection.execute(
                    f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?) '
                    f'WHERE instr("{column}", ?)',
                    (str(origin), str(home), str(origin)),
                )


def serve_live_versions(model: str) -> None:
    """Let Triton serve what the release log says."""
    live = releases.current(model)
    assert live
    triton.serve(model, live.versions)
