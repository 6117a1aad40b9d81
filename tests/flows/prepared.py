"""What many tests begin with is made once by each process, and copied for each of them."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from kreislauf.release import releases, triton


class Preparations:
    """The homes that preparations left, with the repositories of their Tritons."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.origins: dict[str, Path] = {}
        """The home of the test that made it, by the name of the preparation."""

    def begin(self, prepare: Callable[[], object], name: str, home: Path, repository: Path) -> None:
        """Let a home and a Triton's repository be as `prepare` leaves them."""
        kept = self.folder / name
        if name in self.origins:
            shutil.copytree(kept / "home", home, dirs_exist_ok=True)
            shutil.copytree(kept / "repository", repository, dirs_exist_ok=True)
            move_artifacts(home / "mlflow" / "mlflow.db", self.origins[name], home)
            return
        prepare()
        shutil.copytree(home, kept / "home")
        shutil.copytree(repository, kept / "repository")
        self.origins[name] = home


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
    """Let Triton serve what the release log says, if anything is live."""
    live = releases.current(model)
    if live:
        triton.serve(model, live.versions)
