"""Each command that a text names can be given as it stands there; `tests/operations/test_reader.py`
gives them."""

import ast
import builtins
import inspect
import re
import subprocess

import pytest

from tests import documented
from tests.command_rules import FLOWS, check
from tests.conftest import ROOT
from tests.documented import Command
from tests.operations import reader

WRONG = (AssertionError, SystemExit, ValueError, TypeError, subprocess.CalledProcessError)
UNKNOWN = object()
"""What a block of Python makes by itself, whose methods are not looked up."""


@pytest.mark.parametrize(
    "command", [*documented.of_pages(), *documented.of_code()], ids=lambda c: f"{c.place} {c.text}"
)
def test_a_command_of_the_texts_can_be_given(command: Command, monkeypatch):
    check(command, monkeypatch)


@pytest.mark.parametrize(
    "text",
    [
        "make gateway",
        "make up DATUM=a",
        "kubectl apply -f kreislauf.yaml",
        "prefect work-pool list-all",
        "prefect deployment run experiment/experiment --param part=0.1",
        "prefect deployment run lift/lift",
        "prefect deployment run trial/trial",
        ".venv/bin/python -m benchmarks.nothing",
        ".venv/bin/python -m benchmarks.days",
        ".venv/bin/python -m serving.app --gate 1",
        'curl "$GATEWAY/v2/predict"',
        "KREISLAUF_DEADLINES_MS=5 make up",
        "KREISLAUF_DEADLINE_MS=soon make up",
    ],
)
def test_a_wrong_command_is_noticed(text: str, monkeypatch):
    assert documented.is_command(text)
    with pytest.raises(WRONG):
        check(Command("README.md", text), monkeypatch)


def test_each_command_stands_in_a_block_that_is_marked_as_one():
    languages = {
        name for text in documented.texts().values() for name in documented.languages(text)
    }
    assert languages <= {"", "sh", "python", "kotlin", "yaml"}
    wrong = [
        (place, line)
        for place, text in documented.texts().items()
        for block in documented.unmarked(text)
        for line in block.splitlines()
        if documented.is_command(line.strip())
    ]
    assert wrong == []


@pytest.mark.parametrize(("place", "block"), documented.python_blocks())
def test_a_block_of_python_calls_what_there_is(place: str, block: str):
    tree = ast.parse(block)
    names: dict[str, object] = dict(vars(builtins))
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            exec(ast.unparse(node), names)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert calls
    for call in calls:
        function = value(call.func, names)
        if function is not UNKNOWN:
            keywords = {keyword.arg: None for keyword in call.keywords if keyword.arg}
            inspect.signature(function).bind(*call.args, **keywords)


def value(expression: ast.expr, names: dict[str, object]) -> object:
    """What an expression of names and dots means; UNKNOWN for any other. Raises AttributeError."""
    if isinstance(expression, ast.Attribute):
        owner = value(expression.value, names)
        return UNKNOWN if owner is UNKNOWN else getattr(owner, expression.attr)
    if isinstance(expression, ast.Name):
        return names.get(expression.id, UNKNOWN)
    return UNKNOWN


def test_messages_and_texts_name_flows_that_exist():
    texts = list(documented.texts().values())
    for top in documented.CODE:
        for path in (ROOT / top).rglob("*.py"):
            texts += [" ".join(text.split()) for _, text in documented.strings(path)]
    patterns = (
        r"\b(?:[Rr]un|with|is|by) the flow `?([a-z_]+)",
        r"\bthe flow `([a-z_]+)`",
        r"\b[Rr]un ([a-z]+) first\b",
        r"\bthe deployments? `([a-z_]+)`",
    )
    named = [name for text in texts for pattern in patterns for name in re.findall(pattern, text)]
    assert len(named) > 10
    assert set(named) <= set(FLOWS)


def test_no_command_of_the_pages_needs_an_activated_environment():
    bare = {command.text for command in documented.of_pages() if command.text.startswith("python ")}
    assert bare <= {"python -m deployments.worker"}, "only an image has one"


def test_a_reader_gives_each_command_of_the_pages_or_it_is_said_why_not():
    texts = {command.text for command in documented.of_pages()}
    given = {reader.of_texts(beginning) for beginning in reader.GIVEN}
    left = texts - given
    reasons = {text: [p for p in reader.NOT_GIVEN if re.fullmatch(p, text)] for text in left}
    assert [text for text, patterns in reasons.items() if not patterns] == []
    assert {p for patterns in reasons.values() for p in patterns} == set(reader.NOT_GIVEN)
