"""The examples of docs/own_data.md: each sample is loaded by the mapping below it."""

import re
from pathlib import Path

import pytest

from kreislauf import lake, sources
from models import mapping as mappings
from tests.conftest import ROOT

TEXT = (ROOT / "docs" / "own_data.md").read_text()
EXAMPLES = {part.splitlines()[0]: part for part in TEXT.split("\n## ")[1:] if "```yaml\n" in part}
EXPECTED = {
    "An export with text": [
        ("0-a7c4", "SKU-1001496", 1767225620000, "clicks"),
        ("0-a7c4", "SKU-1001212", 1767225640000, "carts"),
        ("0-a7c4", "SKU-1001212", 1767225670000, "orders"),
    ],
    "Whole numbers and times in seconds": [
        (257597, 355908, 1433221332117, "clicks"),
        (992329, 248676, 1433224214164, "carts"),
        (111016, 318965, 1433222276276, "orders"),
    ],
    "Objects in JSON lines, or a Kafka topic": [
        ("b3f1-77", "MUG-1", 1772442900120, "clicks"),
        ("b3f1-77", "MUG-1", 1772442970000, "carts"),
    ],
}


def test_there_are_three_examples():
    assert list(EXAMPLES) == list(EXPECTED)


@pytest.mark.parametrize("title", EXPECTED)
def test_an_example_is_loaded_by_its_mapping(title: str, tmp_path: Path):
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", EXAMPLES[title], re.DOTALL | re.MULTILINE)
    sample = next(text for language, text in blocks if not language)
    path = tmp_path / ("a.jsonl" if sample.startswith("{") else "a.csv")
    path.write_text(sample)
    file = tmp_path / "shop.yaml"
    file.write_text(next(text for language, text in blocks if language == "yaml"))
    model_type, mapping = mappings.find(str(file), None)
    table = model_type.table
    accounts = lake.load_file(table, sources.open_file(str(path), table, mapping))
    assert (accounts.lines_rejected, accounts.lines_in) == (0, 3)
    assert sorted(lake.read(table).rows()) == sorted(EXPECTED[title])
