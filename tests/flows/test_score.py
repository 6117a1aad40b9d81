"""Batches: every request is answered once, by the file that Triton serves, whatever is killed."""

import gzip
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import msgspec
import polars as pl
import pytest
from prefect.settings import PREFECT_API_URL
from prefect.task_runners import ProcessPoolTaskRunner

from flows.ingest import ingest
from flows.retrain import retrain
from flows.score import score
from flows.tidy import tidy
from kreislauf import lake, registry
from kreislauf.batch import answers, plan, questions, shards
from kreislauf.clock import DAY_MS
from kreislauf.lake import delta, storage
from kreislauf.release import triton
from kreislauf.sources import SourceError
from models import spec
from tests.conftest import ROOT
from tests.flows.test_loop import one_release

pytestmark = pytest.mark.usefixtures("prefect_harness", "mlflow_store", "triton")
START = datetime.fromtimestamp(1_700_000_000, UTC)


def day(number: int) -> datetime:
    """Beginning of a day of the orders."""
    return START + timedelta(days=number)


@pytest.fixture
def four_shards(monkeypatch) -> None:
    """A model so slow that every batch has four shards, each in portions of a few answers."""
    seconds = 3.5 * plan.SHARD_SECONDS
    monkeypatch.setattr(plan, "seconds", lambda batch: seconds)
    monkeypatch.setattr(plan, "CORES", 4)
    monkeypatch.setattr(shards, "ANSWERS_AT_ONCE", 64)


@pytest.fixture
def live(prepared) -> str:
    """A model type with a live version, learnt from 20 days of 200 orders."""
    return prepared(one_release)


def test_a_batch_answers_as_triton_does_and_once(live, four_shards):
    report = score(live, day(5), day(15))
    assert report.batch.units == report.answered == 2_000
    assert report.batch.shards == report.shards_answered == 4
    assert report.batch.onnx == registry.get(live, 1).digests["model.onnx"]

    rows = answers.read(report.batch.name)
    assert sorted(map(int, rows["id"])) == list(range(1_000, 3_000))
    assert rows["request_id"].n_unique() == 2_000
    assert rows["ts"].unique().to_list() == [int(day(15).timestamp() * 1000) - 1]
    assert rows["onnx"].unique().to_list() == [report.batch.onnx]
    model_type = spec.load(live)
    orders = lake.read(model_type.table).sort("order")[1_000:3_000]
    examples = model_type.examples(orders)
    served = model_type.answers(triton.ask(live, 1, examples.inputs))
    by_order = dict(rows.select(pl.col("id").cast(pl.Int64), "answer").iter_rows())
    assert [json.loads(by_order[order]) for order in orders["order"]] == served
    assert {answer["returned"] for answer in served} == {True, False}

    again = score(live, day(5), day(15))
    assert again.shards_answered == 0
    assert again == report.model_copy(update={"shards_answered": 0})
    assert answers.read(report.batch.name).equals(rows)
    tidied = {report.table: report.merged for report in tidy(retention_hours=0)}
    assert tidied[answers.ANSWERS] == 3, "four shards are one file now"
    assert answers.read(report.batch.name).equals(rows)


def test_new_rows_of_a_window_replace_its_answers(live, orders):
    first = score(live, day(19), day(22))
    assert first.answered == 200
    ingest(orders(20, 21, threshold=50), live)
    second = score(live, day(19), day(22))
    assert second.answered == 400
    assert second.batch.place == first.batch.place
    assert answers.read(first.batch.name).is_empty()
    assert len(answers.read(second.batch.name)) == 400
    neighbour = score(live, day(18), day(19))
    assert neighbour.answered == 200
    assert len(answers.read(second.batch.name)) == 400, "another window is another batch"


def test_by_default_the_live_version_answers_the_newest_whole_day(live):
    report = score(live)
    watermark = lake.watermark(spec.load(live).table)
    assert report.batch.end == (watermark + 1) // DAY_MS * DAY_MS
    assert report.batch.start == report.batch.end - DAY_MS
    assert report.batch.version == 1
    assert report.answered == 200


