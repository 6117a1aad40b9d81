"""What makes a command one that can be given, without giving it: target, module, options,
deployment, parameters and variables exist. Each rule raises AssertionError, or what the program
itself would say."""

import argparse
import importlib
import importlib.util
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from deployments import personal_changes
from kreislauf.settings import Settings
from serving import app
from tests.conftest import ROOT
from tests.documented import Command

MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = dict(re.findall(r"^([a-z-]+):(.*\n(?:\t.*\n)*)", MAKEFILE, re.M))
FLOWS = sorted(path.stem for path in (ROOT / "flows").glob("[!_]*.py"))
OF_THE_SHELL = ("PYTHONPATH",)
LIBRARIES = {"PREFECT_": "prefect.settings", "MLFLOW_": "mlflow.environment_variables"}
"""Modules that know the variables of a library, by the beginnings of their names."""
MLFLOW = {"models": "mlflow.models.cli", "experiments": "mlflow.experiments"}
"""Modules with groups of MLflow's commands: `mlflow.cli` would import all of them."""
USAGE = re.compile(r"\.\.\.|[\[\]|]|\b[A-Z]{4,}\b")
"""What a form of a command has in the place of a value."""


class Parsed(Exception):
    """The arguments of a program are as it wants them."""


def check(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raises AssertionError for a command that cannot be given as it stands."""
    for word in command.assignments:
        check_variable(*word.split("=", 1), monkeypatch)
    if not command.words:
        return
    program, *arguments = command.words
    rule = RULES.get(program)
    assert rule, f"No rule of RULES says how to check `{program}`: add one"
    rule(command, arguments, monkeypatch)


def check_variable(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody reads the variable, and the settings take the value."""
    if name in OF_THE_SHELL:
        return
    for prefix, module in LIBRARIES.items():
        if name.startswith(prefix):
            assert hasattr(importlib.import_module(module), name)
            return
    if name.removeprefix("KREISLAUF_").lower() in Settings.model_fields:
        monkeypatch.setenv(name, value)
        Settings()
        return
    sources = [ROOT / "Makefile", ROOT / "prefect.yaml", *(ROOT / "deployments").glob("*.py")]
    assert any(re.search(rf"\b{name}\b", path.read_text()) for path in sources), name


def check_make(command: Command, arguments: list[str], _: pytest.MonkeyPatch) -> None:
    """The Makefile has the targets, and reads the variables there."""
    targets = [word for word in arguments if "=" not in word]
    assert set(targets) <= set(TARGETS)
    recipes = "".join(TARGETS[target] for target in targets)
    for word in arguments:
        name, sign, _value = word.partition("=")
        assert not sign or f"$({name})" in recipes, f"make {targets} does not read {name}"


def check_python(command: Command, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The module exists, and takes the arguments; of a form, it has the options."""
    flag, name, *rest = arguments
    assert flag == "-m"
    if name.endswith(".NAME"):
        return
    if name == "pytest":
        assert [word for word in rest if word.endswith(".py") and not (ROOT / word).exists()] == []
        return
    specification = importlib.util.find_spec(name)
    assert specification, f"there is no module {name}"
    if specification.submodule_search_locations:
        name += ".__main__"
    path = Path(importlib.util.find_spec(name).origin)
    source = path.read_text()
    assert "__main__" in source or "sys.argv" in source, f"{name} is no program"
    if "ArgumentParser" not in source:
        assert not rest or "sys.argv" in source, f"{name} takes no arguments"
    elif is_form(command, rest):
        for option in re.findall(r"--[a-z-]+", command.text):
            assert f'"{option}"' in source, f"{name} has no {option}"
    else:
        monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse(rest))
        with pytest.raises(Parsed):
            importlib.import_module(name).main()


def is_form(command: Command, arguments: list[str]) -> bool:
    """Whether a text of the code says how a program is called, and not to call it."""
    return command.place.endswith(tuple("0123456789")) and (
        not arguments or bool(USAGE.search(command.text))
    )


def parse(arguments: list[str]) -> Callable:
    """The method of a parser that raises Parsed when it takes the arguments."""
    original = argparse.ArgumentParser.parse_args

    def parse_args(parser: argparse.ArgumentParser, *_: object) -> None:
        original(parser, arguments)
        raise Parsed

    return parse_args


def check_prefect(command: Command, arguments: list[str], _: pytest.MonkeyPatch) -> None:
    """The deployment exists, and its flow takes the parameters; Prefect has the command."""
    if arguments[:2] != ["deployment", "run"] or len(arguments) == 2:
        program = Path(sys.executable).parent / "prefect"
        subprocess.run([program, *arguments, "--help"], check=True, stdout=subprocess.DEVNULL)
        return
    deployment, *options = arguments[2:]
    name = deployment.partition("/")[0]
    assert deployment in personal_changes.specs()
    assert options[::2] == ["--param"] * (len(options) // 2)
    flow = getattr(importlib.import_module(f"flows.{name}"), name)
    given = dict(map(parameter, options[1::2]))
    required = [
        key
        for key, value in inspect.signature(flow.fn).parameters.items()
        if value.default is value.empty
    ]
    assert set(required) <= set(given), f"{name} needs {required}"
    flow.validate_parameters(given)


def parameter(option: str) -> tuple[str, object]:
    """Name and value of `name=value`, as Prefect reads them."""
    name, value = option.split("=", 1)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def check_curl(command: Command, arguments: list[str], _: pytest.MonkeyPatch) -> None:
    """The gateway has the path."""
    (url,) = [word for word in arguments if word.startswith("$GATEWAY")]
    path = url.removeprefix("$GATEWAY")
    routes = [getattr(route, "path", "") for route in app.create(Settings()).routes]
    patterns = [re.sub(r"\{\w+\}", "[^/]+", path) for path in routes]
    assert any(re.fullmatch(pattern, path) for pattern in patterns), path


def check_mlflow(command: Command, arguments: list[str], _: pytest.MonkeyPatch) -> None:
    """MLflow has the command, and the command the options."""
    group, name, *rest = arguments
    command_line = importlib.import_module(MLFLOW[group]).commands.commands[name]
    options = {option for each in command_line.params for option in each.opts}
    assert {word for word in rest if word.startswith("--")} <= options


def check_promtool(command: Command, arguments: list[str], _: pytest.MonkeyPatch) -> None:
    """The file of tests exists."""
    assert arguments[:2] == ["test", "rules"]
    assert (ROOT / arguments[2]).is_file()


def check_apt(command: Command, arguments: list[str], _: pytest.MonkeyPatch) -> None:
    """The packages are those that `make test-system` installs."""
    assert arguments[0] == "install"
    assert set(arguments[1:]) <= set(TARGETS["test-system"].replace(")", " ").split())


def check_pip(command: Command, arguments: list[str], _: pytest.MonkeyPatch) -> None:
    """The packages are named as pip wants them; pip's configuration can be listed."""
    if arguments == ["config", "list"]:
        return
    assert arguments[0] == "install"
    assert all(Requirement(word) for word in arguments[1:])


def check_export(command: Command, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody reads the variables."""
    for word in arguments:
        check_variable(*word.split("=", 1), monkeypatch)


RULES: dict[str, Callable[[Command, list[str], pytest.MonkeyPatch], None]] = {
    "make": check_make,
    "python": check_python,
    "prefect": check_prefect,
    "curl": check_curl,
    "mlflow": check_mlflow,
    "promtool": check_promtool,
    "apt-get": check_apt,
    "pip": check_pip,
    "export": check_export,
}
"""How a command is checked, by its program."""
