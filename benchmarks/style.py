"""How the code reads: where things lie, how dense they are, and which words they use.

`python -m benchmarks.style [PATH...]` prints each offender, those below the paths only, and one
JSON line last, which always counts the whole repository.

- The product is the Python of flows, tasks, kreislauf, models, serving, deployments and demo.
- `tasks_outside`, `flows_outside`: uses of Prefect's `task` outside tasks/, and `flow` outside
  flows/.
- `tasks_in_tasks`: uses of a task in the functions of tasks/; only flows compose tasks.
- `code_in_faces`: statements of an `__init__.py` that do more than hand names on.
- `init_code_lines`: non-blank lines of the product's longest `__init__.py`, docstring included.
- `files_over_275`, `functions_over_60`: blank lines and docstrings count, decorators do not.
- `parallel_assignments_per_1000`: `a, b = x, y` by 1,000 non-blank lines of the product.
- `conditionals_per_1000`: `x if c else y` by as many.
- `private_names`: names with a leading underscore that a file takes from another module.
- `format_skips`: lines of the product that are not formatted.
- `long_lines`: lines above 100 characters in the repository's Python.
- `old_words`: names and phrases of the old vocabulary (`benchmarks.words`) in the product, in
  benchmarks, notebooks and tests, and in Markdown. `words.EXEMPT` lists who must spell them.
- `words_a_sentence`: the larger of two medians, of the product's docstrings and of docs/*.md. An
  entry of a list or of `Args:` is a sentence; headings, tables and code are none.
- `merged_sections`: docstrings whose `Args:` does not stand on a line of its own.
- `call_depth`: see `benchmarks.call_depth`.
- `reads_per_retraining`: see `benchmarks.row_reads`; null if paths are given, because it trains.
"""

import ast
import importlib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence

from benchmarks import call_depth, rooms, words
from benchmarks.sources import PRODUCT, Offender, Source, markdown, product, sources

MAX_FILE = 275
"""Maximum lines of a file."""
MAX_FUNCTION = 60
"""Maximum lines of a function."""
MAX_LINE = 100
"""Maximum characters of a line."""
COUNTED = (
    "tasks_outside",
    "flows_outside",
    "tasks_in_tasks",
    "private_names",
    "format_skips",
    "code_in_faces",
    "files_over_275",
    "functions_over_60",
    "long_lines",
    "old_words",
    "merged_sections",
)
"""Keys of the JSON line that are numbers of offenders."""


def long_files(files: Iterable[Source]) -> list[Offender]:
    """Files of the product of more than `MAX_FILE` lines."""
    return [
        Offender("files_over_275", file.path, 1, f"{len(file.lines)} lines")
        for file in product(files)
        if len(file.lines) > MAX_FILE
    ]


def long_functions(files: Iterable[Source]) -> list[Offender]:
    """Functions of the product of more than `MAX_FUNCTION` lines."""
    offenders = []
    for file in product(files):
        for node in file.nodes:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION:
                reason = f"{node.name} has {length} lines"
                offenders.append(Offender("functions_over_60", file.path, node.lineno, reason))
    return offenders


def parallel_assignments(files: Iterable[Source]) -> list[Offender]:
    """Each `a, b = x, y` of the product."""
    return [
        Offender("parallel_assignments", file.path, node.lineno, ast.unparse(node)[:70])
        for file in product(files)
        for node in file.nodes
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple)
        if any(isinstance(target, ast.Tuple) for target in node.targets)
    ]


def conditionals(files: Iterable[Source]) -> list[Offender]:
    """Each `x if c else y` of the product."""
    return [
        Offender("conditionals", file.path, node.lineno, ast.unparse(node)[:70])
        for file in product(files)
        for node in file.nodes
        if isinstance(node, ast.IfExp)
    ]


