import gzip
import json
from types import SimpleNamespace

import polars as pl
import pytest
from prefect.artifacts import Artifact

from flows import ingest as flow
from flows.ingest import IngestError, ingest
from flows.replay import replay
from flows.tidy import tidy
from kreislauf import events, lake, registry, sources
from kreislauf.lake import delta, open_tables
from kreislauf.sources import SourceError, SourceUnreachable
from models import spec
from models.session_recommender.schema import EVENTS
from tests.kreislauf.lake.test_lake import WIDER

pytestmark = pytest.mark.usefixtures("prefect_harness")
T0 = 1_700_000_000_000


def sessions(first, count, per_session=3):
    """Raw content: sessions in OTTO's format, their numbers from `first` on."""
    shaped = (
        {
            "session": n,
            "events": [
                {"aid": n + i, "ts": T0 + 1000 * (n + i), "type": "clicks"}
                for i in range(per_session)
            ],
        }
        for n in range(first, first + count)
    )
    return b"".join(json.dumps(s).encode() + b"\n" for s in shaped)


@pytest.fixture
def shop(tmp_path):
    """A folder of two sound raw files with 10 and 5 sessions."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(sessions(0, 10))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(sessions(10, 5)))
    return folder


@pytest.fixture
def emitted(monkeypatch):
    """Events as they are handed to Prefect, which still gets them."""
    emissions = []
    emit = events.emit_event

    def record(**event):
        emissions.append(event)
        return emit(**event)

    monkeypatch.setattr(events, "emit_event", record)
    return emissions


def test_folder_is_loaded_and_the_accounts_are_shown(shop, emitted):
    report = ingest(str(shop))
    assert (report.table, report.files_loaded, report.files_already_loaded) == ("events", 2, 0)
    assert (report.lines_in, report.lines_loaded, report.rows_in, report.rows_kept) == (
        15,
        15,
        45,
        45,
    )
    assert lake.read(EVENTS).height == 45
    shown = json.loads(Artifact.get("ingest-events").data)
    assert [(row["file"], row["state"], row["rows_kept"]) for row in shown] == [
        (str(shop / "a.jsonl"), "loaded", 30),
        (str(shop / "b.jsonl.gz"), "loaded", 15),
    ]
    assert emitted == []


def test_second_run_loads_only_what_is_new(shop, emitted):
    (shop / "b.jsonl.gz").write_bytes(gzip.compress(sessions(10, 5) + b"oops\n"))
    ingest(str(shop))
    version = lake.version(EVENTS)
    emitted.clear()
    again = ingest(str(shop))
    assert (
        again.files_loaded,
        again.files_already_loaded,
        again.rows_in,
        again.lines_rejected,
    ) == (0, 2, 0, 0)
    assert lake.version(EVENTS) == version
    assert emitted == []
    (shop / "c.jsonl").write_bytes(sessions(14, 2))
    third = ingest(str(shop))
    assert (third.files_loaded, third.rows_kept, third.rows_duplicate) == (1, 3, 3)


def test_a_folder_of_many_files_is_opened_once_and_merged(tmp_path, monkeypatch):
    monkeypatch.setattr(flow, "MERGE_LOADS", 5)
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(sessions(100, 1))
    ingest(str(folder))
    for number in range(12):
        (folder / f"b{number:02}.jsonl").write_bytes(sessions(number, 1))
    opened = []
    open_table = open_tables.opened
    monkeypatch.setattr(
        open_tables, "opened", lambda address: opened.append(address) or open_table(address)
    )
    report = ingest(str(folder))
    assert report.files_loaded == 12
    assert len(opened) <= 8, "the log is read from its start once, not for each file"
    assert delta.files(delta.find("events")).height == 3, "two are of those that were merged"
    assert lake.read(EVENTS).height == 39
    read = []
    monkeypatch.setattr(sources, "open_file", lambda *arguments: read.append(arguments))
    opened.clear()
    again = ingest(str(folder))
    assert again.files_already_loaded == 13
    assert [load.version for load in again.files] == [load.version for load in report.files]
    assert all(load.already_loaded for load in again.files)
    assert read == []
    assert len(opened) == 1


def test_session_ids_that_restart_and_a_bot_are_named_when_they_are_loaded(tmp_path, caplog):
    day = 86_400_000
    lines = [
        {"session": n, "events": [{"aid": n, "ts": T0 + d * day + n, "type": "clicks"}]}
        for d in range(4)
        for n in range(40)
    ]
    clicks = [{"aid": n, "ts": T0 + 3 * day + n, "type": "clicks"} for n in range(600)]
    lines.append({"session": 999, "events": clicks})
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    bot, restart = ingest(str(tmp_path / "a.jsonl")).remarks
    assert bot.startswith(
        "1 sessions with more than 500 rows (the largest: 999, 600 rows) hold 79%"
    )
    assert restart.startswith("Session ids seem to restart: 100% of a day's sessions have rows on")
    assert {bot, restart} <= set(caplog.messages)
    assert ingest(str(tmp_path / "a.jsonl")).remarks == (), "nothing new"


def test_bad_files_do_not_stop_the_others_and_are_all_named(shop):
    (shop / "a-cut.jsonl.gz").write_bytes(gzip.compress(sessions(20, 50))[:-30])
    (shop / "a-empty.jsonl").write_bytes(b"")
    with pytest.raises(IngestError) as caught:
        ingest(str(shop))
    message = str(caught.value)
    assert "2 of 4 files could not be loaded" in message
    assert f"- {shop}/a-cut.jsonl.gz: {shop}/a-cut.jsonl.gz is cut off" in message
    assert f"- {shop}/a-empty.jsonl: {shop}/a-empty.jsonl is empty" in message
    assert "The other 2 are loaded" in message
    assert lake.read(EVENTS).height == 45
    (shop / "a-cut.jsonl.gz").write_bytes(gzip.compress(sessions(20, 50)))
    (shop / "a-empty.jsonl").unlink()
    report = ingest(str(shop))
    assert (report.files_loaded, report.files_already_loaded, report.rows_kept) == (1, 2, 150)


def test_rejected_lines_raise_an_event_with_the_most_frequent_reasons(shop, emitted):
    bad = (
        sessions(30, 3).replace(b"clicks", b"views")
        + b"oops\n" * 2
        + sessions(40, 1).replace(b"40", b"-1")
        + b"{}\n"
    )
    (shop / "c.jsonl").write_bytes(bad)
    report = ingest(str(shop), max_reject_share=1)
    (event,) = emitted
    assert event["event"] == "kreislauf.data.rejected"
    assert event["resource"]["prefect.resource.id"] == "kreislauf.table.events"
    payload = event["payload"]
    assert (
        (payload["count"], payload["share"])
        == (7, 7 / 22)
        == (report.lines_rejected, 7 / report.lines_in)
    )
    assert [entry["lines"] for entry in payload["reasons"]] == [3, 2, 1, 1]
    worst = {
        "reason": "unknown-value",
        "rule": "Invalid enum value 'views' - at `$.events[...].type`",
        "lines": 3,
    }
    assert payload["reasons"][0] == worst
    assert "7 of 22 lines (31.8%)" in payload["reason"]


def test_passing_trouble_is_retried_and_broken_files_are_not(shop, monkeypatch):
    (shop / "c.jsonl").write_bytes(b"")
    calls = []

    def flaky(path, table, mapping):
        calls.append(path)
        if path.endswith("a.jsonl") and calls.count(path) == 1:
            raise SourceUnreachable("S3 did not answer")
        return open_file(path, table, mapping)

    open_file = sources.open_file
    monkeypatch.setattr(sources, "open_file", flaky)
    with pytest.raises(IngestError, match="1 of 3 files"):
        ingest(str(shop))
    assert [path[len(str(shop)) + 1 :] for path in calls] == [
        "a.jsonl",
        "a.jsonl",
        "b.jsonl.gz",
        "c.jsonl",
    ]
    assert lake.read(EVENTS).height == 45


def test_names_from_outside_are_cut_before_the_commit_and_the_event_is_small(shop, emitted):
    """Prefect takes no event above 1.5 MB, and said so when the rows were in the table."""
    names = [f"{n}".zfill(800_000) for n in range(12)]
    lines = [json.dumps({"session": 1, name: 2, "events": []}).encode() for name in names]
    (shop / "c.jsonl").write_bytes(b"\n".join(lines))
    report = ingest(str(shop), max_reject_share=1)
    assert (report.lines_rejected, report.rows_kept) == (12, 45)
    (event,) = emitted
    assert len(json.dumps(event)) < 10_000
    assert sum(entry["lines"] for entry in event["payload"]["reasons"]) == 12
    assert lake.rejects(EVENTS)["rule"].str.len_chars().max() < 250
    assert lake.rejects(EVENTS)["raw"].bin.size().min() > 800_000, "the line itself is whole"


def test_broken_source_is_stopped_before_it_is_visible_and_says_so(shop, emitted):
    (shop / "c.jsonl").write_bytes(b"<html>502</html>\n" * 40 + sessions(60, 2))
    with pytest.raises(
        IngestError,
        match=r"1 of 3 files.*\n- .*c.jsonl: 40 of 42 lines \(95.2%\) would be rejected",
    ):
        ingest(str(shop))
    assert lake.read(EVENTS).height == 45
    assert lake.rejects(EVENTS).is_empty()
    (event,) = emitted
    assert (event["payload"]["count"], event["payload"]["stopped"]) == (40, 1)
    assert "1 load(s) were stopped" in event["payload"]["reason"]
    assert ingest(str(shop), max_reject_share=1.0).lines_rejected == 40


def test_replay_brings_back_what_a_mended_rule_lets_pass(shop, emitted, monkeypatch):
    (shop / "c.jsonl").write_bytes(sessions(70, 2).replace(b"clicks", b"views") + b"oops\n")
    ingest(str(shop), max_reject_share=1)
    assert lake.rejects(EVENTS).height == 3
    monkeypatch.setattr(type(spec.load("session_recommender")), "table", WIDER)
    report = replay(reason="unknown-value")
    assert (report.lines_in, report.lines_loaded, report.lines_rejected, report.rows_kept) == (
        3,
        2,
        1,
        6,
    )
    assert lake.read(WIDER).filter(pl.col("type") == "views").height == 6
    assert lake.rejects(WIDER)["raw"].to_list() == [b"oops"]
    shown = json.loads(Artifact.get("replay-events").data)
    assert [row["source"] for row in shown] == [str(shop / "c.jsonl")]
    assert replay(reason="unknown-value").sources == ()


def test_tidy_keeps_what_models_were_trained_from(shop, mlflow_store, monkeypatch):
    ingest(str(shop))
    (shop / "c.jsonl").write_bytes(sessions(80, 2))
    ingest(str(shop))
    old = lake.read(EVENTS, version=1)
    monkeypatch.setattr(
        registry, "lineages", lambda: [SimpleNamespace(table="events", table_version=1)]
    )
    (tidied,) = tidy(retention_hours=0)
    assert (tidied.table, tidied.merged, tidied.swept) == ("events", 2, 2)
    assert lake.read(EVENTS, version=1).equals(old)
    assert lake.read(EVENTS).height == 51


def test_wrong_source_or_model_says_so(tmp_path):
    with pytest.raises(SourceError, match="does not exist"):
        ingest(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="No model type is called 'nothing'"):
        ingest(str(tmp_path), model="nothing")


def test_every_event_of_real_otto_data_survives(shared):
    source = shared / "otto-sample" / "sessions.jsonl"
    report = ingest(str(source))
    lines = [json.loads(line) for line in source.read_bytes().splitlines()]
    wanted = {(s["session"], e["aid"], e["ts"], e["type"]) for s in lines for e in s["events"]}
    assert set(lake.read(EVENTS).rows()) == wanted
    assert report.rows_kept + report.rows_duplicate + report.rows_rejected == sum(
        len(s["events"]) for s in lines
    )
