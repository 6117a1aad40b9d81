"""Ids as shops have them: text, negative numbers, and numbers that int64 does not hold."""

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from flows.ingest import IngestError, ingest
from kreislauf import lake
from models import mapping as mappings
from models import spec
from tests.kreislauf.lake.test_lake import T0

TEXT = spec.load("session_recommender_text")
COLUMNS = "columns: {session: s, aid: a, ts: {from: t, unit: ms}, type: {constant: clicks}}\n"
pytestmark = pytest.mark.usefixtures("prefect_harness")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "raw" / "a"


def write(path: Path, text: str, ending: str) -> str:
    path = path.with_suffix(ending)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return str(path)


def sessions(session: Callable[[int], object], article: Callable[[int], object]) -> str:
    """Lines of 30 sessions with three events each, their ids as the functions write the numbers."""
    lines = []
    for number in range(30):
        events = [{"aid": article(i), "ts": T0 + 1_000 * i, "type": "clicks"} for i in range(3)]
        lines.append(json.dumps({"session": session(number), "events": events}))
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("lines", "articles", "session"),
    [
        (sessions(lambda n: n, lambda i: f"SKU-{i}"), "SKU-0", "0"),
        (
            sessions(lambda n: f"3f2a{n:04x}-0000-4000-8000-000000000000", lambda i: 103 + i),
            "103",
            "3f2a0000-0000-4000-8000-000000000000",
        ),
    ],
    ids=["sku", "uuid"],
)
def test_sessions_with_text_are_taken_by_the_model_type_of_text_and_named_by_the_other(
    path, lines, articles, session
):
    source = write(path, lines, ".jsonl")
    with pytest.raises(IngestError, match=r"name the model type session_recommender_text: docs/"):
        ingest(source)
    report = ingest(source, TEXT.name)
    assert (report.table, report.lines_rejected) == ("text_events", 0)
    first = lake.read(TEXT.table).sort("session", "ts").row(0, named=True)
    assert (first["aid"], first["session"]) == (articles, session)


def test_numbers_of_any_size_are_their_digits_in_every_format(path):
    ids = [-5, 0, 2**53 + 1, 2**63, 2**64 - 1]
    lines = [f'{{"session": {n}, "aid": {n}, "ts": {T0}, "type": "clicks"}}' for n in ids]
    rows = [f"{n},{n},{T0},clicks" for n in ids]
    sources = [
        write(path, "\n".join(lines), ".jsonl"),
        write(
            path, "session,aid,ts,type\n" + "".join(f"{n},{n},{T0},clicks\n" for n in ids), ".csv"
        ),
    ]
    signed = pl.Series([-5, 0, 2**53 + 1])
    unsigned = pl.Series([2**63, 2**64 - 1], dtype=pl.UInt64)
    for number, aid in enumerate((signed, unsigned)):
        frame = pl.DataFrame({"session": aid, "aid": aid}).with_columns(
            ts=T0, type=pl.lit("clicks")
        )
        frame.write_parquet(path.parent / f"{number}.parquet")
        sources.append(str(path.parent / f"{number}.parquet"))
    kept = [ingest(source, TEXT.name).rows_kept for source in sources]
    assert kept == [5, 0, 0, 0], "the same rows in every format"
    rows = lake.read(TEXT.table).select("session", "aid").rows()
    assert sorted(rows) == sorted((str(n), str(n)) for n in ids)


def test_ids_are_the_same_however_a_program_writes_them(path):
    mapping = write(path, f"model: {TEXT.name}\n{COLUMNS}", ".yaml")
    lines = [
        f'{{"s": {session}, "a": {aid}, "t": {T0}}}'
        for session, aid in [("19", "7"), ('"19"', "8.0"), ("19.0", '" SKU-1 "'), ('"x"', '"1.50"')]
    ]
    rows = ["19,7", "19.0,8.0", " 19, SKU-1 ", "x,1.50"]
    frame = pl.DataFrame({"s": [19.0, 19.0], "a": [7.0, 8.0], "t": T0})
    frame.write_parquet(write(path, "", ".parquet"))
    sources = [
        write(path, "\n".join(lines), ".jsonl"),
        write(path, "s,a,t\n" + "".join(f"{row},{T0}\n" for row in rows), ".csv"),
        f"{path}.parquet",
    ]
    kept = [ingest(source, mapping=mapping).rows_kept for source in sources]
    assert kept == [4, 0, 0]
    stored = lake.read(TEXT.table).select("session", "aid").rows()
    assert sorted(stored) == [("19", "7"), ("19", "8"), ("19", "SKU-1"), ("x", "1.50")]


def test_what_stands_for_no_value_is_no_id(path):
    mapping = write(path, f"model: {TEXT.name}\n{COLUMNS}", ".yaml")
    source = write(path, f"s,a,t\nx,1,{T0}\nx,\\N,{T0}\nx, ,{T0}\n", ".csv")
    report = ingest(source, max_reject_share=1, mapping=mapping)
    assert (report.rows_kept, report.lines_rejected) == (1, 2)
    pl.DataFrame({"s": "y", "a": [1.0, float("nan")], "t": T0}).write_parquet(f"{path}.parquet")
    report = ingest(f"{path}.parquet", max_reject_share=1, mapping=mapping)
    assert (report.rows_kept, report.lines_rejected) == (1, 1)


def test_a_mapping_names_the_model_type(path):
    source = write(path, f"s,a,t\nx,Ä-1,{T0}\n,b,{T0}\n{'y' * 101},b,{T0}\n", ".csv")
    mapping = write(path, f"model: {TEXT.name}\n{COLUMNS}", ".yaml")
    report = ingest(source, max_reject_share=1, mapping=mapping)
    assert (report.table, report.rows_kept, report.lines_rejected) == ("text_events", 1, 2)
    assert lake.read(TEXT.table)["aid"].to_list() == ["Ä-1"]
    rules = sorted(lake.rejects(TEXT.table)["rule"])
    assert rules == [
        f"Expected `session` to be of length 1, 100, got '{'y' * 40}'",
        "`s` has no value",
    ]
    with pytest.raises(mappings.MappingError, match="is for session_recommender_text, and not"):
        ingest(source, "session_recommender", mapping=mapping)


def test_a_model_type_that_there_is_not_is_named(path):
    mapping = write(path, f"model: shoes\n{COLUMNS}", ".yaml")
    with pytest.raises(ValueError, match="No model type is called 'shoes'"):
        ingest("nothing.csv", mapping=mapping)
