"""A proposed mapping as a YAML file, with its doubts and choices as comments."""

import io
import textwrap
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from kreislauf.inspection.proposal import Proposal
from kreislauf.inspection.roles import Reading, Role
from models import spec
from models.choices import CHOOSE

WIDTH = 96
"""Most characters of a line of comments."""
LONG_NOTE = 60
"""Characters from which a comment stands above its line."""


def write(proposal: Proposal, head: list[str]) -> str:
    """The text of the file; `head` are sentences for its beginning."""
    content = CommentedMap()
    if proposal.model_type.name != spec.DEFAULT:
        content["model"] = proposal.model_type.name
        content.yaml_add_eol_comment("which takes any ids as text", "model")
    content["columns"] = CommentedMap()
    for role in proposal.roles:
        _add_role(content["columns"], role)
    if proposal.only:
        content["only"] = _only(proposal.only)
        note = _left_out(proposal.left_out)
        content.yaml_set_comment_before_after_key("only", before=note)
    if proposal.ignored:
        content["ignored"] = CommentedSeq(proposal.ignored)
        side = max(map(len, proposal.ignored)) + 7
        for place, comment in enumerate(proposal.ignored.values()):
            content["ignored"].yaml_add_eol_comment(_one_line(comment), place, side)
    if proposal.names:
        content["csv"] = _flow({"names": proposal.names})
        note = "There is no header. Name the columns anew here and above, if you like."
        content.yaml_set_comment_before_after_key("csv", before=note)
    content.yaml_set_start_comment("\n".join(_wrapped(line, 0) for line in head))
    return _dumped(content)


def _add_role(columns: CommentedMap, role: Role) -> None:
    """Add a column of the table, with its comments."""
    # What introduces the alternatives stands before them.
    doubts = sorted(role.doubts, key=lambda doubt: doubt.endswith(":"))
    above = [_wrapped(doubt, 2) for doubt in doubts]
    if role.is_open:
        columns[role.column] = CHOOSE
        above += [f"  {_alternative(role.column, reading)}" for reading in role.readings]
        if not role.readings:
            above.append(f"Write {role.column} yourself.")
    else:
        reading = role.readings[0]
        columns[role.column] = _spec(reading)
        above += _annotate(columns[role.column], reading)
    if above:
        text = "\n".join(above)
        columns.yaml_set_comment_before_after_key(role.column, before=text, indent=2)


def _spec(reading: Reading) -> Any:
    """How a mapping says it, as short as it can."""
    if list(reading.spec) == ["from"]:
        return reading.spec["from"]
    if reading.notes:
        return CommentedMap(reading.spec)
    return _flow(reading.spec)


def _annotate(spec: Any, reading: Reading) -> list[str]:
    """Put the notes beside their keys. Returns those that are too long for that."""
    above = []
    for (key, *below), note in reading.notes.items():
        if below:
            if not isinstance(spec[key], CommentedMap):
                spec[key] = CommentedMap(spec[key])
            longest = max(len(f"{word}: {spec[key][word]}") for word in spec[key])
            spec[key].yaml_add_eol_comment(_one_line(note), below[0], longest + 10)
        elif len(note) < LONG_NOTE and "\n" not in note:
            spec.yaml_add_eol_comment(_one_line(note), key)
        else:
            first, *offers = note.split("\n")
            above += [_wrapped(f"{key}: {first}", 2), *offers]
    return above


def _alternative(column: str, reading: Reading) -> str:
    """One of several readings as a line that can be copied."""
    spec = _spec(Reading(reading.spec, reading.assumed, {}))
    return _dumped(CommentedMap({column: spec})).strip()


def _only(wanted: dict[str, list[str]]) -> CommentedMap:
    return CommentedMap({name: _flow(values) for name, values in wanted.items()})


def _left_out(left_out: dict[str, int]) -> str:
    """The comment on `only`."""
    shown = ", ".join(f"{value} ({rows:,})" for value, rows in list(left_out.items())[:10])
    more = f" and {len(left_out) - 10} others" if len(left_out) > 10 else ""
    return _wrapped(
        f"Left out are rows of other values, because none of them has an article: {shown}{more}. "
        "Whatever the sample does not have is left out, too: add what you miss here and to "
        "`values`.",
        0,
    )


def _flow(value: Any) -> Any:
    """A list or object that is written on one line."""
    node = CommentedMap(value) if isinstance(value, dict) else CommentedSeq(value)
    node.fa.set_flow_style()
    return node


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _wrapped(text: str, indent: int) -> str:
    return "\n".join(textwrap.wrap(_one_line(text), WIDTH - indent, break_long_words=False))


def _dumped(content: CommentedMap) -> str:
    editor = YAML()
    editor.width = 4096
    editor.indent(mapping=2, sequence=4, offset=2)
    out = io.StringIO()
    editor.dump(content, out)
    return out.getvalue()
