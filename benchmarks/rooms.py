"""What lies in a folder where it does not belong: tasks, flows, and code in faces."""

import ast
from collections.abc import Iterable, Iterator

from benchmarks.modules import Function, Module
from benchmarks.sources import PRODUCT, Offender, Source, product

MAX_FACE = 40
"""Maximum non-blank lines of an `__init__.py`."""
FACE_NAMES = {"__all__", "__path__", "SPEC"}
"""Names that an `__init__.py` may bind; `__path__` joins the `models` folders on the path."""


def uses_of(file: Source, name: str) -> Iterator[int]:
    """Lines that decorate with, or call, what Prefect exports as `name`."""
    aliases = {"prefect." + name}
    for node in file.nodes:
        if isinstance(node, ast.ImportFrom) and node.module in ("prefect", f"prefect.{name}s"):
            aliases |= {alias.asname or alias.name for alias in node.names if alias.name == name}
    for node in file.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            places = [item for item in node.decorator_list if not isinstance(item, ast.Call)]
        else:
            places = [node.func] if isinstance(node, ast.Call) else []
        yield from (place.lineno for place in places if ast.unparse(place) in aliases)


def outside(files: Iterable[Source], name: str) -> list[Offender]:
    """Uses of `task` outside tasks/, or of `flow` outside flows/."""
    home = f"{name}s"
    return [
        Offender(f"{home}_outside", file.path, line, f"@{name} belongs into {home}/")
        for file in product(files)
        if not file.path.startswith(f"{home}/")
        for line in uses_of(file, name)
    ]


def tasks_in_tasks(files: Iterable[Source]) -> list[Offender]:
    """Uses of a task in a function of tasks/: only flows compose tasks."""
    rooms = [file for file in files if file.path.startswith("tasks/")]
    tasks = {f"{module_name(file)}.{name}" for file in rooms for name in task_names(file)}
    offenders = []
    for file in rooms:
        module = Module(module_name(file), file.path, file.tree)
        places = {name: f"{module.name}.{name}" for name in module.defined} | module.imports
        for function in (node for node in file.tree.body if isinstance(node, Function)):
            for node in (node for statement in function.body for node in ast.walk(statement)):
                if not isinstance(node, ast.Name | ast.Attribute):
                    continue
                first, _, rest = ast.unparse(node).partition(".")
                if ".".join(filter(None, [places.get(first), rest])) in tasks:
                    reason = f"{function.name} uses the task {ast.unparse(node)}"
                    offenders.append(Offender("tasks_in_tasks", file.path, node.lineno, reason))
    return offenders


def module_name(file: Source) -> str:
    """Dotted name of a file's module."""
    return file.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def task_names(file: Source) -> list[str]:
    """Names of the tasks that a file defines."""
    lines = set(uses_of(file, "task"))
    functions = [node for node in file.tree.body if isinstance(node, Function)]
    return [
        function.name
        for function in functions
        if lines & {decorator.lineno for decorator in function.decorator_list}
    ]


def faces(files: Iterable[Source]) -> list[Source]:
    """The product's `__init__.py` files."""
    return [file for file in product(files) if file.path.endswith("/__init__.py")]


def is_face_statement(node: ast.stmt) -> bool:
    """Whether a statement hands a name on: import, docstring, or a binding of `FACE_NAMES`."""
    if isinstance(node, ast.Assign):
        return {ast.unparse(target) for target in node.targets} <= FACE_NAMES
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    return isinstance(node, ast.Import | ast.ImportFrom)


def code_in_faces(files: Iterable[Source]) -> list[Offender]:
    """Statements of an `__init__.py` that do more than hand names on."""
    return [
        Offender("code_in_faces", file.path, node.lineno, "belongs into a file with a name")
        for file in faces(files)
        for node in file.tree.body
        if not is_face_statement(node)
    ]


def long_faces(files: Iterable[Source]) -> list[Offender]:
    """Each `__init__.py` of more than `MAX_FACE` non-blank lines."""
    return [
        Offender("init_code_lines", file.path, 1, f"{file.dense_lines} lines")
        for file in faces(files)
        if file.dense_lines > MAX_FACE
    ]


def private_names(files: Iterable[Source]) -> list[Offender]:
    """Names with a leading underscore that the product takes from another module of its own."""
    offenders = []
    for file in product(files):
        modules = set()
        for node in file.nodes:
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PRODUCT:
                modules |= {alias.asname or alias.name for alias in node.names}
        for node in file.nodes:
            if isinstance(node, ast.ImportFrom):
                ours = (node.module or "").split(".")[0] in PRODUCT
                names = [alias.name for alias in node.names if ours]
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in modules:
                names = [node.attr]
            else:
                continue
            offenders += [
                Offender("private_names", file.path, node.lineno, f"{name} is private")
                for name in names
                if name.startswith("_") and not name.startswith("__")
            ]
    return offenders
