"""The repository's files, as the benchmarks of style read them."""

import ast
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = ("flows", "tasks", "kreislauf", "models", "serving", "deployments", "demo")
"""Folders whose code is the product."""


@dataclass(frozen=True)
class Source:
    """A Python file."""

    path: str
    """Relative to the repository, with slashes."""
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed file."""
        return ast.parse(self.text, self.path)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """The parsed file's nodes, in the order of `ast.walk`."""
        return list(ast.walk(self.tree))

    @property
    def lines(self) -> list[str]:
        """Lines without their ends."""
        return self.text.splitlines()

    @property
    def dense_lines(self) -> int:
        """Number of non-blank lines."""
        return sum(bool(line.strip()) for line in self.lines)


@dataclass(frozen=True)
class Offender:
    """A place in a file that a counter counts."""

    counter: str
    path: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.counter}: {self.reason}"


def repository(root: Path, suffix: str) -> list[str]:
    """Paths of the files that git tracks, or would, and that exist."""
    command = ["git", "ls-files", "-co", "--exclude-standard", f"*{suffix}"]
    listing = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return sorted(path for path in set(listing.stdout.splitlines()) if (root / path).exists())


def sources(root: Path = ROOT) -> list[Source]:
    """All Python files of the repository."""
    return [Source(path, (root / path).read_text()) for path in repository(root, ".py")]


def product(files: Iterable[Source]) -> list[Source]:
    """The files of the product."""
    return [file for file in files if file.path.split("/")[0] in PRODUCT]


def markdown(root: Path = ROOT) -> list[tuple[str, str]]:
    """Path and text of the repository's Markdown files."""
    return [(path, (root / path).read_text()) for path in repository(root, ".md")]
