"""What a file of ours imports and defines, from its text."""

import ast
from dataclasses import dataclass, field

Function = ast.FunctionDef | ast.AsyncFunctionDef


def bound_names(tree: ast.AST) -> set[str]:
    """Variables that a piece of code binds, arguments included, anywhere below it."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
    return names


@dataclass
class Module:
    """A module of ours."""

    name: str
    path: str
    tree: ast.Module
    imports: dict[str, str] = field(default_factory=dict)
    """Local name to dotted name, of every import in the file."""
    defined: dict[str, ast.stmt] = field(default_factory=dict)
    """Functions and classes at the top of the file."""
    constants: set[str] = field(default_factory=set)
    """Other names that the top of the file binds."""

    def __post_init__(self) -> None:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    top = alias.name.split(".")[0]
                    self.imports[alias.asname or top] = alias.name if alias.asname else top
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    self.imports[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        for statement in self.tree.body:
            if isinstance(statement, Function | ast.ClassDef):
                self.defined[statement.name] = statement
            else:
                self.constants |= bound_names(statement)


@dataclass(frozen=True)
class Definition:
    """A function of ours, and where it is."""

    module: Module
    owner: str | None
    """Dotted name of the class whose method it is."""
    node: Function

    @property
    def line(self) -> int:
        return self.node.lineno

    @property
    def is_property(self) -> bool:
        return any("property" in ast.unparse(item) for item in self.node.decorator_list)
