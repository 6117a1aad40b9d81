"""The benchmarks measure what they say: the generated files, what each contender makes of them, the
JSON line."""

import copy
import gzip
import json
import shutil
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

from benchmarks import (
    bots,
    contenders,
    days,
    frequency,
    gate,
    ingest,
    knn,
    logged_clicks,
    monitor_cost,
    monitoring,
    objectives,
    precision,
    published,
    race,
    recommender,
    resources,
    row_reads,
    scale,
    training,
    trigger,
    tron,
    watch,
    weeks,
    worlds,
    year,
)
from benchmarks.contenders import Measured
from benchmarks.otto import EVENTS_PER_SESSION, FAULTS, generate
from benchmarks.race import Check, Job, Watch, seconds_to
from demo import raw_files
from kreislauf import lake, sources
from kreislauf.evaluation import gate as gate_task
from kreislauf.evaluation import scoring
from kreislauf.evaluation.intervals import Interval
from kreislauf.monitoring import tables
from kreislauf.monitoring.diagnosis import Verdict
from models import spec
from models.session_recommender import SPEC
from models.session_recommender.batches import Batches


def rows(path: Path) -> pl.DataFrame:
    """Rows of a file without bad lines, by the plainest way there is."""
    return pl.read_ndjson(path).explode("events").unnest("events")


def test_the_same_arguments_make_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("benchmarks.otto.CHUNK", 150)
    first, second = (generate(tmp_path / name, 400, seed=3, bad_share=0.1) for name in ("a", "b"))
    assert first == second
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    generate(tmp_path / "c", 400, seed=4, bad_share=0.1)
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


def test_the_file_is_shaped_like_otto_s(tmp_path: Path):
    written = generate(tmp_path / "raw.jsonl", 20_000)
    events = rows(tmp_path / "raw.jsonl")
    sessions = events.group_by("session", maintain_order=True).agg(
        pl.len(), pl.col("ts").is_sorted(), pl.first("aid")
    )
    assert sessions["session"].to_list() == list(range(20_000))
    assert sessions["ts"].all()
    assert sessions["len"].mean() == pytest.approx(EVENTS_PER_SESSION, rel=0.03)
    assert sessions["len"].quantile(0.5) == 6
    assert sessions["len"].quantile(0.95) == pytest.approx(68, rel=0.1)
    assert (sessions["len"].min(), sessions["len"].max()) == (2, 500)
    assert (events["type"] == "clicks").mean() == pytest.approx(0.898, abs=0.005)
    assert events["ts"].max() - events["ts"].min() < 28 * 86_400_000
    assert (written.lines, written.events, written.distinct) == (
        20_000,
        events.height,
        events.n_unique(),
    )
    assert 0 < written.events - written.distinct < 0.001 * written.events


def test_each_kind_of_bad_line_is_rejected_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("benchmarks.otto.CHUNK", 100)
    generate(tmp_path / "good.jsonl", 300)
    written = generate(tmp_path / "raw.jsonl", 300, bad_share=0.2)
    assert len(written.bad) > len(FAULTS)
    good, lines = (
        (tmp_path / name).read_bytes().split(b"\n") for name in ("good.jsonl", "raw.jsonl")
    )
    assert written.bad == [
        (i, b) for i, (a, b) in enumerate(zip(good, lines, strict=True), start=1) if a != b
    ]
    accounts = load(tmp_path / "raw.jsonl")
    assert accounts.rows_kept == written.distinct
    assert accounts.rows_duplicate == written.events - written.distinct
    kinds = dict(zip((number for number, _ in written.bad), list(FAULTS) * 9, strict=False))
    rejected = lake.rejects(SPEC.table).select("line", "raw").rows()
    assert [kinds[number] for number, _ in written.bad if number not in dict(rejected)] == []
    assert sorted(rejected) == written.bad


@pytest.mark.parametrize(("sessions", "share"), [(0, 0), (10, -0.1), (10, 1.1)])
def test_a_file_that_cannot_be_is_refused(tmp_path: Path, sessions: int, share: float):
    with pytest.raises(ValueError, match="at least 1, and a share from 0 to 1"):
        generate(tmp_path / "raw.jsonl", sessions, bad_share=share)


def test_all_contenders_write_the_same_rows(tmp_path: Path):
    generate(tmp_path / "raw.jsonl", 2_000)
    expected = rows(tmp_path / "raw.jsonl")
    for name, work in contenders.CONTENDERS.items():
        if name == "kreislauf":
            continue
        work(tmp_path / "raw.jsonl", tmp_path)
        assert_frame_equal(
            pl.read_parquet(tmp_path / contenders.OUT), expected, check_row_order=name != "polars"
        )
    load(tmp_path / "raw.jsonl")
    ours = lake.read(SPEC.table).with_columns(pl.col("type").cast(pl.String))
    assert_frame_equal(ours, expected.unique(), check_row_order=False, check_column_order=False)