def long_lines(files: Iterable[Source]) -> list[Offender]:
    """Lines of more than `MAX_LINE` characters."""
    return [
        Offender("long_lines", file.path, number, f"{len(line)} characters")
        for file in files
        for number, line in enumerate(file.lines, 1)
        if len(line) > MAX_LINE
    ]


def format_skips(files: Iterable[Source]) -> list[Offender]:
    """Lines of the product that ruff is told not to format, which keeps dense lines dense."""
    return [
        Offender("format_skips", file.path, number, line.strip()[:70])
        for file in product(files)
        for number, line in enumerate(file.lines, 1)
        if re.search(r"# fmt: (skip|off)", line)
    ]


def per_1000(offenders: Sequence[Offender], files: Iterable[Source], top: str = "") -> float:
    """Offenders by 1,000 non-blank lines of the product, or of its folder `top`."""
    lines = sum(file.dense_lines for file in product(files) if file.path.startswith(top))
    count = sum(offender.path.startswith(top) for offender in offenders)
    return round(1000 * count / lines, 1) if lines else 0.0


def offenders(files: Sequence[Source], pages: Sequence[tuple[str, str]]) -> list[Offender]:
    """All that is counted, in the order of files and lines."""
    everything = [
        *rooms.outside(files, "task"),
        *rooms.outside(files, "flow"),
        *rooms.tasks_in_tasks(files),
        *rooms.code_in_faces(files),
        *rooms.private_names(files),
        *rooms.long_faces(files),
        *long_files(files),
        *long_functions(files),
        *parallel_assignments(files),
        *conditionals(files),
        *long_lines(files),
        *format_skips(files),
        *words.old_words(files, pages),
        *words.merged_sections(files),
        *words.long_sentences(files, pages),
        *call_depth.deep_flows(files),
        *call_depth.lost_calls(files),
    ]
    return sorted(everything, key=lambda offender: (offender.path, offender.line))


def reads_per_retraining() -> float | None:
    """Times that a retraining reads its rows from the lake; None while nothing measures it."""
    try:
        row_reads = importlib.import_module("benchmarks.row_reads")
    except ModuleNotFoundError:
        print("benchmarks.row_reads is not there yet.")
        return None
    return row_reads.reads_per_retraining()


def figures(
    files: Sequence[Source], pages: Sequence[tuple[str, str]], everything: Sequence[Offender]
) -> dict:
    """All that the text of the files tells, by the keys of the JSON line; `everything` is what
    `offenders` says of the same files."""
    counts = Counter(offender.counter for offender in everything)
    all_parallel = [o for o in everything if o.counter == "parallel_assignments"]
    all_conditionals = [o for o in everything if o.counter == "conditionals"]
    return {
        **{counter: counts[counter] for counter in COUNTED},
        "init_code_lines": max(file.dense_lines for file in rooms.faces(files)),
        "parallel_assignments_per_1000": per_1000(all_parallel, files),
        "conditionals_per_1000": per_1000(all_conditionals, files),
        "words_a_sentence": words.words_a_sentence(files, pages),
        "call_depth": call_depth.depths(files),
        "per_folder": {
            top: {
                "parallel_assignments_per_1000": per_1000(all_parallel, files, f"{top}/"),
                "conditionals_per_1000": per_1000(all_conditionals, files, f"{top}/"),
            }
            for top in PRODUCT
        },
    }


def main() -> None:
    """Print the offenders below the paths of the command line, and the JSON line."""
    files = sources()
    pages = markdown()
    paths = [path.rstrip("/") for path in sys.argv[1:]]
    everything = offenders(files, pages)
    for offender in everything:
        if not paths or any((offender.path + "/").startswith(f"{path}/") for path in paths):
            print(offender)
    # Counting the reads trains a model, which who looks at some files does not wait for.
    reads = None
    if not paths:
        reads = reads_per_retraining()
    print(json.dumps(figures(files, pages, everything) | {"reads_per_retraining": reads}))


if __name__ == "__main__":
    main()
