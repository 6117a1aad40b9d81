"""Files as people deliver them: of another kind, empty, or with names that nobody reads."""

import gzip
import json
import zipfile
from pathlib import Path

import polars as pl
import pytest
from prefect.artifacts import Artifact

from flows.ingest import IngestError, ingest
from kreislauf import lake
from models import spec

pytestmark = pytest.mark.usefixtures("prefect_harness")
EVENTS = spec.load("session_recommender").table


def session(number: int, ts: int = 1_661_724_000_000) -> dict:
    """A line as it should be."""
    return {"session": number, "events": [{"aid": 5, "ts": ts + number, "type": "clicks"}]}


def jsonl(sessions: list[dict]) -> bytes:
    """Lines of JSON."""
    return "".join(json.dumps(each) + "\n" for each in sessions).encode()


GOOD = [session(number) for number in range(5)]


def zipped(path: Path) -> bytes:
    """A zip archive with good lines."""
    with zipfile.ZipFile(path.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jsonl", jsonl(GOOD))
    content = path.with_suffix(".zip").read_bytes()
    path.with_suffix(".zip").unlink()
    return content


KINDS = {
    "UTF-16 text: convert it to UTF-8": lambda _: jsonl(GOOD).decode().encode("utf-16"),
    "a gzip file: its name has to end in .gz": lambda _: gzip.compress(jsonl(GOOD)),
    "a zip archive: unpack it": zipped,
    "a web page or XML": lambda _: b"<html>\n<body>502 Bad Gateway</body>\n</html>\n",
    "a JSON array: write each": lambda _: json.dumps(GOOD).encode(),
    "CSV, whose name has to": lambda _: b"session,aid,ts,type\n0,100,1661724000278,clicks\n",
    "rows with other fields or values": lambda _: jsonl([session(1, 1_661_724_000)]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_which_nothing_can_be_read_fails_however_small_and_says_what_it_is(
    tmp_path, kind
):
    path = tmp_path / "small.jsonl"
    path.write_bytes(KINDS[kind](path))
    for _ in range(2):  # It never counts as loaded.
        with pytest.raises(IngestError, match=f"it looks like {kind}"):
            ingest(str(path))
    assert lake.rejects(EVENTS).is_empty()
    path.write_bytes(jsonl(GOOD))
    assert ingest(str(path)).rows_kept == 5


def test_a_single_bad_line_beside_good_ones_is_quarantined(tmp_path):
    path = tmp_path / "most.jsonl"
    path.write_bytes(jsonl(GOOD) + b"oops\n\n")
    report = ingest(str(path))
    assert (report.lines_loaded, report.lines_rejected, report.lines_blank) == (5, 1, 1)


def test_empty_parts_are_loaded_with_no_lines(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(jsonl(GOOD))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b""))
    (tmp_path / "d.jsonl").write_bytes(b"\n\n")
    rows = {"session": [1], "events": [[{"aid": 1, "ts": 2, "type": "clicks"}]]}
    pl.DataFrame(rows).clear().write_parquet(tmp_path / "e.parquet")
    report = ingest(str(tmp_path))
    assert (report.files_loaded, report.lines_loaded, report.lines_rejected) == (4, 5, 0)


def test_files_that_are_left_alone_are_named(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(jsonl(GOOD))
    names = ["b.tsv", "d.jsonl.bz2"]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "C.JSONL").write_bytes(jsonl([session(7, 1_661_724_000_000)]))
    (tmp_path / "b.ndjson").write_bytes(jsonl([session(8, 1_661_724_000_000)]))
    packed = gzip.compress(jsonl([session(9, 1_661_724_000_000)]))
    (tmp_path / "part-00000.json.gz").write_bytes(packed)
    report = ingest(str(tmp_path))
    assert (report.files_loaded, report.rows_kept) == (4, 8)
    assert report.left_alone == tuple(str(tmp_path / name) for name in names)
    rows = json.loads(Artifact.get("ingest-events").data)
    assert [row["file"] for row in rows if row["state"] == "left alone"] == list(report.left_alone)
