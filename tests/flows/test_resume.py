"""What a killed training or retraining leaves is finished first, though rows have arrived; and of
two that train the same, one writes."""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from flows.ingest import ingest
from flows.retrain import retrain
from flows.train import train
from kreislauf import lake, registry
from kreislauf.lake import exclusions, journal
from kreislauf.registry import claims
from kreislauf.release import permission, releases, triton
from models import spec
from tests.flows.child_process import ask, started
from tests.flows.test_kills import NEVER, fresh
from tests.flows.test_loop import one_release

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_harness", "mlflow_store")]
needs_triton = pytest.mark.usefixtures("triton")
DAY = 86_400_000


def arrive(path: Path, model: str) -> None:
    """A quarter of a day of orders, after those of 60 days."""
    lines = []
    for number in range(12_000, 12_050):
        order = {"order": number, "ts": 1_700_000_000_000 + number * DAY // 200}
        lines.append(json.dumps(order | {"price": 10.0, "returned": False}))
    path.write_text("\n".join(lines))
    ingest(str(path), model)


@needs_triton
@pytest.mark.parametrize("every", [14, pytest.param(1, marks=pytest.mark.long)])
def test_a_retraining_killed_at_any_step_is_finished_though_an_event_has_arrived(
    prepared, every, tiny, orders, other_models, home, tmp_path, monkeypatch
):
    prepared(one_release)
    ingest(orders(20, 60, threshold=120), tiny)
    planned = lake.version(spec.load(tiny).table)
    with started("killed", other_models.parent) as process:
        for step in range(3, NEVER, every):
            folder = tmp_path / str(step)
            env = fresh(home, folder) | {"KREISLAUF_TRAINING": str(folder / "training")}
            for name, value in env.items():
                monkeypatch.setenv(name, value)
            triton.serve(tiny, [1])
            triton.remove_version(tiny, 2)
            order = {"model": tiny, "env": env}
            outcome = ask(process, order | {"step": step})
            was_begun = claims.unfinished(tiny) or len(registry.versions(tiny)) > 1
            assert was_begun or step < 4, "it repairs aliases first"
            arrive(folder / "more.jsonl", tiny)
            assert ask(process, order | {"step": NEVER}) == "done"
            assert [v.number for v in registry.versions(tiny)] == [2, 1], f"{step} trained twice"
            version = registry.get(tiny, 2)
            if was_begun:
                assert version.lineage.table_version == planned, f"{step} began on other rows"
            assert version.closed
            assert [release.champion for release in releases.history(tiny)] == [1, 2]
            assert sorted(journal.read("decisions")["version"]) == [1, 2]
            assert claims.unfinished(tiny) == []
            if outcome == "done":
                assert step > 15, "there are at least so many steps"
                break


def killed_plan(model: str) -> registry.Lineage:
    """A training that is killed when it begins, as far as it can be told afterwards."""

    class Killed(BaseException):
        """Not an error: nothing of ours runs after it."""

    model_type = spec.load(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            type(model_type), "train", lambda *_: exec("raise killed", {"killed": Killed})
        )
        with pytest.raises(Killed):
            train(model)
    return claims.unfinished(model)[0].lineage


def test_a_killed_training_is_begun_anew_when_something_else_would_be_learnt(tiny, orders):
    ingest(orders(0, 20, threshold=50), tiny)
    plan = killed_plan(tiny)
    assert train(tiny, {"steps": 30}).lineage.key != plan.key, "of other parameters"
    ingest(orders(20, 21, threshold=50), tiny)
    assert train(tiny).lineage.key == plan.key
    assert claims.unfinished(tiny) == []

    plan = killed_plan(tiny)
    assert plan.watermark > 1_700_000_000_000 + 20 * DAY, "of what has arrived meanwhile"
    exclusions.exclude(spec.load(tiny).table.name, plan.start, plan.start + DAY, "a test")
    version = train(tiny)
    assert version.lineage.key != plan.key
    assert version.lineage.without

    ingest(orders(21, 22, threshold=50), tiny)
    plan = killed_plan(tiny)
    ingest(orders(22, 26, threshold=50), tiny)
    assert train(tiny).lineage.table_version > plan.table_version, "too old"


@needs_triton
def test_a_version_that_cannot_go_live_is_not_taken_up_again(tiny, orders, monkeypatch):
    ingest(orders(0, 20, threshold=50), tiny)
    with monkeypatch.context() as patch:
        patch.setattr(triton, "ask", lambda *_: {})
        patch.setattr("kreislauf.release.golden.compare", lambda *_: "all of it")
        with pytest.raises(permission.PublishRefused, match="answers otherwise"):
            retrain(tiny)
    assert registry.get(tiny, 1).closed
    ingest(orders(20, 22, threshold=50), tiny)
    assert retrain(tiny).version == 2


def test_who_loses_a_training_stops_and_the_other_finishes_it(tiny, orders, monkeypatch):
    ingest(orders(0, 20, threshold=50), tiny)
    model_type = spec.load(tiny)
    fit = type(model_type).train
    calls = []

    def train_while_another_takes_over(self, rows, params, work):
        calls.append(work.folder)
        if len(calls) == 1:
            assert train(tiny).number == 1
            assert not work.folder.exists(), "who finished it has swept it"
        work.before_write()
        return fit(self, rows, params, work)

    monkeypatch.setattr(type(model_type), "train", train_while_another_takes_over)
    with pytest.raises(claims.LostTraining, match=r"is taken over by another run.*stops"):
        train(tiny)
    assert calls[0] == calls[1], "they share the folder"
    assert not calls[0].exists(), "who lost it has written nothing"
    assert [v.number for v in registry.versions(tiny)] == [1]


def plan_of(model: str) -> registry.Lineage:
    """What stands in for a plan."""
    return registry.Lineage(
        key="k", table="orders", table_version=3, start=1, holdout=5, watermark=9, digest=model
    )


def test_of_several_that_begin_at_once_one_holds_the_training():
    def begin(_: int) -> claims.Claim | None:
        try:
            return stack.enter_context(claims.held("m", plan_of("m")))
        except claims.LostTraining:
            return None

    with ExitStack() as stack, ThreadPoolExecutor(6) as pool:
        claimed = [claim for claim in pool.map(begin, range(6)) if claim]
        holders = [claim for claim in claimed if claims.is_held(claim)]
        assert len(holders) == 1
        for claim in claimed:
            if claim not in holders:
                with pytest.raises(claims.LostTraining):
                    claims.check(claim)
        assert claims.unfinished("m") == holders
