"""The pages lead somewhere: each link to a file or a heading of this repository, and the README
stays short."""

import re
import statistics
from pathlib import Path

import pytest

from benchmarks.words import sentence_lengths
from tests import documented
from tests.conftest import ROOT

MOST_LINES = 150
MOST_WORDS = 1200
MEDIAN_WORDS = 16
COMMENT = re.compile(r"<!--.*?-->", re.S)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def links(text: str) -> list[str]:
    """Targets of the links and pictures outside blocks and comments, without those of the web."""
    shown = COMMENT.sub("", documented.FENCE.sub("", text))
    return [target for target in LINK.findall(shown) if not target.startswith("http")]


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    text = documented.FENCE.sub("", page.read_text())
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def leads_nowhere(place: str, target: str) -> bool:
    """Whether a link of the page `place` names no file, or no heading of its page."""
    name, _, anchor = target.partition("#")
    page = ROOT / place
    if name:
        page = (page.parent / name).resolve()
    return not page.exists() or bool(anchor and anchor not in anchors(page))


@pytest.mark.parametrize(("place", "text"), documented.texts().items())
def test_each_link_of_a_page_leads_somewhere(place: str, text: str):
    assert [target for target in links(text) if leads_nowhere(place, target)] == []


def test_a_link_that_leads_nowhere_is_noticed():
    text = "[a](data.md) [b](data.md#quarantine) [c](data.md#nothing) ![d](nothing.svg) [e](#none)"
    wrong = [target for target in links(text) if leads_nowhere("docs/README.md", target)]
    assert wrong == ["data.md#nothing", "nothing.svg", "#none"]


def test_the_readme_is_short():
    text = documented.texts()["README.md"]
    assert len(text.splitlines()) <= MOST_LINES
    assert len(text.split()) <= MOST_WORDS
    assert statistics.median(sentence_lengths(text)) <= MEDIAN_WORDS