@pytest.mark.slow
def test_the_ingest_benchmark_ends_with_its_ratios(tmp_path: Path):
    result = ingest.run(tmp_path, 300, 1, 2)
    ratios = {
        "cpu_over_duckdb_copy",
        "python_loop_over_ours",
        "peak_memory_10x_over_1x",
        "dirty_over_clean",
        "csv_over_duckdb_copy",
        "flat_over_duckdb_copy",
    }
    assert all(result[name] > 0 for name in ratios)
    assert result["bad_lines"] == result["bad_lines_recovered"] > 0
    assert result["cpu_seconds"].keys() == result["peak_mb"].keys() >= contenders.CONTENDERS.keys()
    assert [path.name for path in tmp_path.iterdir()] == ["bytecode"]


def test_the_scale_benchmark_finds_a_straight_line():
    runs = {
        n * 1_000_000: [Measured(3.0, 2.0 + 0.5 * n, 1.0 + 0.25 * n, 400.0, n)] * 3
        for n in (10, 30, 100)
    }
    result = scale.summary(runs)
    assert result["cpu_seconds_per_million_events"] == 0.5
    assert result["full_otto_cpu_seconds_extrapolated"] == round(2 + 0.5 * 216.716096)
    assert result["full_otto_peak_mb_extrapolated"] == 400
    assert result["exponent"] == pytest.approx(1, abs=0.15)


def test_lost_and_invented_lines_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    written = generate(tmp_path / "raw.jsonl", 300, bad_share=0.2)

    def pretend(rejects: list[tuple[int, bytes]], count: int):
        def measured(name: str, file: Path, folder: Path) -> Measured:
            pl.DataFrame(rejects, {"line": pl.Int64, "raw": pl.Binary}, orient="row").write_parquet(
                folder / contenders.REJECTS
            )
            return Measured(1, 1, 1, 1, count)

        monkeypatch.setattr(ingest, "measure", measured)
        return ingest.run_contender("kreislauf", tmp_path / "raw.jsonl", written)

    assert pretend(written.bad, written.distinct)[1] == len(written.bad)
    assert pretend(written.bad[1:], written.distinct)[1] == len(written.bad) - 1
    assert (
        f"1 bad lines are not in the quarantine, such as line {written.bad[0][0]}"
        in capsys.readouterr().out
    )
    for wrong in ((written.bad[0][0], b"changed"), (1, b"good"), written.bad[1]):
        with pytest.raises(
            RuntimeError, match="1 rejected lines were never so, or are there twice"
        ):
            pretend([*written.bad[1:], wrong], written.distinct)
    with pytest.raises(RuntimeError, match="rows of"):
        pretend(written.bad, written.distinct - 1)


