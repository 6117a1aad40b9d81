"""Every flow as a plain function, on a model type that none of them was written for, and on the
recommender."""

import html
import json
import pickle
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import polars as pl
import pytest
from prefect.exceptions import ParameterTypeError

from benchmarks import rollback as rollback_benchmark
from demo import raw_files
from demo.shop import Plan
from flows.approve import approve
from flows.ingest import ingest
from flows.monitor import monitor
from flows.promote import promote
from flows.prune import prune
from flows.publish import publish
from flows.retrain import retrain
from flows.rollback import NothingToRollBackTo, rollback
from flows.tidy import tidy
from flows.train import train
from kreislauf import events, lake, registry
from kreislauf.clock import DAY_MS
from kreislauf.lake import exclusions, journal
from kreislauf.monitoring import calibration, inputs, policy, recording, status
from kreislauf.monitoring.finding import Finding
from kreislauf.monitoring.policy import ASKED, LOOK
from kreislauf.release import golden, releases
from kreislauf.release import triton as triton_task
from kreislauf.release.permission import PublishRefused
from kreislauf.settings import settings
from models import spec
from models.spec import Policy
from serving import live
from tests.conftest import aliases

pytestmark = pytest.mark.usefixtures("prefect_harness", "mlflow_store", "triton")


def one_release(model: str, orders) -> None:
    """Version 1, which has learnt from 20 days of orders."""
    ingest(orders(0, 20, threshold=50), model)
    assert retrain(model).release == 1


def two_releases(model: str, orders) -> None:
    """Version 1, then version 2, which knows better."""
    one_release(model, orders)
    ingest(orders(20, 60, threshold=120), model)
    assert retrain(model).release == 2


@pytest.mark.slow
def test_a_model_of_another_kind_goes_live_grows_stale_and_is_replaced(tiny, orders):
    ingest(orders(0, 20, threshold=50), tiny)
    first = retrain(tiny, reason="the first")
    assert (first.outcome, first.version, first.release) == ("promote", 1, 1)
    requests = {"price": [[40.0], [60.0], [150.0]]}
    assert answers(tiny, requests) == (1, [False, True, True])

    assert retrain(tiny).outcome == "cooling down"

    ingest(orders(20, 25, threshold=50), tiny)
    first_finding = monitor(tiny)
    assert first_finding.verdict == "stable", first_finding.reason
    assert first_finding.realised.mean == pytest.approx(first_finding.reference.mean, abs=0.03)
    same = retrain(tiny, reason="nothing changed")
    assert same.outcome in ("refuse", "inconclusive")
    assert same.release is None
    assert answers(tiny, requests)[0] == 1

    ingest(orders(25, 60, threshold=120), tiny)
    finding = monitor(tiny)
    assert finding.verdict == "concept drift"
    assert "Other answers are right than before" in finding.reason
    assert "a baseline that learns from them alone is as good as ever" in finding.reason
    assert monitor(tiny) == finding, "looked at twice, noted once"
    newest_status = status.read(tiny)
    assert (newest_status.version, newest_status.verdict, newest_status.end) == (
        1,
        "concept drift",
        finding.end,
    )
    assert newest_status.signals["accuracy"].value == pytest.approx(0.5, abs=0.2)
    page = newest_page("monitor-tiny")
    for phrase in (finding.reason, "data:image/png;base64,", "| accuracy |", "price"):
        assert phrase in page, phrase
    alarms = journal.read("alarms")
    assert alarms.select("version", "verdict", "action").rows() == [
        (1, "concept drift", "A retraining is asked for.")
    ]
    better = retrain(tiny, reason=finding.reason)
    assert (better.outcome, better.release) == ("promote", 2)
    became = journal.read("alarms").filter(~journal.read("alarms")["asks"])["action"].to_list()
    assert became == [f"Version {better.version} was trained: promote."]
    tidied = {report.table: report.merged for report in tidy(retention_hours=0)}
    assert tidied["windows"] > 0
    assert {"slices", "alarms", "decisions"} & set(tidied) == {"alarms", "decisions"}
    assert journal.read("alarms").height == alarms.height + 1, "merged, and none forgotten"
    pages = registry.attached(registry.get(tiny, 1), "monitor")
    assert pages == [f"drift-{end}.html" for end in (first_finding.end, finding.end)]
    assert answers(tiny, requests) == (better.version, [False, False, True])
    assert aliases(tiny) == {"champion": better.version, "previous": 1}
    assert [r.champion for r in releases.history(tiny)] == [1, better.version]
    decisions = journal.read("decisions").sort("version")
    assert decisions["version"].to_list() == [1, same.version, better.version]
    assert decisions["champion_version"].to_list() == [None, 1, 1]
    assert decisions["outcome"].to_list() == ["promote", same.outcome, "promote"]
    assert decisions["gain_low"][2] > 0
    assert decisions["parent"][2] == 1
    text = html.unescape(card_of(tiny, better.version))
    for phrase in (
        better.reason,
        f"<td>{better.version}</td>",
        "<td>1</td>",
        "--param model=tiny",
        "PSI",
        "<svg",
    ):
        assert phrase in text, phrase


