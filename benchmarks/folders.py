"""How much code does a model type take, and for what?

`python -m benchmarks.folders [CHECKOUT]` counts the non-blank lines of each folder in models/, of
this checkout or another one. The last line is JSON.

- `glue`: what is imported with the model type: table, requests, answers, metrics, parameters.
- `graph`: of the rest, what makes ONNX, or is a module of torch.
- `training`: the rest.
- `shared`: files beside the folders that at least two of them import, without `spec.py` and
  `table.py`.
"""

import ast
import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from benchmarks.sources import ROOT, Source

USES = ("training", "graph", "glue")
CONTRACT = {"spec", "table"}
"""Shared modules that say what a folder provides."""


def sources_of(folder: Path) -> dict[str, Source]:
    """The files of a folder by module name."""
    paths = sorted(folder.glob("*.py"))
    return {path.stem: Source(path.name, path.read_text()) for path in paths}


def imported(nodes: Iterable[ast.AST]) -> set[str]:
    """Dotted names that some statements import."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def glue_of(package: str, files: dict[str, Source]) -> set[str]:
    """Modules of a package that are imported with it."""
    glue: set[str] = set()
    waiting = {"__init__"}
    while waiting:
        module = waiting.pop()
        glue.add(module)
        for name in imported(files[module].tree.body):
            child = name.removeprefix(f"{package}.")
            if child != name and child in files and child not in glue:
                waiting.add(child)
    return glue


def is_graph(file: Source) -> bool:
    """Whether a file imports onnx, or has a module of torch that is not Lightning's."""
    roots = {name.split(".")[0] for name in imported(file.nodes)}
    classes = [node for node in file.nodes if isinstance(node, ast.ClassDef)]
    bases = {ast.unparse(base) for node in classes for base in node.bases}
    return "onnx" in roots or "nn.Module" in bases


def lines_of(folder: Path) -> Counter[str]:
    """Non-blank lines of a model type's folder by what they are for."""
    files = sources_of(folder)
    glue = glue_of(f"models.{folder.name}", files)
    counts: Counter[str] = Counter({use: 0 for use in USES})
    for name, file in files.items():
        if name in glue:
            counts["glue"] += file.dense_lines
        elif is_graph(file):
            counts["graph"] += file.dense_lines
        else:
            counts["training"] += file.dense_lines
    return counts


def shared_lines(models: Path, folders: list[Path]) -> int:
    """Non-blank lines beside the folders that at least two of them import."""
    users: Counter[str] = Counter()
    for folder in folders:
        files_of_folder = sources_of(folder).values()
        names = {name for file in files_of_folder for name in imported(file.nodes)}
        users.update({name.split(".")[1] for name in names if name.startswith("models.")})
    files = sources_of(models)
    shared = {name for name, count in users.items() if count > 1 and name in files}
    return sum(files[name].dense_lines for name in shared - CONTRACT)


def main() -> None:
    """Print a table and a line of JSON."""
    models = Path(sys.argv[1] if sys.argv[1:] else ROOT) / "models"
    folders = [path.parent for path in sorted(models.glob("*/__init__.py"))]
    counts = {folder.name: lines_of(folder) for folder in folders}
    for name, lines in counts.items():
        print(f"{name:26}", *(f"{use} {lines[use]:5}" for use in USES), f"all {lines.total()}")
    print(json.dumps({**counts, "shared": shared_lines(models, folders)}))


if __name__ == "__main__":
    main()