def test_a_file_of_requests_is_answered_line_by_line(live, tmp_path):
    lines = [
        b'{"price": 10}',
        b'{"price": 150, "id": "mine"}',
        b"",
        b'{"price": "dear"}',
        b"[1]",
        b"{",
        b'{"price": 199}',
        b"[" * 5_000,
        b'{"price": 1, "id": null}',
        b'{"price": 1, "id": {"a": 1}}',
        b'{"price": 1, "id": 7}',
    ]
    path = tmp_path / "requests.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n".join(lines)))
    report = score(live, requests=str(path))
    assert (report.answered, report.refused) == (5, 5)
    rows = answers.read(report.batch.name)
    assert rows["request_id"].n_unique() == 10
    assert rows["id"].to_list().count("7") == 2, "a line is its number, whatever others are called"
    by_id = {row["id"]: row for row in rows.iter_rows(named=True)}
    assert set(by_id) == {"1", "mine", "4", "5", "6", "7", "8", "9", "10"}
    assert by_id["8"]["answer"] is None
    assert '"id" must be text' in by_id["10"]["refusal"]
    assert json.loads(by_id["1"]["answer"]) == {"returned": False}
    assert json.loads(by_id["mine"]["answer"]) == {"returned": True}
    assert by_id["4"]["answer"] is None
    assert by_id["4"]["refusal"] == 'Line 4: "price" must be a number.'
    assert "an object of JSON" in by_id["5"]["refusal"]
    assert by_id["6"]["refusal"].startswith("Line 6: ")
    again = score(live, requests=str(path))
    assert again.shards_answered == 0


def test_what_cannot_be_scored_is_said(live, tmp_path):
    with pytest.raises(ValueError, match="is empty"):
        score(live, day(5), day(5))
    with pytest.raises(ValueError, match="not both"):
        score(live, day(5), requests="requests.jsonl")
    with pytest.raises(SourceError, match="does not exist"):
        score(live, requests=str(tmp_path / "absent.jsonl"))
    table = tmp_path / "requests.csv"
    table.write_text("price\n3\n")
    with pytest.raises(SourceError, match="JSON lines"):
        score(live, requests=str(table))
    with pytest.raises(ValueError, match=r"Nothing of search_ranker is live"):
        score("search_ranker")
    with pytest.raises(registry.RegistryError):
        score(live, day(5), day(6), version=7)
    assert score(live, day(90), day(91)).answered == 0


def know(folder: str) -> None:
    """Let this process have the model types of a folder `models`, too."""
    import models

    models.__path__.append(folder)


@pytest.mark.slow
def test_processes_answer_as_threads_do(live, four_shards, other_models):
    report = score(live, day(5), day(15))
    by_threads = answers.read(report.batch.name).sort("request_id")
    shutil.rmtree(storage.uri(answers.ANSWERS))
    pool = ProcessPoolTaskRunner(2, initializer=know, initargs=(str(other_models),))
    again = score.with_options(task_runner=pool)(live, day(5), day(15))
    assert again == report
    assert answers.read(report.batch.name).sort("request_id").equals(by_threads)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["disk", "s3"])
def test_a_shard_is_answered_once_whatever_is_killed(
    where, tiny, orders, other_models, request, four_shards, monkeypatch
):
    if where == "s3":
        request.getfixturevalue("s3_lake")
    ingest(orders(0, 20, threshold=50), tiny)
    assert retrain(tiny).release == 1
    window = (int(day(0).timestamp() * 1000), int(day(20).timestamp() * 1000))
    batch = plan.of_window(registry.get(tiny, 1), *window)
    assert batch.shards == 4
    code = (
        "import os, signal, sys\n"
        "from kreislauf.batch import shards\n"
        "from kreislauf.batch.batch import Batch\n"
        "batch = Batch.model_validate_json(sys.argv[1])\n"
        "shards.write(batch, 0)\n"
        "shards.write(batch, 1)\n"
        "shards.session = lambda batch: os.kill(os.getpid(), signal.SIGKILL)\n"
        "shards.write(batch, 2)\n"
    )
    env = os.environ | {
        "PYTHONPATH": f"{ROOT}:{other_models.parent}",
        "PREFECT_API_URL": str(PREFECT_API_URL.value()),
    }
    command = [sys.executable, "-c", code, batch.model_dump_json()]
    assert subprocess.run(command, env=env, cwd=ROOT, check=False).returncode == -9
    assert not answers.is_committed(batch), "nobody sees half a batch"
    monkeypatch.setattr(plan, "seconds", lambda batch: 0)
    report = score(tiny, day(0), day(20))
    assert report.batch == batch, "with as many shards as before"
    assert report.shards_answered == 2
    assert report.answered == 4_000
    assert answers.read(batch.name)["id"].n_unique() == 4_000
    assert shards.files(batch) == {}, "nothing is noted of a batch that is there"


def test_answers_that_were_swept_meanwhile_are_given_anew(live):
    window = (int(day(0).timestamp() * 1000), int(day(1).timestamp() * 1000))
    batch = plan.of_window(registry.get(live, 1), *window)
    shards.write(batch, 0)
    (files,) = shards.files(batch).values()
    fs, folder = storage.filesystem(answers.ANSWERS)
    fs.rm_file(f"{folder}/{files[0].path}")
    report = score(live, day(0), day(1))
    assert (report.answered, report.shards_answered) == (200, 1)