def test_too_small_a_folder_is_said_before_anything_is_written(monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(ingest.shutil, "disk_usage", lambda _: usage._replace(free=10**9))
    with (
        pytest.raises(SystemExit, match=r"25 GB needed in .*, 1 GB free: set TMPDIR"),
        ingest.workplace(10_000_000),
    ):
        pass
    with ingest.workplace(300_000) as work:
        assert work.is_dir()
    assert not work.exists()


def publish(events: pl.DataFrame, folder: Path, share: float = 0.8) -> Path:
    """A folder as `benchmarks.recommender` wants it: the newest sessions of `events` are the
    test."""
    raw = raw_files.write(events.sort("session", "ts", "aid", "type"), folder / "raw.jsonl")
    (folder / "sessions.jsonl.gz").write_bytes(gzip.compress(raw.read_bytes()))
    first = round(events["session"].n_unique() * share)
    (folder / "meta.json").write_text(json.dumps({"first_test_session": first}))
    sessions = [[event["aid"] for event in line["events"]] for line in map(json.loads, raw.open())]
    pairs = [
        (session[:i], session[i]) for session in sessions[first:] for i in range(1, len(session))
    ]
    dtypes = {"prefix": pl.List(pl.Int32), "label": pl.Int32}
    pl.DataFrame(pairs[::-1], dtypes, orient="row").write_parquet(folder / "test_prefixes.parquet")
    return folder


@pytest.mark.slow
def test_the_recommender_benchmark_ends_with_its_numbers(
    small_shop: pl.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(recommender, "SEEDS", 1)
    monkeypatch.setattr(recommender, "ABLATION", {})
    tiny = SPEC.Params.tiny().model_dump() | {"epochs": 1}
    data = publish(small_shop.filter(pl.col("session") < 500), tmp_path / "data")
    result = recommender.run(data, tmp_path / "work", tiny, 1, True)
    assert 0 < result["popularity_recall@20"] < min(result["recall@20"], result["knn_recall@20"])
    assert result["covisitation_recall@20"] == result["ablation"]["table alone"]["recall@20"]
    assert result["ablation"].keys() == {
        "table alone",
        "encoder alone",
        "table and encoder, no ranker",
    }
    assert result["ablation"]["encoder alone"]["recall@20"] > 0
    assert 0 < result["mrr@20"] < result["recall@20"] == result["seeds"][0]["recall@20"]
    assert all(result[name] > 0 for name in ("train_seconds", "size_mb", "p50_ms"))
    assert result["bits"].keys() == {"float32", "float16", "int8"}
    assert result["bits"]["float32"]["recall@20"] == result["recall@20"]
    assert result["bits"]["float32"]["gain"] == "+0.0000 [+0.0000, +0.0000]"
    assert "whole model" in capsys.readouterr().out


def test_another_test_than_the_published_one_is_refused(small_shop: pl.DataFrame, tmp_path: Path):
    folder = publish(small_shop, tmp_path)
    rows, test = published.load(folder)
    first = rows["session"].max() + 1
    assert (test.groups.min(), len(np.unique(rows["session"]))) == (first, first)
    (folder / "meta.json").write_text(json.dumps({"first_test_session": first + 1}))
    with pytest.raises(
        ValueError, match=r"[1-9]\d* of \d+ are missing, 0 are too many, such as \[\d+.* label \d+"
    ):
        published.load(folder)


def test_session_knn_answers_as_its_slow_loop_does(small_shop: pl.DataFrame):
    first = small_shop["session"].max() - 50
    train, held = (
        small_shop.filter(pl.col("session") < first),
        small_shop.filter(pl.col("session") >= first),
    )
    settings = knn.TUNED._replace(newest=60, neighbours=20)
    prefixes = SPEC.examples(held).inputs["article_ids"][:100]
    for prefix, answers in zip(
        prefixes, knn.Neighbours(train, settings).answers(prefixes), strict=True
    ):
        expected = slow_knn(train, [aid for aid in prefix if aid >= 0], settings)
        assert [score for score in map(expected.get, answers) if score] == pytest.approx(
            sorted(expected.values(), reverse=True)[:20]
        )


def slow_knn(train: pl.DataFrame, prefix: list[int], s: knn.Settings) -> dict[int, float]:
    """Scores of articles; `prefix` is not empty."""
    ordered = (
        train.sort("session", "ts", "aid", "type")
        .group_by("session", maintain_order=True)
        .agg("aid", "ts")
    )
    sessions = sorted(
        zip(ordered["ts"].list.first(), ordered["aid"].to_list(), strict=True),
        key=lambda pair: pair[0],
    )
    age = {aid: len(prefix) - 1 - i for i, aid in enumerate(prefix)}
    rarity = {
        a: np.log1p(len(sessions) / max(1, sum(a in aids for _, aids in sessions))) ** s.rare
        for a in age
    }
    newest, near = sessions[-1][0], []
    for start, aids in [pair for pair in sessions if age.keys() & pair[1]][-s.newest :]:
        likeness = sum(s.event ** age[a] * rarity[a] for a in age.keys() & aids)
        near.append(
            (
                likeness * np.exp((start - newest) / 86_400_000 / s.days) / len(aids) ** s.length,
                aids,
            )
        )
    scores: dict[int, float] = defaultdict(float)
    for weight, aids in sorted(near, key=lambda pair: -pair[0])[: s.neighbours]:
        last = min(age.get(a, 99) for a in aids)
        match = max(i for i, a in enumerate(aids) if age.get(a, 99) == last)
        for i, a in enumerate(aids):
            scores[a] += weight * s.distance ** abs(i - match) * (s.back if i < match else 1)
    return {a: score * s.again ** prefix.count(a) for a, score in scores.items()}


def test_fewer_bits_make_a_smaller_file_with_the_same_answers(
    small_shop: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(precision, "LARGE", 1_000)
    whole = SPEC.baseline(small_shop, tmp_path)
    half = precision.float16(whole, tmp_path / "half.onnx")
    assert half.stat().st_size < 0.9 * whole.stat().st_size
    inputs = SPEC.examples(small_shop.filter(pl.col("session") > 700)).inputs
    mine, theirs = (scoring.answer(path, inputs)["answers"] for path in (half, whole))
    assert (mine[:, :, None] == theirs[:, None]).any(2).mean() > 0.99


@pytest.mark.slow
def test_otto_s_score_wants_carts_and_orders_where_they_weigh_more(tmp_path: Path):
    plan = replace(objectives.PLAN, days=14, sessions_per_day=150, articles=300)
    rows = objectives.shop(plan)
    shares = dict(rows["type"].value_counts(normalize=True).iter_rows())
    assert 0.05 < shares["orders"] < shares["carts"] < shares["clicks"]
    result = objectives.run(plan, SPEC.Params.tiny(), tmp_path)
    assert result.keys() == {"table", "equal", "weighted"}
    assert all(0 < score <= 1 for scores in result.values() for score in scores.values())
    total = {
        name: 0.1 * s["clicks"] + 0.3 * s["carts"] + 0.6 * s["orders"] for name, s in result.items()
    }
    assert total == pytest.approx({name: s["total"] for name, s in result.items()}, abs=1e-4)


def test_the_gate_benchmark_swaps_two_models_until_the_gain_is_as_wanted():
    groups = np.repeat(np.arange(800), 3)
    holdout = gate_task.Holdout("all", 0, groups, {"half": np.where(groups < 400, "a", "b")})
    luck = np.random.default_rng(0).random(len(groups))
    cost = gate_task.Cost(1.0, 1.0, 0.5)
    three = (
        gate_task.Scores(
            (luck < share).astype(float), holdout, "recall@20", 0, str(share), version, cost
        )
        for share, version in ((0.5, 1), (0.54, 2), (0.3, None))
    )
    pair = gate.Pair(*three)
    assert pair.deviation() == pytest.approx((0.04 * 0.96 / 3) ** 0.5, rel=0.15)
    drawn = pair.drawn(0.5, 4_000, seed=1)
    assert abs(drawn.gain()) < 0.01 < 0.03 < pair.drawn(0.0, 4_000, seed=1).gain()
    assert drawn.baseline.values.mean() == pytest.approx(0.3, abs=0.02)
    assert set(drawn.champion.holdout.slices["half"]) == {"a", "b"}
    errors, covered = gate.simulate(pair, 0.0, sessions=500, holdouts=60)
    assert errors < 0.2 < 0.8 < covered
    assert gate.simulate(pair, 0.03, sessions=500, holdouts=20)[0] > 0.5
    with pytest.raises(ValueError, match=r"gains 0\.0\d+ only: train the champion on less"):
        gate.simulate(pair, 0.2, sessions=500, holdouts=1)


def load(path: Path) -> lake.Accounts:
    """Load a file as the flow's task does."""
    return lake.load_file(SPEC.table, sources.open_file(str(path), SPEC.table))


def test_the_training_benchmark_ends_with_its_ratios(
    small_shop: pl.DataFrame, tmp_path: Path, capsys
):
    data = publish(small_shop.filter(pl.col("session") < 500), tmp_path)
    job = Job(data, epochs=2, asked=100, every=500, target=1.1, steps=1, warm=1, rounds=2)
    loops = training.overhead(job)
    ours = training.contend(job)
    assert 0 < ours[0].seconds < ours[-1].seconds, "the table takes time"
    learnt = job.load()[0]
    examples = 2 * (learnt.height - learnt["session"].n_unique())
    assert 0.8 * examples < ours[-1].examples <= examples
    assert [check.examples > i * 500 for i, check in enumerate(ours[1:-1])] == [True] * (
        len(ours) - 2
    )
    assert all(0 < recall < 1 for check in ours for recall in check.recalls)
    result = training.summary(job, loops, ours, None)
    assert result["tron_over_ours_to_recall_47"] is None
    assert "TRON was not run" in capsys.readouterr().out
    for name in ("lightning_over_torch", "lightning_over_torch_cpu", "ours_examples_per_second"):
        assert result[name] > 0


def test_loops_that_differ_are_not_compared(
    small_shop: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    bare_loop = training.bare_loop

    def faster(task: training.Stamped, batches: Batches) -> None:
        task.lr *= 30
        bare_loop(task, batches)

    monkeypatch.setattr(training, "bare_loop", faster)
    data = publish(small_shop.filter(pl.col("session") < 400), tmp_path)
    with pytest.raises(RuntimeError, match="did not do the same"):
        training.overhead(Job(data, steps=1, warm=0, rounds=1))


def test_the_clock_stands_while_recall_is_measured(monkeypatch: pytest.MonkeyPatch):
    now, recalls = [100.0], [0.0, 0.2, 0.3, 0.5]

    def ask() -> tuple[float]:
        now[0] += 1_000
        return (recalls.pop(0),)

    def fit(job: Job) -> list[Check]:
        watch, trainer = (
            Watch("one", job, ask, lambda batch: batch),
            SimpleNamespace(should_stop=False),
        )
        watch.on_fit_start(trainer, None)
        while not trainer.should_stop:
            now[0] += 3
            watch.on_train_batch_end(trainer, None, None, 40, 0)
        watch.on_train_end(trainer, None)
        return watch.checks

    monkeypatch.setattr(
        race, "time", SimpleNamespace(perf_counter=lambda: now[0], process_time=lambda: now[0] / 2)
    )
    race_checks = fit(Job(Path(), every=100))
    assert [(c.seconds, c.cpu, c.examples) for c in race_checks] == [
        (0, 0, 0),
        (9, 4.5, 120),
        (15, 7.5, 200),
        (24, 12, 320),
    ]
    assert [c.recalls for c in race_checks] == [(0.0,), (0.2,), (0.3,), (0.5,)]
    recalls[:] = [0.0, 0.1, 0.2, 0.3]
    assert [c.seconds for c in fit(Job(Path(), every=100, limit=15))] == [0, 9, 15]


def checks(*recalls: float) -> list[Check]:
    """One every ten seconds, of which four are CPU time."""
    return [
        Check(10.0 * i, 4.0 * i, 1_000 * i, (recall, recall + 0.1))
        for i, recall in enumerate(recalls)
    ]


def test_the_time_to_a_recall_lies_between_two_checks():
    assert seconds_to(0.47, checks(0, 0.3, 0.4, 0.5, 0.1, 0.6)) == pytest.approx(27)
    assert seconds_to(0.47, checks(0, 0.3, 0.4, 0.5), which=1, clock="cpu") == pytest.approx(
        4 + 4 * 0.7
    )
    assert seconds_to(0.47, checks(0.5, 0.6)) == 0
    assert seconds_to(0.47, checks(0, 0.46)) is None


def test_a_rival_that_does_not_arrive_makes_a_lower_bound(capsys: pytest.CaptureFixture[str]):
    loops = {"lightning": np.array([1.1, 1.02]), "torch": np.array([1.0, 1.0])}
    slow = training.summary(
        Job(Path()), loops, checks(0, 0.47), checks(0, 0.1, 0.2, 0.3, 0.4, 0.47)
    )
    assert (slow["tron_over_ours_to_recall_47"], slow["tron_is_lower_bound"]) == (5, False)
    assert (slow["lightning_over_torch"], slow["lightning_over_torch_cpu"]) == (1.1, 1.02)
    assert slow["seconds_to_47_with_table"] == round(10 * 37 / 47, 3)
    never = training.summary(Job(Path()), loops, checks(0, 0.47), checks(0, 0.1, 0.46, 0.4))
    assert (never["tron_over_ours_to_recall_47"], never["tron_is_lower_bound"]) == (3, True)
    assert "TRON got to 0.4600 in 30 s" in capsys.readouterr().out
    lost = training.summary(Job(Path()), loops, checks(0, 0.1), checks(0, 1))
    assert lost["tron_over_ours_to_recall_47"] is None


def test_tron_is_asked_as_it_was_trained(monkeypatch: pytest.MonkeyPatch):
    """The newest articles at the right, padding before them, and padding is no answer."""

    class Model(torch.nn.Module):
        max_len = 3

        def __init__(self):
            super().__init__()
            self.output_embedding = torch.nn.Embedding.from_pretrained(torch.eye(5))

        def forward(self, clicks: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            assert not self.training
            self.clicks = clicks
            assert ((clicks > 0) == mask.bool()).all()
            return torch.nn.functional.one_hot(clicks, 5).float() + torch.arange(5) * 0.01

    monkeypatch.setattr(tron, "K", 2)
    ids, model = np.array([-1, 70, 50, 90, 60]), Model().train()
    sessions = np.array([[50, 90, -1, -1], [70, 50, 90, 60], [1, 70, 2**40, -1], [-1, -1, -1, -1]])
    assert tron.answer(model, ids, sessions)[:3].tolist() == [[90, 60], [60, 90], [70, 60]]
    assert model.clicks.tolist() == [[0, 2, 3], [2, 3, 4], [0, 0, 1], [0, 0, 0]]
    assert model.training


def test_the_trigger_benchmark_counts_from_the_event_to_the_flow_s_own_first_line():
    def at(second: float) -> str:
        return (
            datetime.fromtimestamp(1_700_000_000 + second, UTC).isoformat().replace("+00:00", "Z")
        )

    event, run = datetime.fromtimestamp(1_700_000_000, UTC), {"created": at(0.25)}
    states = [
        {"type": t, "timestamp": at(s)}
        for t, s in (("SCHEDULED", 0.2), ("PENDING", 4.5), ("RUNNING", 7))
    ]
    states[0]["state_details"] = {"scheduled_time": at(5.25)}
    messages = (
        ("Running 1 deployment pull step(s)", 6),
        ("Beginning", 7.1),
        ("Retraining x: drift", 7.2),
        ("Retraining", 9),
    )
    logs = [{"message": message, "timestamp": at(s)} for message, s in messages]
    assert list(trigger.marks(event, run, states, logs).values()) == pytest.approx(
        [0.25, 5.25, 4.5, 6, 7, 7.2]
    )
    with pytest.raises(StopIteration):
        trigger.marks(event, run, states, logs[:2])


def test_the_trigger_benchmark_says_when_each_step_was_reached():
    runs = [{"created": a, "first line": b} for a, b in ((0.2, 7.2), (0.4, 9.4), (0.1, 30.1))]
    assert trigger.report(runs, 5).split("\n") == [
        "    0.20  created", "    5.00  debounce window ends", "    9.40  first line"
    ]  # fmt: skip
    assert trigger.window() > 0


def test_the_trigger_benchmark_leaves_out_what_no_event_started(monkeypatch: pytest.MonkeyPatch):
    early, late = "2026-01-01T00:00:00Z", "2026-01-01T00:00:09Z"
    made = (("old", early, False), ("cron", late, True), ("new", late, False))
    runs = [{"id": i, "created": created, "auto_scheduled": auto} for i, created, auto in made]
    monkeypatch.setattr(trigger, "ask", lambda *_, **__: runs)
    assert [
        run["id"] for run in trigger.retrainings(datetime(2026, 1, 1, 0, 0, 5, tzinfo=UTC))
    ] == ["new"]


def test_a_policy_trains_and_the_gate_promotes():
    weekly = frequency.follow(6, frequency.every(1), lambda week, live: True)
    assert weekly == frequency.Replay([0, 1, 2, 3, 4, 5], trainings=5, promoted=5)
    refused = frequency.follow(6, frequency.every(1), lambda week, live: week - live == 3)
    assert refused == frequency.Replay([0, 0, 0, 3, 3, 3], trainings=5, promoted=1)
    assert frequency.follow(7, frequency.every(3), lambda week, live: True).live == [
        0,
        0,
        0,
        3,
        3,
        3,
        6,
    ]
    assert frequency.follow(6, frequency.every(6), lambda week, live: True).trainings == 0


def test_a_fault_strikes_its_days_only(small_shop: pl.DataFrame):
    rows = small_shop.sort(SPEC.table.order)
    start, end = (int(rows["ts"].quantile(share)) for share in (0.5, 0.8))
    struck = frequency.strike(rows, SPEC, start, end)
    assert_frame_equal(struck.drop("aid"), rows.drop("aid"))
    changed, inside = struck["aid"] != rows["aid"], rows["ts"].is_between(start, end, "left")
    assert not changed.filter(~inside).any()
    assert changed.filter(inside).mean() == pytest.approx(frequency.FAULT_SHARE, abs=0.03)
    assert set(struck["aid"]) <= set(rows["aid"])


def test_what_was_found_is_kept_by_what_it_was_made_from(tmp_path: Path):
    kept, made = weeks.Kept(tmp_path), []

    def make() -> str:
        made.append(len(made))
        return f"{made[-1]}"

    assert [kept.text("a", ["b", number], make) for number in (1, 2, 1)] == ["0", "1", "0"]


def test_the_frequency_benchmark_ends_with_its_curve(
    small_shop: pl.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """With the table in the place of the model, and a monitor that knows what there was, so that
    nothing takes long."""
    trained = []

    def diagnosed(
        shop: weeks.Shop, live: weeks.Version, week: int, stable: list
    ) -> SimpleNamespace:
        broken = shop.rows["aid"].sum() != small_shop["aid"].sum() and week == 1
        verdict = "data fault" if broken else "concept drift"
        fault = (shop.ends[0], shop.ends[1] - 1) if broken else None
        diagnosis = SimpleNamespace(verdict=verdict, evidence=[], regret=0.01, fault=fault)
        return SimpleNamespace(diagnosis=diagnosis, values={})

    def fit(rows: pl.DataFrame, params: object, work: object) -> SimpleNamespace:
        trained.append(rows.height)
        return SimpleNamespace(onnx=SPEC.baseline(rows, work.folder), validation=0.5)

    kind = copy.copy(SPEC)
    kind.policy = kind.policy.model_copy(update={"min_groups": 60, "group_sd": 0.05})
    kind.train = fit
    for module, name, value in (
        (weeks, "HISTORY", 0.6),
        (weeks, "WEEK_MS", 2 * 86_400_000),
        (frequency, "EVERY", (1, 2)),
        (frequency, "COSTS", (0.0, 0.03)),
        (frequency, "RETRAINING_COST", 0.03),
        (frequency, "FAULT_DAYS", 1),
        (frequency, "AFTER", 1),
        (frequency, "diagnosed", diagnosed),
        (scoring, "p95", lambda onnx, inputs: 1.0),
    ):
        monkeypatch.setattr(module, name, value)
    rows = small_shop.sort(kind.table.order)
    shop = weeks.Shop(kind, rows, weeks.ends(rows, kind), weeks.Kept(tmp_path))
    result = frequency.run(shop, tmp_path / "curve.svg")
    assert (shop.weeks, result["weekly_trainings"], result["monitor_trainings"]) == (3, 1.5, 0.5)
    assert (result["fault_verdict"], result["fault_left_out"]) == ("data fault", True)
    assert [name for name, *_ in result["curve"]] == [
        "weekly",
        "every 2 weeks",
        "never",
        "monitor 0",
        "monitor 0.03",
    ]
    assert all(0 < recall < 1 for name, recall in result.items() if name.endswith("_recall"))
    assert "within .01" in (tmp_path / "curve.svg").read_text()
    before = len(trained)
    assert frequency.run(shop, tmp_path / "curve.png") == result
    assert len(trained) == before, "a second run trains nothing"


def future(kind: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Two days of a small shop before something happens, and two after."""
    shop = worlds.shop(3, articles=60, sessions_per_day=150)
    events = worlds.future(shop, worlds.KINDS[kind], 0, 2, 4, np.random.default_rng(0))
    return events.filter(pl.col("ts") < worlds.at(2)), events.filter(pl.col("ts") >= worlds.at(2))


@pytest.mark.parametrize("kind", worlds.KINDS)
def test_each_world_is_a_shop_s_until_its_change(kind: str):
    before, after = future(kind)
    SPEC.table.schema.validate(pl.concat([before, after]))
    assert before.equals(future("none")[0])
    assert after.equals(future("none")[1]) == (kind == "none")
    assert after.group_by("session").agg(pl.col("ts").is_sorted())["ts"].all()


def test_the_worlds_change_what_they_say():
    before, aids = future("none")[0], set(future("none")[0]["aid"])
    assert 0.2 < (~future("assortment")[1]["aid"].is_in(aids)).mean() < 0.5
    assert (future("sentinel")[1]["aid"] == 0).mean() == pytest.approx(0.1, abs=0.02)
    assert not (future("sentinel")[0]["aid"] == 0).any()
    assert (future("wrong ids")[1]["aid"] != future("none")[1]["aid"]).mean() == pytest.approx(
        0.3, abs=0.03
    )
    assert future("id scheme")[1]["aid"].n_unique() == future("none")[1]["aid"].n_unique()
    assert (future("id scheme")[1]["aid"] != future("none")[1]["aid"]).mean() > 0.9
    season = future("season")[1]
    assert season.group_by("session").len()["len"].max() == 3
    assert (season["type"] == "carts").mean() > 1.3 * (before["type"] == "carts").mean()
    assert future("volume")[1]["session"].n_unique() == pytest.approx(0.6 * 300, abs=30)


def test_the_first_alarm_counts_and_the_worst_kind_is_told():
    outcomes = (
        [("none", "stable", True)] * 9
        + [("none", "covariate shift", True)]
        + [("real", "stable", None)] * 10
    )
    for name, kind in worlds.KINDS.items():
        outcomes += [(name, kind.verdict, False)] * 4 if name != "none" else []
    outcomes += [
        ("volume", "stable", True),
        ("volume", "stable", False),
        ("season", "stable", True),
    ]
    outcomes += [
        ("season", "covariate shift", True),
        ("relations", "data fault", True),
        ("relations", "concept drift", True),
    ]
    summary = monitoring.summary(outcomes, 2)
    assert summary["false_alarms_per_100"] == 5
    assert (summary["real_windows"], summary["real_false_alarms_per_100"]) == (10, 0)
    assert summary["evidently_false_alarms_per_100"] == 100
    assert summary["detected"] == summary["diagnosis_right"] == pytest.approx(2 / 3)
    assert summary["by_kind"]["season"] == {"detected": 1, "right": 1}
    assert summary["by_kind"]["relations"] == {"detected": 1, "right": pytest.approx(2 / 3)}


def test_a_simulated_and_a_real_shop_are_watched(monkeypatch: pytest.MonkeyPatch):
    for name, value in (
        ("WINDOW", 4),
        ("HOLDOUT", 4),
        ("HISTORY", 16),
        ("QUIET", 1),
        ("WINDOWS", 1),
        ("SESSIONS", 60),
        ("ARTICLES", 80),
        ("drifted", lambda window, reference: True),
    ):
        monkeypatch.setattr(monitoring, name, value)
    monkeypatch.setattr(
        worlds, "KINDS", {name: worlds.KINDS[name] for name in ("none", "id scheme")}
    )
    assert [outcome[::2] for outcome in monitoring.one_shop(0)] == [
        ("none", True),
        ("id scheme", True),
    ]
    outcomes = monitoring.real(
        worlds.days(worlds.shop(1, 120, 150), 0, 30, np.random.default_rng(0)), 4
    )
    assert [name for name, *_ in outcomes] == ["real"] * 4
    assert {verdict for _, verdict, _ in outcomes} <= set(get_args(Verdict))


@pytest.mark.slow
def test_the_cost_of_the_monitor_is_a_slope_over_the_scan_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("KREISLAUF_HOME", str(tmp_path))
    monitor_cost.load(0.05, tmp_path)
    for part in ("scan", "ours", "answers"):
        measured = monitor_cost.measure_here(part)
        assert measured["cpu"] > 0
        assert 50 < measured["peak_mb"] < 10_000
    lines = {size: {"cpu": 1 + size, "peak_mb": 100 + size, "start": 5} for size in (1, 10)}
    ours = {size: {"cpu": 2 + 2 * size, "peak_mb": 200, "start": 6} for size in (1, 10)}
    summary = monitor_cost.summary({"scan": lines, "ours": ours, "evidently": {}}, (1, 10))
    assert (summary["cpu_over_scan"], summary["peak_memory_10x_over_1x"]) == (2, 1)


@pytest.mark.slow
@pytest.mark.usefixtures("mlflow_store")
def test_a_year_goes_on_from_week_to_week(home: Path):
    summary = year.run(home, weeks=2, looks=3)
    assert summary["looks"] == 6
    assert set(summary["first"]) == set(summary["last"])
    for cost in ("seconds", "bytes"):
        assert summary[cost] > 0
    looks = tables.read(tables.WINDOWS, pl.col("verdict") != "calibration")
    assert looks["end"].n_unique() >= 5
    assert len([*home.rglob("drift-*.html")]) >= 5


@pytest.mark.parametrize("day_sd", [0.0, 0.01])
def test_the_days_benchmark_tells_the_variance_between_days_from_that_of_sessions(day_sd: float):
    rng = np.random.default_rng(0)
    means = 0.5 + rng.normal(0, np.hypot(day_sd, 0.005), (300, days.DAYS))
    half = 1.96 * 0.005
    shown = [
        days.Week([Interval(mean=m, low=m - half, high=m + half) for m in week]) for week in means
    ]
    between = days.between_days(shown)
    assert between == pytest.approx(day_sd, abs=0.002)
    assert days.coverage(shown, between) == pytest.approx(0.95, abs=0.01)
    assert (days.coverage(shown, 0.0) < 0.7) == (day_sd > 0)
    assert abs(days.first_day(shown).mean) < 0.002


def test_the_bots_benchmark_asks_with_and_without_the_limit(small_shop):
    line = bots.measured(small_shop)
    assert line["longest"] < 100
    assert line["above_limit"] == 0
    assert line["judged_with_bot_unlimited"] < line["judged_with_bot"] < line["people"]
    assert line["learnt_with_bot_unlimited"] <= line["learnt_with_bot"]
    assert len(SPEC.examples(bots.bot(small_shop, 1_700_000_000_000, 1))) == 499, (
        "the limit is back"
    )


def test_the_days_benchmark_asks_old_and_new_tables(small_shop, tmp_path, monkeypatch):
    monkeypatch.setattr(days, "WEEKS", 1)
    shown = days.shown_by(small_shop, tmp_path)
    lengths = {name: len(each[0].days) for name, each in shown.items()}
    assert lengths == {"level": 7, "gain": 7, "twins": 7}
    assert shown["gain"][0].means.mean() > 0, "the season changed meanwhile"


def test_the_watch_benchmark_makes_releases_that_are_better_and_worse(monkeypatch):
    for name, value in {"WEEKS": 4, "SPOILED": (0.0, 0.6), "DRAWS": 2, "CROWD": 2}.items():
        monkeypatch.setattr(watch, name, value)
    kinds = watch.run(range(1))
    assert [*kinds] == ["same", "same, more visitors", "0", "0.6", "season"]
    assert {row["releases"] for row in kinds.values()} == {2}
    assert kinds["0"]["fall"] < kinds["same"]["fall"] < 0.1 < kinds["season"]["fall"]
    assert kinds["0.6"]["fall"] == pytest.approx(0.56, abs=0.1)
    assert (kinds["same"]["rolled_back"], kinds["same"]["answers"]) == (0, None)
    assert kinds["0.6"]["rolled_back"] == 1
    assert 1_000 <= kinds["0.6"]["answers"] < 2_000


@pytest.mark.slow
def test_the_resources_are_those_of_the_retraining_and_all_lines_are_learnt_from(home, monkeypatch):
    monkeypatch.setattr(resources, "PLAN", replace(resources.PLAN, sessions_per_day=20))
    monkeypatch.setattr(resources, "SEARCHES", 30)
    monkeypatch.setattr(resources, "QUESTIONS", 40)
    retrained = []

    def compute(model_type) -> None:
        retrained.append(model_type.name)
        start = contenders.cpu()
        while contenders.cpu() < start + 1.6:
            sum(range(10_000))

    monkeypatch.setattr(row_reads, "retrain", compute)
    measured = {model: resources.measure(model) for model in resources.RAW}
    assert retrained == ["session_recommender", "search_ranker", "support_answers"]
    assert [measured[model]["lines"] for model in retrained[1:]] == [30, 40]
    rows = {"search_ranker": 30 * resources.RESULTS, "support_answers": 40}
    for model in retrained:
        counts = lake.total(lake.history(spec.load(model).table))
        assert counts.lines_rejected == 0
        assert counts.rows_kept == rows.get(model, measured[model]["lines"]) > 0
        assert measured[model]["cpu_seconds"] == 2
        assert measured[model]["peak_mb"] == pytest.approx(contenders.peak(), abs=500)


def test_recorded_clicks_favour_the_live_model(tmp_path):
    measured = pl.DataFrame(logged_clicks.one_shop(1, tmp_path)).group_by("record").mean()
    means = {row["record"]: row for row in measured.iter_rows(named=True)}
    assert means["clicks"]["live_first"] >= 5 / 7
    assert means["visits_by_position"]["tau"] > means["clicks"]["tau"] + 0.2