def newest_page(key: str) -> str:
    """The newest Markdown artifact of this key."""
    from prefect.artifacts import Artifact

    return str(Artifact.get(key).data)


def card_of(model: str, number: int) -> str:
    """The HTML that lies beside a version."""
    import mlflow

    run = registry.get(model, number).run_id
    return mlflow.artifacts.load_text(f"runs:/{run}/card/card.html")


def test_a_monitor_that_dies_before_it_excludes_is_made_good_by_the_next(tiny, orders, monkeypatch):
    ingest(orders(0, 60, threshold=100), tiny)
    retrain(tiny)
    ingest(orders(60, 65, threshold=5), tiny)
    with monkeypatch.context() as patch:
        patch.setattr(exclusions, "exclude", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            monitor(tiny)
    table = spec.load(tiny).table.name
    assert exclusions.intervals(table) == []
    finding = monitor(tiny)
    assert finding.verdict == "data fault"
    assert exclusions.intervals(table) == [(finding.start, finding.end)]
    assert journal.read("alarms").height == 1


def test_broken_data_is_shut_out_of_training_and_starts_none(tiny, orders, monkeypatch):
    ingest(orders(0, 60, threshold=100), tiny)
    retrain(tiny)
    # Nearly every order is said to be sent back: neither the model nor a baseline that knows the
    # window is right then.
    ingest(orders(60, 65, threshold=5), tiny)
    finding = monitor(tiny)
    assert finding.verdict == "data fault", finding.reason
    assert "falls with it" in finding.reason
    assert journal.read("alarms")["action"].str.contains("No training will learn").to_list() == [
        True
    ]
    table = spec.load(tiny).table
    start, end = exclusions.intervals(table.name)[0]
    assert start <= finding.start
    assert monitor(tiny).verdict in ("data fault", "not enough data"), "what came after the window"
    waiting = monitor(tiny)
    assert waiting.verdict == "undecided", "the fault is looked at once, and nothing came after it"
    assert "too little to say that the fault is over" in waiting.reason
    [(start, end)] = exclusions.intervals(table.name)
    first, last = [1_700_000_000_000 + day * DAY_MS for day in (60, 65)]
    assert start <= first
    assert end >= last - DAY_MS // 200
    assert journal.read("alarms").filter(pl.col("action").str.starts_with("No")).height == 1

    ingest(orders(65, 70, threshold=100), tiny)
    assert monitor(tiny).verdict == "stable"
    version = train(tiny)
    assert version.lineage.without == [(start, end)]
    learnt = lake.rebuild(
        table,
        version.lineage.table_version,
        version.lineage.watermark,
        version.lineage.digest,
        version.lineage.without,
    )
    assert learnt.filter(learnt["ts"].is_between(start, end)).is_empty()
    assert learnt.height <= 13_000
    assert lake.read(table).height == 14_000, "nothing is lost"


def test_what_people_did_with_the_answers_is_watched_when_it_can_be_known(
    prepared, tiny, orders, tmp_path
):
    prepared(one_release)
    ingest(orders(20, 25, threshold=50), tiny)
    land_reactions(tmp_path, tiny, days=25, share=0.5, last=0.1)
    finding = monitor(tiny)
    clicks = next(s for s in finding.signals if s.name == "clicks")
    assert (clicks.mean, clicks.value) == (
        pytest.approx(0.5, abs=0.03),
        pytest.approx(0.1, abs=0.03),
    )
    assert clicks.alarm
    assert finding.verdict == "covariate shift", finding.reason
    assert "| version 1 | champion |" in newest_page("monitor-tiny")


def test_feedback_that_stopped_is_on_the_page_of_the_monitor(prepared, tiny, orders, tmp_path):
    prepared(one_release)
    ingest(orders(20, 25, threshold=50), tiny)
    land_reactions(tmp_path, tiny, days=17, share=0.5, last=0.5)
    later = [
        {"request_id": f"s{number}", "ts": 1_700_000_000_000 + number * 720_000, "model": tiny}
        | {"version": 1, "variant": "champion", "user": "u", "items": "[]", "latency_ms": 1.0}
        for number in range(17 * 120, 25 * 120)
    ]
    path = tmp_path / "later.jsonl"
    path.write_text("\n".join(map(json.dumps, later)))
    ingest(str(path), table="exposures")
    (remark,) = monitor(tiny).remarks
    assert remark.startswith("The last feedback is of 2023-12-01 22:")
    assert "8.0 days before the last answer" in remark
    assert f"## Somebody should look at this\n\n- {remark}" in newest_page("monitor-tiny")


def land_reactions(folder: Path, model: str, days: int, share: float, last: float) -> None:
    """Answers and clicks of so many days into the lake: a `share` of the answers was clicked,
    `last` in the newest five."""
    first, day, shown, done = 1_700_000_000_000, 86_400_000, [], []
    for number in range(days * 120):
        about = {
            "request_id": f"r{number}",
            "ts": first + number * day // 120,
            "model": model,
            "version": 1,
        }
        about |= {"variant": "champion"}
        shown.append(about | {"user": f"u{number}", "items": "[true]", "latency_ms": 1.0})
        if (
            number % 10 < 10 * (share if number < (days - 5) * 120 else last)
            or number == days * 120 - 1
        ):
            done.append(about | {"kind": "click", "item": "true"})
    for name, lines in (("exposures", shown), ("feedback", done)):
        path = folder / f"{name}.jsonl"
        path.write_text("\n".join(json.dumps(line) for line in lines))
        ingest(str(path), table=name)


@pytest.mark.slow
def test_several_windows_may_be_asked_for_before_a_retraining(tiny, orders):
    with pytest.raises(ValueError, match="confirmations is 3 and out_of is 2"):
        monitor(tiny, confirmations=3, out_of=2)
    ingest(orders(0, 20, threshold=50), tiny)
    retrain(tiny)
    for first in (20, 23):
        ingest(orders(first, first + 3, threshold=120), tiny)
        monitor(tiny, window_days=3, confirmations=2, out_of=3)
        monitor(tiny, window_days=2.9, confirmations=2, out_of=3)
    waits = "1 of the newest 3 windows say so; 2 are needed for a retraining."
    actions = journal.read("alarms").sort("end", "start")["action"].to_list()
    assert actions == [waits, ASKED, ASKED], "the first two windows overlap, and are one alarm"


def test_a_sharp_loss_asks_for_a_retraining_whatever_it_costs(prepared, tiny, orders):
    prepared(one_release)
    ingest(orders(20, 24, threshold=120), tiny)
    finding = monitor(tiny, window_days=4, retraining_cost=2.0)
    live = next(signal for signal in finding.signals if signal.name == "accuracy")
    assert live.mean - live.value == pytest.approx(0.23, abs=0.02)
    assert finding.regret == pytest.approx(0.23, abs=0.02)
    assert finding.sharp
    assert journal.read("alarms")["action"].to_list() == [ASKED]


def test_trainings_wait_while_a_change_is_too_young_to_judge(prepared, tiny, orders):
    prepared(one_release)
    ingest(orders(20, 22, threshold=50), tiny)
    ingest(orders(22, 23, threshold=120), tiny)
    finding = monitor(tiny)
    assert finding.verdict == "undecided", finding.reason
    waiting = retrain(tiny, cooldown_days=0)
    assert (waiting.outcome, waiting.version) == ("waiting", None)
    assert "too new to tell a change from a fault" in waiting.reason
    assert "not trained before that is clear" in newest_page("monitor-tiny")
    ingest(orders(23, 25, threshold=120), tiny)
    assert monitor(tiny).verdict == "concept drift"
    assert retrain(tiny).outcome != "waiting"


def test_a_data_fault_that_is_not_excluded_is_reported_once_in_a_window(tiny, monkeypatch):
    ends = []
    monkeypatch.setattr(
        events, "emit_table_event", lambda *facts, **about: ends.append(about["end"])
    )
    about = {
        "model": tiny,
        "version": 1,
        "groups": 500,
        "verdict": "data fault",
        "reason": "Noise.",
    }

    def act(**window) -> str:
        finding = Finding(**window, **about)
        settings = policy.Settings(min_gain=0.01)
        action = policy.decide(finding, policy.standing(finding), settings)
        recording.carry_out(finding, action, "orders")
        return action.sentence

    actions = [act(start=end - 9, end=end) for end in (10, 11, 19, 20)]
    assert [action == LOOK for action in actions] == [True, False, False, True]
    assert ends == [10, 20]
    assert act(start=12, end=21, fault=(15, 21)).startswith("No training will learn")
    assert ends == [10, 20, 21]


def test_both_baselines_learn_from_as_many_rows(prepared, tiny, orders, tmp_path, monkeypatch):
    prepared(one_release)
    model_type, champion = spec.load(tiny), registry.get(tiny, 1)
    rows = inputs.trusted_rows(model_type)
    probe = inputs.registered_probe(model_type, champion)
    assert inputs.comparable(probe, champion, rows, tmp_path).baseline == registry.artifact(
        champion, "baseline"
    )
    monkeypatch.setattr(calibration, "LEARN_ROWS", 500)
    learnt = []
    monkeypatch.setattr(
        type(model_type), "baseline", lambda self, rows, folder: learnt.append(rows) or folder
    )
    assert inputs.comparable(probe, champion, rows, tmp_path).baseline == tmp_path
    assert learnt[0].height < 1_000
    assert (
        learnt[0]["ts"].max()
        == lake.read(model_type.table, end=champion.lineage.holdout)["ts"].max()
    )


def test_the_loop_on_s3(tiny, orders, s3, monkeypatch):
    monkeypatch.setenv("KREISLAUF_LAKE", "s3://shop/lake")
    monkeypatch.setenv("KREISLAUF_RELEASES", "s3://shop/releases")
    s3.put_file(orders(0, 10, threshold=50), "shop/raw/a.jsonl")
    s3.put_file(orders(10, 20, threshold=50), "shop/raw/b.jsonl")
    assert ingest("s3://shop/raw", tiny).rows_kept == 4000
    assert ingest("s3://shop/raw", tiny).files_already_loaded == 2
    assert retrain(tiny).release == 1
    files = [path.rsplit("/", 1)[1] for path in s3.ls("shop/releases/tiny")]
    assert sorted(files) == ["1.json", "lifecycle.html"]
    assert journal.read("decisions")["outcome"].to_list() == ["promote"]
    assert answers(tiny, {"price": [[40.0], [60.0]]}) == (1, [False, True])


def answers(model: str, requests: dict) -> tuple[int, list]:
    import numpy as np

    version, outputs = live.answer(model, {"price": np.array(requests["price"], np.float32)})
    return version, outputs["returned"][:, 0].tolist()


def test_what_a_version_learnt_from_is_rebuilt_bit_for_bit_long_after(tiny, orders, home):
    from mlflow import MlflowClient

    ingest(orders(0, 20, threshold=50), tiny)
    table = spec.load(tiny).table
    version = train(tiny)
    learnt = lake.read(table)
    ingest(orders(15, 30, threshold=50), tiny)
    ingest(orders(30, 40, threshold=50), tiny)
    assert {t.table: (t.merged > 0, t.swept > 0) for t in tidy(retention_hours=0)} == {
        "orders": (True, True)
    }
    shutil.rmtree(home / "cache")
    lineage = registry.get(tiny, version.number).lineage
    assert lake.rebuild(table, lineage.table_version, lineage.watermark, lineage.digest).equals(
        learnt
    )
    with pytest.raises(lake.LakeError, match="not the rows that a model learnt from"):
        lake.rebuild(table, lake.version(table), lineage.watermark + 86_400_000, lineage.digest)
    run = MlflowClient(settings().mlflow_url).get_run(version.run_id)
    (used,) = run.inputs.dataset_inputs
    assert used.dataset.digest == lineage.digest[:36]


def test_each_step_continues_where_it_was_and_nothing_is_published_twice(tiny, orders):
    ingest(orders(0, 20, threshold=50), tiny)
    version = train(tiny)
    assert train(tiny).number == version.number == 1
    assert train(tiny, {"steps": 30}).number == 2
    decision = promote(tiny, 1)
    assert promote(tiny, 1) == decision
    release = publish(tiny, 1)
    assert publish(tiny, 1) == release
    assert len(releases.history(tiny)) == 1
    with pytest.raises(PublishRefused, match="version 2 was never judged"):
        publish(tiny, 2)


@contextmanager
def interrupted_before_the_mirror(monkeypatch) -> Iterator[None]:
    def die(*_):
        raise KeyboardInterrupt("killed")

    with monkeypatch.context() as patch:
        patch.setattr(registry, "mirror", die)
        with pytest.raises(KeyboardInterrupt):
            yield


def test_a_run_that_dies_after_its_release_is_finished_by_the_next_and_not_repeated(
    tiny, orders, monkeypatch
):
    ingest(orders(0, 20, threshold=50), tiny)

    with interrupted_before_the_mirror(monkeypatch):
        retrain(tiny)
    assert releases.current(tiny).champion == 1
    assert aliases(tiny) == {"challenger": 1}
    assert retrain(tiny).outcome == "cooling down"
    assert aliases(tiny) == {"champion": 1}
    assert [v.number for v in registry.versions(tiny)] == [1]
    assert len(releases.history(tiny)) == 1


def test_what_the_gate_did_not_promote_is_not_published(prepared, tiny, orders):
    prepared(one_release)
    version = train(tiny, {"steps": 2})
    decision = promote(tiny, version.number)
    assert decision.outcome == "refuse"
    assert decision.reasons == ["The challenger is the same file as the champion, version 1."]
    with pytest.raises(PublishRefused, match="was not promoted but judged refuse"):
        publish(tiny, version.number)
    assert releases.current(tiny).champion == 1


def test_a_version_that_answers_otherwise_than_registered_is_undone(
    prepared, tiny, orders, monkeypatch
):
    prepared(one_release)
    ingest(orders(20, 60, threshold=120), tiny)
    write_golden = golden.write_golden

    def write_wrong_golden(*arguments):
        path = write_golden(*arguments)
        stored = json.loads(path.read_text())
        stored["outputs"]["returned"]["values"][0][0] ^= True
        path.write_text(json.dumps(stored))
        return path

    monkeypatch.setattr(golden, "write_golden", write_wrong_golden)
    version = train(tiny)
    assert promote(tiny, version.number).outcome == "promote"
    with pytest.raises(
        PublishRefused, match="answers otherwise than registered: output returned differs in 1 of"
    ):
        publish(tiny, version.number)
    assert answers(tiny, {"price": [[60.0]]}) == (1, [True])
    assert [r.champion for r in releases.history(tiny)] == [1]


def test_a_rollback_brings_the_previous_version_back_and_says_who_and_why(prepared, tiny, orders):
    prepared(two_releases)
    back = rollback(tiny, reason="returns doubled", who="Ada", automatic=True)
    assert (back.number, back.champion, back.previous) == (3, 1, 2)
    assert (back.reason, back.who) == ("returns doubled", "Ada")
    assert answers(tiny, {"price": [[60.0]]}) == (1, [True])
    assert aliases(tiny) == {"champion": 1, "previous": 2}
    with pytest.raises(
        PublishRefused, match=r"version 2 was live before and was replaced.*rollback"
    ):
        publish(tiny)
    assert promote(tiny, 2).outcome == "promote", "it was judged against version 1"
    assert rollback(tiny, version=1) == back, "it is live already"
    with pytest.raises(
        NothingToRollBackTo, match="version 1 was brought back already: an alert alone"
    ):
        rollback(tiny, automatic=True)
    again = rollback(tiny)
    assert (again.number, again.champion, again.previous) == (4, 2, 1)
    assert answers(tiny, {"price": [[60.0]]}) == (2, [False])


@pytest.mark.slow
def test_the_rollback_benchmark_goes_to_and_fro(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(type(spec.load("session_recommender")), "policy", Policy(min_effect=0.1))
    plan = Plan(days=16, sessions_per_day=60, articles=120, change_day=99)
    measured = rollback_benchmark.measure(
        plan, {"dim": 16, "epochs": 1, "ranker_epochs": 1}, 2, tmp_path
    )
    assert [r.champion for r in releases.history("session_recommender")] == [1, 2, 1, 2]
    assert capsys.readouterr().out.count(" is live after ") == 2
    assert 0 < measured["rollback_seconds"] <= measured["slowest_seconds"]


def test_what_was_never_live_cannot_be_rolled_back_to(tiny, orders):
    with pytest.raises(NothingToRollBackTo, match="Nothing of tiny was ever live"):
        rollback(tiny)
    ingest(orders(0, 20, threshold=50), tiny)
    retrain(tiny)
    with pytest.raises(NothingToRollBackTo, match="version 1 is the first that was live"):
        rollback(tiny)
    train(tiny, {"steps": 2})
    with pytest.raises(
        NothingToRollBackTo, match=r"version 2 was never live.* Versions that were: 1"
    ):
        rollback(tiny, version=2)
    assert [r.champion for r in releases.history(tiny)] == [1]


def test_a_rollback_that_dies_after_its_release_is_finished_by_the_next_run(
    prepared, tiny, orders, monkeypatch
):
    prepared(two_releases)

    with interrupted_before_the_mirror(monkeypatch):
        rollback(tiny)
    assert releases.current(tiny).champion == 1
    assert aliases(tiny)["champion"] == 2
    assert retrain(tiny).outcome == "cooling down"
    assert aliases(tiny) == {"champion": 1, "previous": 2}
    assert len(releases.history(tiny)) == 3


@pytest.mark.parametrize("go_live", [True, False])
def test_a_person_is_asked_before_a_version_goes_live(tiny, orders, go_live):
    ingest(orders(0, 20, threshold=50), tiny)
    asked = retrain(tiny, approval="manual")
    assert (asked.outcome, asked.version) == ("waiting for approval", 1)
    assert releases.current(tiny) is None, "nothing is live before the answer"
    assert retrain(tiny, approval="manual").outcome == "cooling down", "it is not asked again"
    assert asked.reason in newest_page("question-tiny")
    with pytest.raises(ParameterTypeError, match="at least 1 character"):
        approve(" ", 1, model=tiny)

    release = approve("Ada", 1, go_live, "seen the card", tiny)

    assert (release is not None) == go_live
    log = releases.history(tiny)
    assert [entry.who for entry in log] == (["Ada: seen the card"] if go_live else [])
    answer = registry.get(tiny, 1).answer
    assert answer == ("approved" if go_live else "not approved") + " by Ada: seen the card"
    assert retrain(tiny).outcome == "cooling down"
    with pytest.raises(PublishRefused, match=r"version 1 does not wait.*: (not )?approved by Ada"):
        approve("Bob", 1, go_live=False, model=tiny)
    if go_live:
        assert approve("Bob", 1, model=tiny) == release, "a second run changes nothing"
        assert registry.get(tiny, 1).answer == answer
    else:
        with pytest.raises(PublishRefused, match=r"version 1 does not wait.*: not approved by Ada"):
            approve("Bob", 1, model=tiny)
        with pytest.raises(PublishRefused, match="No version of tiny was promoted"):
            publish(tiny)


def test_a_newer_promotion_withdraws_the_question(tiny, orders):
    ingest(orders(0, 20, threshold=50), tiny)
    retrain(tiny, approval="manual")
    ingest(orders(20, 40, threshold=50), tiny)
    assert retrain(tiny, approval="manual").version == 2
    questions = [version.number for version in registry.versions(tiny) if version.question]
    assert questions == [2]
    assert registry.get(tiny, 1).answer == "withdrawn, because version 2 was promoted"
    with pytest.raises(PublishRefused, match="version 1 does not wait for an answer: withdrawn"):
        approve("Ada", 1, model=tiny)
    assert prune(tiny, keep=1) == []
    assert publish(tiny, 2).champion == 2, "who names the version need not approve it"
    assert registry.get(tiny, 2).question is None


def test_without_a_parity_result_nothing_is_published(tiny, orders):
    from mlflow import MlflowClient

    ingest(orders(0, 20, threshold=50), tiny)
    version = train(tiny)
    assert promote(tiny, version.number).outcome == "promote"
    MlflowClient(settings().mlflow_url).delete_model_version_tag(tiny, "1", "parity")
    with pytest.raises(PublishRefused, match="version 1 has no passed parity"):
        publish(tiny, 1)
    assert releases.current(tiny) is None


def test_a_release_by_someone_else_meanwhile_is_not_overwritten(
    prepared, tiny, orders, monkeypatch
):
    prepared(one_release)
    ingest(orders(20, 60, threshold=120), tiny)
    version = train(tiny)
    assert promote(tiny, version.number).outcome == "promote"
    ask = triton_task.ask

    def publish_while_golden_requests_are_asked(*arguments):
        releases.append(
            tiny, 1, "a person was faster", "someone else", after=releases.current(tiny)
        )
        return ask(*arguments)

    monkeypatch.setattr(triton_task, "ask", publish_while_golden_requests_are_asked)
    with pytest.raises(
        releases.ReleaseConflict, match=r"Release 2 of tiny exists already.*Version 2 was not"
    ):
        publish(tiny, version.number)
    monkeypatch.setattr(triton_task, "ask", ask)
    assert [r.who for r in releases.history(tiny)][1:] == ["someone else"]
    assert answers(tiny, {"price": [[60.0]]}) == (1, [True])


def test_an_unreachable_mlflow_or_triton_is_one_clear_sentence_and_nothing_is_lost(
    tiny, orders, monkeypatch
):
    ingest(orders(0, 20, threshold=50), tiny)
    with monkeypatch.context() as patch:
        patch.setenv("KREISLAUF_MLFLOW_URL", "http://127.0.0.1:1")
        with pytest.raises(
            registry.RegistryError, match=r"MLflow at http://127.0.0.1:1 does not answer"
        ):
            retrain(tiny)
    with monkeypatch.context() as patch:
        patch.setenv("KREISLAUF_TRITON_URL", "127.0.0.1:1")
        with pytest.raises(triton_task.TritonError, match=r"Triton at 127.0.0.1:1 did not answer"):
            retrain(tiny)
    assert releases.current(tiny) is None
    done = retrain(tiny)
    assert (done.outcome, done.version, done.release) == ("promote", 1, 1)


def test_a_changed_file_is_never_used(tiny, orders, home):
    ingest(orders(0, 20, threshold=50), tiny)
    version = train(tiny)
    for path in home.rglob("model.onnx"):
        path.write_bytes(b"something else")
    with pytest.raises(registry.RegistryError, match="was changed or damaged"):
        promote(tiny, version.number)


def test_the_recommender_goes_live_and_no_pickle_is_ever_loaded(home, small_shop, monkeypatch):
    model_type = spec.load("session_recommender")
    monkeypatch.setattr(type(model_type), "policy", Policy(min_effect=0.1, baseline_margin=0.05))
    ingest(str(raw_files.write(small_shop, home / "raw" / "sessions.jsonl")))
    with what_pickles_name() as named:
        first = retrain("session_recommender", params=model_type.Params.tiny().model_dump())
        assert first.outcome == "promote", first.reason
        version = registry.get("session_recommender", 1)
        monitor()
        shutil.rmtree(home / "cache")
        again = train("session_recommender", model_type.Params.tiny().model_dump() | {"seed": 1})
        assert again.lineage.parent == 1, "the weights are loaded, too"
        publish("session_recommender", 1)
    assert named == []
    assert version.parity.passed
    assert version.parity.inputs > 400
    examples = model_type.examples(small_shop)
    number, outputs = live.answer("session_recommender", examples.inputs)
    assert number == 1
    assert model_type.score(examples, outputs).mean() > 0.3


def test_what_a_pickle_names_is_noticed():
    with what_pickles_name() as named:
        pickle.loads(pickle.dumps(PurePosixPath("/")))  # noqa: S301
    assert named == ["pathlib.PurePosixPath"]


@contextmanager
def what_pickles_name() -> Iterator[list[str]]:
    """Classes and functions that pickles make Python look up meanwhile, by any library: how a
    pickle runs code."""
    names = []
    listening = [True]

    def hook(event: str, arguments: tuple) -> None:
        if event == "pickle.find_class" and listening[0]:
            names.append(".".join(arguments))

    sys.addaudithook(hook)
    yield names
    # A hook stays for good.
    listening[0] = False
