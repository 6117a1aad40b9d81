from pathlib import Path

import pytest
from prefect.artifacts import Artifact

from flows.inspect import inspect
from kreislauf import lake
from kreislauf.inspection.look import InspectionError
from models.session_recommender.schema import EVENTS
from tests.sources.test_shapes import SHAPES, write

pytestmark = pytest.mark.usefixtures("prefect_harness")


def test_what_a_source_has_is_shown_and_nothing_is_loaded(tmp_path: Path):
    path = tmp_path / "events.csv"
    write(SHAPES[0], path)
    out = tmp_path / "shop.yaml"
    seen = inspect(str(path), out=str(out))
    assert (seen.rows, seen.rows_loaded, seen.choices) == (4, 4, ("type",))
    assert out.read_text() == seen.mapping
    artifact = Artifact.get("inspect")
    assert artifact.data == seen.report
    assert artifact.description == f"What is in {path}"
    with pytest.raises(lake.LakeError):
        lake.read(EVENTS)
    with pytest.raises(InspectionError, match=r"shop\.yaml exists already"):
        inspect(str(path), out=str(out))
