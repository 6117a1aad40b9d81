"""The flow as a function, on a real broker, a lake on disk, and with a deployment on Prefect's test
server."""

import json
import threading
import time

import httpx
import polars as pl
import pytest
from prefect import get_client
from prefect.artifacts import Artifact

import tasks.stream
from deployments import processes
from flows.ingest import ingest
from flows.stream import stream
from kreislauf import events, lake
from kreislauf.lake import clocks, delta
from kreislauf.sources import kafka_topic
from kreislauf.sources.kafka_topic import KafkaUnreachable, MessagesLost, TopicError
from models.session_recommender.schema import EVENTS
from tasks.stream import BrokenTopic
from tests.stream_tools import T0, broker, described, forgetful, kafka, session, start_broker

__all__ = ["broker", "forgetful", "kafka"]
pytestmark = pytest.mark.usefixtures("prefect_harness")
DAY = 86_400_000


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


def sessions(first, count, **options):
    return [session(n, **options) for n in range(first, first + count)]


def test_a_topic_lands_with_accounts_and_a_second_run_goes_on(kafka, emitted):
    topic = kafka.topic(3, name="shop.Events_1")
    kafka.send(topic, sessions(0, 300))
    report = stream(topic, until_end=True, batch_messages=120)
    assert (report.table, report.topic, report.commits, report.messages_lost) == (
        "events",
        topic,
        3,
        0,
    )
    assert (report.lines_in, report.lines_loaded, report.rows_in, report.rows_kept) == (
        300,
        300,
        600,
        600,
    )
    (row,) = json.loads(Artifact.get("stream-shop-events-1-events").data)
    assert (row["topic"], row["commits"], row["rows_kept"]) == (topic, 3, 600)
    loads = lake.history(EVENTS)
    assert {(a.kind, a.source) for a in loads} == {("stream", f"kafka://{topic}")}
    assert [a.lines_in for a in loads] == [120, 120, 60]
    again = stream(topic, until_end=True)
    assert (again.commits, again.lines_in, lake.version(EVENTS)) == (0, 0, loads[-1].version)
    kafka.send(topic, sessions(300, 30))
    assert stream(topic, until_end=True).rows_kept == 60
    assert lake.read(EVENTS)["session"].unique().to_list() == list(range(330))
    assert emitted == []


