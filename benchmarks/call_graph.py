"""Which function of ours calls which, from the text of the files."""

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from benchmarks.modules import Definition, Function, Module, bound_names
from benchmarks.sources import Source

OURS = ("flows", "tasks", "kreislauf", "models")
"""Folders whose functions count."""
STAND_INS = {"models.spec.ModelSpec": "models.session_recommender.model_type.SessionRecommender"}
"""Abstract classes of ours, and the class whose methods are followed instead."""
CONSTRUCTORS = ("__init__", "__post_init__")
"""Methods that a constructor calls."""
WRAPPERS = ("submit", "map", "with_options", "fn")
"""Attributes of a task or flow whose call calls it."""


class Code:
    """All functions and classes of ours by dotted name."""

    def __init__(self, files: Iterable[Source]) -> None:
        self.modules: dict[str, Module] = {}
        self.functions: dict[str, Definition] = {}
        self.classes: dict[str, tuple[Module, ast.ClassDef]] = {}
        self.attributes: dict[str, dict[str, str]] = {}
        for file in files:
            if file.path.split("/")[0] in OURS:
                name = file.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
                self.modules[name] = Module(name, file.path, file.tree)
        for module in self.modules.values():
            for name, node in module.defined.items():
                self._define(module, f"{module.name}.{name}", node)

    def _define(self, module: Module, name: str, node: ast.stmt) -> None:
        if isinstance(node, Function):
            self.functions[name] = Definition(module, None, node)
        elif isinstance(node, ast.ClassDef):
            self.classes[name] = (module, node)
            for method in node.body:
                if isinstance(method, Function):
                    self.functions[f"{name}.{method.name}"] = Definition(module, name, method)

    def resolve(self, name: str, passed: frozenset[str] = frozenset()) -> str:
        """The dotted name under which something is defined, where packages hand names on."""
        parts = name.split(".")
        for length in range(len(parts), 0, -1):
            module = self.modules.get(".".join(parts[:length]))
            if module is None:
                continue
            rest = parts[length:]
            if not rest and length > 1:  # a function may be called as the module that it is from
                module = self.modules.get(".".join(parts[:-1]), module)
                rest = parts[-1:]
            if rest and rest[0] in module.imports and name not in passed:
                target = ".".join([module.imports[rest[0]], *rest[1:]])
                return self.resolve(target, passed | {name})
            return name
        return name

    def is_lost(self, name: str) -> bool:
        """Whether a dotted name begins with a module of ours that does not hold the next name."""
        first, *rest = name.split(".")
        while f"{first}.{rest[0]}" in self.modules and len(rest) > 1:
            first = f"{first}.{rest.pop(0)}"
        module = self.modules.get(first)
        return module is not None and rest[0] not in {*module.defined, *module.constants}

    def name(self, module: Module, node: ast.expr) -> str | None:
        """The dotted name of what a module calls `node`; None if it is none of its names."""
        text = ast.unparse(node)
        if not re.fullmatch(r"[\w.]+", text):
            return None
        first, _, rest = text.partition(".")
        if first in module.imports:
            start = module.imports[first]
        elif first in module.defined:
            start = f"{module.name}.{first}"
        else:
            return None
        return self.resolve(f"{start}.{rest}" if rest else start)

    def annotated(self, module: Module, node: ast.expr | None) -> str | None:
        """The class of ours that an annotation names, also as a part of a union."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node = ast.parse(node.value, mode="eval").body
        if isinstance(node, ast.BinOp):
            return self.annotated(module, node.left) or self.annotated(module, node.right)
        if not isinstance(node, ast.Name | ast.Attribute):
            return None
        name = self.name(module, node) or ""
        return STAND_INS.get(name, name) if name in self.classes else None

    def lineage(self, owner: str) -> Iterator[str]:
        """A class and those of ours that it inherits from."""
        yield owner
        module, node = self.classes[owner]
        for base in node.bases:
            name = self.name(module, base)
            if name in self.classes and name != owner:
                yield from self.lineage(name)

    def method(self, owner: str, name: str) -> str | None:
        """The dotted name of a method, inherited ones included."""
        names = (f"{ancestor}.{name}" for ancestor in self.lineage(owner))
        return next((method for method in names if method in self.functions), None)

    def attribute(self, owner: str, name: str) -> str | None:
        """The class of an attribute, where an annotation or `self.name = ...` tells it."""
        for ancestor in self.lineage(owner):
            module, node = self.classes[ancestor]
            for item in node.body:
                if isinstance(item, ast.AnnAssign) and ast.unparse(item.target) == name:
                    return self.annotated(module, item.annotation)
            start = self.functions.get(f"{ancestor}.__init__")
            if start and ancestor not in self.attributes:
                self.attributes[ancestor] = {}  # for what `__init__` itself asks for
                self.attributes[ancestor] = Scope(self, start).types
            if start:
                return self.attributes[ancestor].get(f"self.{name}")
        return None

    def returned(self, name: str) -> str | None:
        """The class of ours that a function or constructor returns."""
        if name in self.classes:
            return STAND_INS.get(name, name)
        definition = self.functions.get(name)
        if definition is None:
            return None
        annotation = definition.node.returns
        if annotation is not None and ast.unparse(annotation) == "Self":
            return definition.owner
        if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Iterator":
            annotation = annotation.slice
        return self.annotated(definition.module, annotation)

    @cached_property
    def calls(self) -> dict[str, "Calls"]:
        """What each function calls."""
        return {
            name: Scope(self, definition).calls() for name, definition in self.functions.items()
        }


@dataclass(frozen=True)
class Calls:
    """What one function calls."""

    ours: list[str]
    """Dotted names of functions of ours, in the order of their calls."""
    foreign: list[str]
    """Dotted names of functions of libraries."""
    methods: list[str]
    """Names of methods of objects that are none of ours."""


class Scope:
    """The names of one function, and the classes of ours that they hold."""

    def __init__(self, code: Code, definition: Definition) -> None:
        self.code: Code = code
        self.module: Module = definition.module
        self.node: Function = definition.node
        self.types: dict[str, str] = {}
        self.variables: set[str] = bound_names(self.node)
        arguments = self.node.args
        for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
            self._bind(argument, code.annotated(self.module, argument.annotation))
        if definition.owner and arguments.args and arguments.args[0].arg in ("self", "cls"):
            self._bind(arguments.args[0], definition.owner)
        for node in ast.walk(self.node):
            self._learn(node)

    def _bind(self, target: ast.AST, owner: str | None) -> None:
        """Note that a variable, argument or attribute of `self` is an object of a class."""
        if owner:
            self.types[ast.unparse(target).split(":")[0]] = owner

    def _learn(self, node: ast.AST) -> None:
        """Note the classes of the variables that a statement binds."""
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target = node.targets[0]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                for name, value in zip(target.elts, node.value.elts, strict=False):
                    self._bind(name, self.type_of(value))
            else:
                self._bind(target, self.type_of(node.value))
        elif isinstance(node, ast.NamedExpr):
            self._bind(node.target, self.type_of(node.value))
        elif isinstance(node, ast.AnnAssign):
            self._bind(node.target, self.code.annotated(self.module, node.annotation))
        elif isinstance(node, ast.withitem) and node.optional_vars:
            self._bind(node.optional_vars, self.type_of(node.context_expr))

    def type_of(self, node: ast.expr) -> str | None:
        """The class of ours that an expression is an object of, if that can be told."""
        if isinstance(node, ast.Name):
            return self.types.get(node.id)
        if isinstance(node, ast.Await | ast.NamedExpr):
            return self.type_of(node.value)
        if isinstance(node, ast.BoolOp):
            return next(filter(None, map(self.type_of, node.values)), None)
        if isinstance(node, ast.IfExp):
            return self.type_of(node.body) or self.type_of(node.orelse)
        if isinstance(node, ast.Call):
            return self.code.returned(self.called(node.func) or "")
        if isinstance(node, ast.Attribute):
            if ast.unparse(node) in self.types:
                return self.types[ast.unparse(node)]
            owner = self.type_of(node.value)
            read = self.read(node)
            if read:
                return self.code.returned(read)
            return self.code.attribute(owner, node.attr) if owner else None
        return None

    def read(self, node: ast.Attribute) -> str | None:
        """The property of ours that an attribute reads."""
        owner = self.type_of(node.value)
        name = self.code.method(owner, node.attr) if owner else None
        return name if name and self.code.functions[name].is_property else None

    def called(self, node: ast.expr) -> str | None:
        """The dotted name of what is called, ours or not; None where that cannot be told."""
        if isinstance(node, ast.Call):  # task.with_options(...)(...)
            return self.called(node.func)
        if isinstance(node, ast.Name):
            owner = self.types.get(node.id)
            return self.code.method(owner, "__call__") if owner else self.name(node)
        if not isinstance(node, ast.Attribute):
            return None
        owner = self.type_of(node.value)
        if owner:
            return self.code.method(owner, node.attr)
        if node.attr in WRAPPERS and self.name(node.value) in self.code.functions:
            return self.name(node.value)
        return self.name(node)

    def name(self, node: ast.expr) -> str | None:
        """The dotted name of what is no variable of the function."""
        if ast.unparse(node).split(".")[0] in self.variables:
            return None
        return self.code.name(self.module, node)

    def calls(self) -> Calls:
        """All calls and properties in the body; decorators and defaults are no part of it."""
        calls = Calls([], [], [])
        body = ast.Module(self.node.body, [])
        for node in ast.walk(body):
            if isinstance(node, ast.Attribute) and (read := self.read(node)):
                calls.ours.append(read)
            if not isinstance(node, ast.Call):
                continue
            name = self.called(node.func)
            if name in self.code.classes:
                methods = (self.code.method(name, start) for start in CONSTRUCTORS)
                calls.ours.extend(filter(None, methods))
            elif name in self.code.functions:
                calls.ours.append(name)
            elif name:
                calls.foreign.append(name)
            if isinstance(node.func, ast.Attribute) and name not in self.code.functions:
                calls.methods.append(node.func.attr)
        return calls
