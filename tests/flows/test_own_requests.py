"""A file of requests in a shop's own words is answered as the same requests in the model type's."""

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import polars as pl
import pytest

from demo import raw_files
from flows.ingest import ingest
from flows.score import score
from flows.train import train
from kreislauf.batch import answers, plan, shards
from kreislauf.batch.batch import Batch
from kreislauf.batch.report import BatchReport
from models import spec
from models.mapping import MappingError
from models.spec import Policy
from tests.models.test_mapped_requests import NUMBERS, TEXT

pytestmark = pytest.mark.usefixtures("prefect_harness", "mlflow_store")
MODEL = "session_recommender"
WORDS = {"clicks": "view", "carts": "addtocart", "orders": "transaction"}


@pytest.fixture
def shop(home: Path, small_shop: pl.DataFrame, monkeypatch: pytest.MonkeyPatch) -> pl.DataFrame:
    """Events of a shop from which version 1 was trained."""
    model_type = spec.load(MODEL)
    monkeypatch.setattr(type(model_type), "policy", Policy(min_effect=0.1))
    ingest(str(raw_files.write(small_shop, home / "raw" / "sessions.jsonl")))
    assert train(MODEL, model_type.Params.tiny().model_dump()).number == 1
    return small_shop


def plain(session: int, events: list[dict]) -> dict:
    """A request in the words of the model type."""
    return {"session": session, "events": events}


def in_own_words(session: int, events: list[dict]) -> dict:
    """The same in those of the shop: seconds, other words, a visitor as text."""
    own = [
        {"itemid": e["aid"], "timestamp": e["ts"] / 1000, "event": WORDS[e["type"]]} for e in events
    ]
    return {"visitorid": str(session), "events": own}


def write(path: Path, events: pl.DataFrame, form: Callable[[int, list[dict]], dict]) -> str:
    """A file with the requests of some sessions."""
    lines = [msgspec.json.encode(form(*session)) for session in sessions(events)]
    path.write_bytes(b"\n".join(lines))
    return str(path)


def sessions(events: pl.DataFrame) -> Iterator[tuple[int, list[dict]]]:
    """The first sessions, and the events of each."""
    for number in sorted(events["session"].unique())[:30]:
        of_session = events.filter(session=number).sort("ts")
        yield number, of_session.select("aid", "ts", pl.col("type").cast(pl.String)).to_dicts()


def answered(report: BatchReport) -> list[tuple[str, str]]:
    """Id and answer of each request."""
    assert report.refused == 0
    return answers.read(report.batch.name).select("id", "answer").rows()


def test_requests_in_own_words_get_the_answers_of_the_plain_ones(shop, tmp_path, monkeypatch):
    mapping = tmp_path / "shop.yaml"
    mapping.write_text(NUMBERS)
    as_plain = write(tmp_path / "plain.jsonl", shop, plain)
    as_own = write(tmp_path / "own.jsonl", shop, in_own_words)
    expected = answered(score(MODEL, requests=as_plain, version=1))
    assert len(expected) == 30
    monkeypatch.setattr(shards, "ANSWERS_AT_ONCE", 7)
    unread = score(MODEL, requests=as_own, version=1)
    assert unread.refused == 30
    report = score(MODEL, requests=as_own, mapping=str(mapping), version=1)
    assert answered(report) == expected
    assert report.batch.place == unread.batch.place
    assert answers.read(unread.batch.name).is_empty(), "a file is there once, as it was read last"
    assert Batch.model_validate_json(report.batch.model_dump_json()) == report.batch

    monkeypatch.setenv("KREISLAUF_MAPPING", str(mapping))
    again = score(MODEL, requests=as_own, version=1)
    assert (again.batch, again.shards_answered) == (report.batch, 0), "as the gateway reads them"
    refused = score(MODEL, requests=as_plain, version=1)
    assert refused.refused == 30
    (reason, *_) = answers.read(refused.batch.name)["refusal"]
    assert "unknown field `aid`: use it in the mapping" in reason
    assert plan.mapping_of(spec.load("session_recommender_text"), None) is None, "of another one"
    mapping.write_text(TEXT)
    with pytest.raises(MappingError, match="is for session_recommender_text, and not for"):
        score(MODEL, requests=as_own, mapping=str(mapping), version=1)
    with pytest.raises(ValueError, match="give `requests`, too"):
        score(MODEL, mapping=str(mapping), version=1)