def test_messages_of_one_event_and_fields_of_their_own_become_rows(kafka, tmp_path):
    topic = kafka.topic(1)
    clicks = [{"sid": n, "item": {"id": str(n)}, "at": T0 // 1000 + n} for n in range(30)]
    values = [json.dumps(click).encode() for click in clicks]
    of_registry = [b"\0\0\0\0\7" + value for value in values[:10]]
    kafka.send(topic, [*of_registry, *values[10:], b'{"sid": 1}', None], partition=0)
    path = tmp_path / "shop.yaml"
    path.write_text(
        "columns: {session: sid, aid: item.id, type: {constant: clicks}, ts: {from: at, unit: s}}"
    )
    report = stream(topic, until_end=True, mapping=str(path))
    assert (report.lines_in, report.lines_loaded, report.lines_blank) == (32, 30, 1)
    assert lake.read(EVENTS)["aid"].to_list() == list(range(30))
    (load,) = lake.history(EVENTS)
    assert load.mapping is not None
    assert [(reject.reason, reject.rule) for reject in load.reasons] == [
        ("missing-field", "`item.id` has no value")
    ]


def test_messages_of_one_event_with_the_tables_own_fields_need_no_mapping(kafka):
    topic = kafka.topic(1)
    event = {"session": 1, "aid": 2, "ts": T0, "type": "clicks"}
    kafka.send(topic, [json.dumps(event).encode(), session(2)], partition=0)
    assert stream(topic, until_end=True).rows_kept == 3


def test_bad_messages_are_kept_with_their_partition_and_offset(kafka, emitted):
    topic = kafka.topic(3)
    bad = [
        b"oops",
        b'{"session": 1,\n"events": "\xff\x00"}',
        session(50, extra=1),
        session(51)[:-1] + b"\n}}",
    ]
    odd = [None, b"", session(60).replace(b", ", b",\n "), b"\n" + session(61) + b"\r\n"]
    kafka.send(topic, sessions(0, 100), partition=0)
    kafka.send(topic, bad, partition=1)
    kafka.send(topic, odd, partition=2)
    report = stream(topic, until_end=True)
    assert (report.lines_in, report.lines_loaded, report.lines_rejected, report.lines_blank) == (
        108,
        102,
        4,
        2,
    )
    rejected = lake.rejects(EVENTS).select("source", "line", "raw").rows()
    assert rejected == [(f"kafka://{topic}/1", offset, raw) for offset, raw in enumerate(bad)]
    assert lake.read(EVENTS)["session"].unique().to_list() == [*range(100), 60, 61][:100]
    (event,) = emitted
    assert event["event"] == "kreislauf.data.rejected"
    assert (event["payload"]["count"], event["payload"]["share"], event["payload"]["stopped"]) == (
        4,
        4 / 108,
        0,
    )


def test_rejects_are_announced_at_once_and_then_rarely(kafka, emitted):
    topic = kafka.topic(1)
    kafka.send(topic, [b"oops" if n % 10 == 0 else session(n) for n in range(100)], partition=0)
    assert stream(topic, until_end=True, batch_messages=10, max_reject_share=1).commits == 10
    assert [event["payload"]["count"] for event in emitted] == [1, 9]


def test_late_events_and_what_a_file_brought_before(kafka, tmp_path):
    topic = kafka.topic(3)
    (tmp_path / "raw.jsonl").write_bytes(b"\n".join(sessions(0, 20)))
    ingest(str(tmp_path / "raw.jsonl"))
    late = sessions(5, 1, events=3, start=T0) + sessions(100, 4, start=T0 - 90 * DAY)
    kafka.send(topic, sessions(0, 20) + late + late)
    report = stream(topic, until_end=True, batch_messages=7)
    assert (report.rows_in, report.rows_kept, report.rows_duplicate) == (
        40 + 22,
        1 + 8,
        40 + 2 + 11,
    )
    assert ingest(str(tmp_path / "raw.jsonl")).files_already_loaded == 1
    assert lake.read(EVENTS).height == 40 + 1 + 8


def test_a_topic_and_a_folder_have_a_clock_each(kafka, tmp_path):
    topic = kafka.topic(3)
    folder = tmp_path / "shop" / "2026-11"
    folder.mkdir(parents=True)
    (folder / "raw.jsonl").write_bytes(b"\n".join(sessions(0, 20, start=T0 - DAY)))
    ingest(str(folder))
    kafka.send(topic, sessions(100, 20, start=T0))
    stream(topic, until_end=True)
    (folder / "rejects.jsonl").write_bytes(session(200, start=T0) + b"\nbad")
    ingest(str(folder), max_reject_share=1)
    rows = lake.read(EVENTS)
    of_topic = int(rows.filter(pl.col("session").is_between(100, 119))["ts"].max())
    of_folder = int(rows.filter(session=200)["ts"].max())
    newest = {source.name: source.clock.newest for source in clocks.sources("events")}
    assert newest == {f"kafka://{topic}": of_topic, str(tmp_path / "shop"): of_folder}
    loads = [(load.kind, load.source_name, load.newest) for load in lake.history(EVENTS)]
    assert loads[1:] == [
        ("stream", f"kafka://{topic}", of_topic),
        ("file", str(tmp_path / "shop"), of_folder),
    ]


def test_a_broken_topic_stops_the_stream_before_its_batch_is_visible(kafka, emitted):
    topic = kafka.topic(1)
    kafka.send(topic, sessions(0, 100), partition=0)
    kafka.send(topic, [b"oops"] * 50 + sessions(100, 50), partition=0)
    for _ in range(2):
        with pytest.raises(lake.TooManyRejects, match="50 of 100 lines"):
            stream(topic, until_end=True, batch_messages=100)
        assert lake.read(EVENTS).height == 200
    assert lake.rejects(EVENTS).is_empty()
    assert [(e["payload"]["count"], e["payload"]["stopped"]) for e in emitted] == [(50, 1)] * 2
    assert stream(topic, until_end=True, max_reject_share=0.5).lines_rejected == 50
    assert (lake.read(EVENTS).height, lake.rejects(EVENTS).height) == (300, 50)


def test_a_slow_topic_that_is_all_wrong_stops_the_stream(kafka):
    topic = kafka.topic(1)
    kafka.send(topic, [b"oops"] * 40, partition=0)
    with pytest.raises(BrokenTopic, match=r"20 of 20 messages .* were rejected \(100.0%\)"):
        stream(topic, until_end=True, batch_messages=5)
    assert lake.rejects(EVENTS).height == 20, "they are kept"
    kafka.send(topic, sessions(0, 400), partition=0)
    report = stream(topic, until_end=True, batch_messages=500)
    assert (report.lines_in, report.lines_rejected) == (420, 20), "it goes on behind them"


def test_of_two_streams_at_once_one_stops(kafka, monkeypatch):
    topic = kafka.topic(1)
    kafka.send(topic, [*sessions(0, 10), b"oops"], partition=0)
    load = lake.load

    def with_another_in_between(*args, **options):
        load(*args, **options)
        return load(*args, **options)

    monkeypatch.setattr(lake, "load", with_another_in_between)
    with pytest.raises(lake.Overtaken, match="Only one run may land a topic"):
        stream(topic, until_end=True)
    monkeypatch.setattr(lake, "load", load)
    assert (lake.read(EVENTS).height, lake.rejects(EVENTS).height) == (20, 1)
    assert stream(topic, until_end=True).commits == 0


def test_rejects_of_a_run_that_died_after_its_commit_follow_without_new_messages(
    kafka, monkeypatch
):
    topic = kafka.topic(1)
    kafka.send(topic, [*sessions(0, 10), b"oops"], partition=0)

    commit, calls = delta.commit, []

    def once(*args):
        calls.append(args)
        if len(calls) > 1:
            raise KeyboardInterrupt
        commit(*args)

    with monkeypatch.context() as patch:
        patch.setattr(delta, "commit", once)
        with pytest.raises(KeyboardInterrupt):
            stream(topic, until_end=True)
    assert lake.read(EVENTS).height == 20
    assert lake.rejects(EVENTS).is_empty()
    assert stream(topic, until_end=True).commits == 0
    assert lake.rejects(EVENTS)["raw"].to_list() == [b"oops"]


def test_messages_that_kafka_deleted_unread_are_counted_in_the_report(forgetful, monkeypatch):
    described(forgetful, monkeypatch)
    topic = f"gap-{time.monotonic_ns()}"
    forgetful.send(topic, sessions(0, 100), partition=0)
    assert stream(topic, until_end=True).lines_in == 100
    forgetful.send(topic, sessions(100, 8000, events=12), partition=0)
    with pytest.raises(
        MessagesLost, match=r"messages of partition 0 .* were deleted before they were read"
    ):
        stream(topic, until_end=True)
    report = stream(topic, until_end=True, skip_lost=True)
    assert 0 < report.messages_lost < 8000
    assert report.lines_in == 8000 - report.messages_lost


def test_what_cannot_pass_by_itself_says_so_at_once(kafka):
    with pytest.raises(TopicError, match="no topic 'nowhere'"):
        stream("nowhere")
    with pytest.raises(ValueError, match="No model type is called 'nothing'"):
        stream("t", model="nothing")


def test_silence_is_borne_for_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(kafka_topic, "ANSWER_SECONDS", 1)
    port = processes.free_port()
    monkeypatch.setenv("KREISLAUF_KAFKA", f"127.0.0.1:{port}")
    monkeypatch.setattr(tasks.stream, "MAX_SILENCE_SECONDS", 0)
    with pytest.raises(KafkaUnreachable, match="does not answer"):
        stream("t", until_end=True)
    monkeypatch.setattr(tasks.stream, "MAX_SILENCE_SECONDS", 60)
    started = []

    def start():
        time.sleep(3)
        broker, record = start_broker(tmp_path, port)
        started.append(record)
        broker.send(broker.topic(3, name="t"), sessions(0, 30))

    starter = threading.Thread(target=start)
    starter.start()
    try:
        while (report := patient("t")).lines_in < 30:
            continue
        assert report.rows_kept == 60
    finally:
        starter.join()
        processes.stop(started[0], 0)


def patient(topic):
    """A run that takes a topic for empty that is there only a moment later."""
    try:
        return stream(topic, until_end=True)
    except TopicError as error:
        if isinstance(error, KafkaUnreachable):
            raise
        return lake.total([])


def test_a_lake_that_was_silent_gets_every_message_once(kafka, monkeypatch):
    topic, load, calls = kafka.topic(3), lake.load, []
    kafka.send(topic, sessions(0, 300))

    def flaky(*args, **options):
        calls.append(args)
        if len(calls) == 2:
            raise lake.LakeUnreachable("no answer")
        accounts = load(*args, **options)
        if len(calls) == 4:
            raise ConnectionResetError("the answer was lost")
        return accounts

    monkeypatch.setattr(lake, "load", flaky)
    stream(topic, until_end=True, batch_messages=100)
    assert len(calls) == 4
    monkeypatch.setattr(lake, "load", load)
    assert lake.read(EVENTS).height == 600
    assert lake.total(lake.history(EVENTS)).rows_duplicate == 0


@pytest.fixture
def deployment(monkeypatch):
    """The id of a deployment of the flow, whose run is what the test runs."""
    monkeypatch.setattr(tasks.stream, "CHECK_SECONDS", 0.2)
    deployment_id = stream.to_deployment("stream").apply()
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", str(deployment_id))
    with get_client(sync_client=True) as client:
        client.resume_deployment(deployment_id)
        yield client, deployment_id
        client.delete_deployment(deployment_id)


def test_a_run_ends_when_its_deployment_is_paused(kafka, deployment):
    client, deployment_id = deployment
    topic = kafka.topic(3)
    kafka.send(topic, sessions(0, 30))
    timer = threading.Timer(3, lambda: client.pause_deployment(deployment_id))
    timer.start()
    start = time.monotonic()
    assert stream(topic, batch_seconds=60).rows_kept == 60, "what had been read by then has landed"
    assert 3 < time.monotonic() - start < 10
    kafka.send(topic, sessions(30, 30))
    assert stream(topic).commits == 0
    assert stream(topic, until_end=True).rows_kept == 60, "a run that ends by itself may go beside"


def test_a_pause_ends_a_run_well_that_waits_for_kafka(deployment, monkeypatch):
    client, deployment_id = deployment
    monkeypatch.setattr(kafka_topic, "ANSWER_SECONDS", 1)
    monkeypatch.setenv("KREISLAUF_KAFKA", f"127.0.0.1:{processes.free_port()}")
    threading.Timer(2, lambda: client.pause_deployment(deployment_id)).start()
    assert stream("t").commits == 0


def test_a_run_ends_when_a_newer_one_is_due(kafka, deployment):
    client, deployment_id = deployment
    topic = kafka.topic(3)
    kafka.send(topic, sessions(0, 30))
    later = client.create_flow_run_from_deployment(deployment_id, parameters={"topic": topic})
    assert later.state.is_scheduled()
    assert stream(topic, batch_seconds=1).rows_kept in (0, 60)
    client.delete_flow_run(later.id)


def test_a_prefect_server_that_does_not_answer_does_not_stop_the_stream(
    kafka, deployment, monkeypatch
):
    topic = kafka.topic(3)
    kafka.send(topic, sessions(0, 30))
    answers = iter([*[httpx.ConnectError("no"), httpx.ReadTimeout("no")] * 8, "Enough."])

    def answer(_):
        reason = next(answers)
        if isinstance(reason, Exception):
            raise reason
        return reason

    monkeypatch.setattr(tasks.stream, "reason_to_end", answer)
    assert stream(topic, batch_seconds=60).rows_kept == 60
