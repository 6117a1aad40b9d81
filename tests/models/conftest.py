"""The model type of docs/add_your_model.md."""

from pathlib import Path

import pytest

from tests import documented

PAGE = documented.texts()["docs/add_your_model.md"]


@pytest.fixture
def bestseller(other_models: Path) -> str:
    """Its name; its files lie on the path, as the page has them."""
    for name, content in documented.files(PAGE).items():
        path = other_models.parent / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    return "bestseller"