def test_two_runs_of_a_batch_leave_one(live, four_shards, monkeypatch):
    window = (int(day(0).timestamp() * 1000), int(day(20).timestamp() * 1000))
    batch = plan.of_window(registry.get(live, 1), *window)
    for number in range(4):
        shards.write(batch, number)
    files = [file for files in shards.files(batch).values() for file in files]
    answers.commit(batch, files)
    version = delta.at(answers.ANSWERS, None).version()
    answers.commit(batch, files)
    assert delta.at(answers.ANSWERS, None).version() == version
    shards.forget(batch)
    # The other run has only heard that there is much to do.
    looks = iter([False, True])
    monkeypatch.setattr(answers, "is_committed", lambda batch: next(looks))
    report = score(live, day(0), day(20))
    assert report.answered == 4_000
    assert delta.at(answers.ANSWERS, None).version() == version
    assert shards.files(batch) == {}


def test_a_batch_of_older_rows_replaces_none_of_newer_ones(live, orders):
    window = (int(day(19).timestamp() * 1000), int(day(22).timestamp() * 1000))
    older = plan.of_window(registry.get(live, 1), *window)
    shards.write(older, 0)
    (files,) = shards.files(older).values()
    ingest(orders(20, 21, threshold=50), live)
    newer = score(live, day(19), day(22))
    with pytest.raises(lake.LakeError, match="answered meanwhile, and stay"):
        answers.commit(older, files)
    assert len(answers.read(newer.batch.name)) == newer.answered == 400


def test_a_killed_batch_is_finished_after_its_version_of_the_table_was_swept(
    live, orders, four_shards
):
    window = (int(day(0).timestamp() * 1000), int(day(10).timestamp() * 1000))
    batch = plan.of_window(registry.get(live, 1), *window)
    shards.write(batch, 0)
    ingest(orders(20, 21, threshold=50), live)
    report = score(live, day(0), day(10))
    assert report.batch.name == batch.name
    assert report.batch.table_version > batch.table_version
    assert (report.answered, report.shards_answered) == (2_000, 3)


def test_a_file_that_changes_meanwhile_is_not_mixed(live, four_shards, tmp_path):
    path = tmp_path / "requests.jsonl"
    path.write_text('{"price": 1}\n' * 2_000)
    batch = plan.of_file(registry.get(live, 1), str(path))
    assert batch.shards == 4
    shards.write(batch, 0)
    path.write_text('{"price": 199}\n' * 2_010)
    with pytest.raises(SourceError, match="changed while it was read"):
        shards.write(batch, 1)
    report = score(live, requests=str(path))
    assert report.answered == 2_010
    assert report.shards_answered == 4
    assert answers.scan().select("batch").unique().collect().height == 1


def test_a_session_is_asked_with_all_that_is_known_of_it(home):
    lines = [
        {"session": 1, "events": [{"aid": 5, "ts": ts(22), "type": "clicks"}]},
        {
            "session": 2,
            "events": [{"aid": aid, "ts": ts(22) + aid, "type": "carts"} for aid in range(600)]
            + [{"aid": 7, "ts": ts(25), "type": "orders"}],
        },
        {"session": 3, "events": [{"aid": 9, "ts": ts(49), "type": "clicks"}]},
    ]
    path = home.parent / "events.jsonl"
    path.write_bytes(b"\n".join(map(msgspec.json.encode, lines)))
    ingest(str(path))
    model_type = spec.load("session_recommender")
    batch = plan.Batch(
        name="a-b-c",
        place="a-b",
        model=model_type.name,
        version=1,
        onnx="",
        source=model_type.table.name,
        table_version=lake.version(model_type.table),
        start=ts(24),
        end=ts(48),
        ts=ts(48) - 1,
        units=1,
    )
    (asked,) = questions.of_shard(batch, 0)
    assert asked.names == ["2"], "session 1 is over, and session 3 has not begun"
    assert asked.inputs["article_ids"][0].tolist() == [*range(581, 600), 7]
    assert asked.inputs["types"][0].tolist() == [1] * 19 + [2]


def ts(hour: int) -> int:
    """An hour of the events, ms since 1970 UTC."""
    return 1_660_003_200_000 + hour * 3_600_000


@pytest.mark.parametrize(
    ("seconds", "shards"), [(0.1, 1), (9.9, 1), (12, 2), (40, 4), (200, 4), (250, 8), (1_000, 20)]
)
def test_all_cores_have_as_many_shards_as_long_as_these_are_worth_it(seconds, shards):
    assert plan.shard_count(seconds, cores=4) == shards
