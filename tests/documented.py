"""Every command that the texts name: README, docs, the folders' READMEs, and the strings of the
code, which people read as messages, pages and help."""

import ast
import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from deployments import interpreter
from tests.conftest import ROOT

PROGRAMS = [
    "amtool",
    "apt-get",
    "curl",
    "docker",
    "eval",
    "export",
    "git",
    "helm",
    "kubectl",
    "make",
    "mlflow",
    "pip",
    "pipx",
    "podman",
    "prefect",
    "promtool",
    "pytest",
    "python",
    "python3",
    *(f"python{version}" for version in interpreter.VERSIONS),
    "ruff",
    "sh",
    "source",
    "sudo",
    "systemctl",
    "uv",
    "uvicorn",
    "wget",
]
"""First words of commands; a path, and an assignment such as `KEEP=1`, are others."""
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
FILE = re.compile(r"# (\S+\.py)\n")
ASSIGNMENT = re.compile(r"[A-Z][A-Z0-9_]*=")
WHOLE_COMMAND = re.compile(r"prefect deploy|make [a-z-]+( [A-Z]+=.*)?$|python -m ")
CODE = ("flows", "tasks", "kreislauf", "models", "serving", "deployments", "demo")
CODE += ("notebooks", "benchmarks")
STAND_INS = {"number": "2", "model": "session_recommender", "study": "3f0c"}
"""What stands for an expression in a message, by the last of its names; NAME for all others."""


class Command(NamedTuple):
    """A command as a text has it, without the comment at its end."""

    place: str
    text: str

    @property
    def assignments(self) -> list[str]:
        """The variables that are set before the program, or instead of one."""
        return list(takewhile(ASSIGNMENT.match, shlex.split(self.text)))

    @property
    def words(self) -> list[str]:
        """The program, without the folder of the virtual environment, and its arguments; empty if
        there are only assignments."""
        words = shlex.split(self.text)[len(self.assignments) :]
        return [word.removeprefix(".venv/bin/") for word in words]


def texts() -> dict[str, str]:
    """Content of each page by its path."""
    pages = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("*/README.md"))]
    return {str(path.relative_to(ROOT)): path.read_text() for path in dict.fromkeys(pages)}


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language; of the language "", outputs and pictures."""
    return [content for name, content in FENCE.findall(text) if name == language]


def languages(text: str) -> set[str]:
    """The languages of the fenced blocks."""
    return {name for name, _ in FENCE.findall(text)}


def unmarked(text: str) -> list[str]:
    """Blocks that are not marked as a language: fenced ones, and lines indented by four."""
    indented = re.findall(r"^    \S.*\n(?:    .*\n)*", FENCE.sub("", text), re.M)
    return [*blocks(text, ""), *indented]


def lines(block: str) -> list[str]:
    """The commands of a block: lines joined at a backslash, without comments."""
    joined = re.sub(r"\\\n\s*", "", block)
    return list(filter(None, (without_comment(line) for line in joined.splitlines())))


def without_comment(line: str) -> str:
    """The line up to a # that begins a word, if that is what a shell takes for a comment."""
    for sign in re.finditer(r"(?:^|\s)#", line):
        before = line[: sign.start()]
        if before.count("'") % 2 == before.count('"') % 2 == 0:
            return before.strip()
    return line.strip()


def is_command(text: str) -> bool:
    """Whether text in backticks, or a line, is a command: a program with arguments, a path to one,
    an assignment with a value, `make` alone; or a word and an option."""
    word, *arguments = text.split() or [""]
    if word.startswith((".venv/", "./")) or ASSIGNMENT.match(word) or word == "make":
        return True
    if word in PROGRAMS:
        return bool(arguments)
    return bool(re.fullmatch(r"[a-z][a-z0-9.-]* --?[a-z].*", text))


def spans(text: str) -> list[str]:
    """Commands in backticks between other words."""
    quoted = re.findall(r"`([^`]+)`", FENCE.sub("", text))
    return [span for span in (" ".join(each.split()) for each in quoted) if is_command(span)]


def of_pages() -> list[Command]:
    """The shell commands of README, docs and the folders' READMEs."""
    commands = []
    for place, text in texts().items():
        inside = [line for block in blocks(text, "sh") for line in lines(block)]
        commands += [Command(place, command) for command in [*inside, *spans(text)]]
    return once(commands)


def python_blocks() -> list[tuple[str, str]]:
    """The blocks of Python that are no files, with their places."""
    return [
        (place, block)
        for place, text in texts().items()
        for block in blocks(text, "python")
        if not FILE.match(block)
    ]


def files(text: str) -> dict[str, str]:
    """Content of each block that begins with the path of a file, by the path."""
    return {match[1]: block for block in blocks(text, "python") if (match := FILE.match(block))}


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """The strings of a file with their lines; of f-strings, with stand-ins for the values."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    pieces = {id(p) for node in nodes if isinstance(node, ast.JoinedStr) for p in node.values}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(map(part, node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) in pieces:
                continue
            yield node.lineno, re.sub(r"\{(?:\w+\.)*(\w+)\}", stand_in, node.value)


def part(node: ast.expr) -> str:
    """Text of a piece of an f-string."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    names = re.findall(r"\w+", ast.unparse(node))
    return STAND_INS.get(names[-1].lower(), "NAME")


def stand_in(match: re.Match) -> str:
    """Text for a field of a string that is formatted later."""
    return STAND_INS.get(match[1], "NAME")


def of_code() -> list[Command]:
    """The commands that messages, pages and help of the code name, and comments of the YAML
    files."""
    commands = []
    for top in CODE:
        for path in sorted((ROOT / top).rglob("*.py")):
            place = str(path.relative_to(ROOT))
            for number, text in strings(path):
                shown = [*spans(text), *filter(is_whole_command, lines(text))]
                commands += [Command(f"{place}:{number}", command) for command in shown]
    for path in [ROOT / "prefect.yaml", *sorted((ROOT / "deployments").rglob("*.yaml"))]:
        place = str(path.relative_to(ROOT))
        commands += [Command(place, command) for command in spans(path.read_text())]
    return once(commands)


def once(commands: list[Command]) -> list[Command]:
    """Each command once, where it stands first."""
    return list({command.text: command for command in reversed(commands)}.values())[::-1]


def is_whole_command(line: str) -> bool:
    """Whether a line of a string is a command without backticks."""
    pattern = (
        r"(prefect (deployment|deploy|work-pool)|make [a-z-]+ ?[A-Z]+=|make [a-z-]+$|python -m)"
    )
    return "`" not in line and bool(re.match(rf"{pattern}.*", line))
