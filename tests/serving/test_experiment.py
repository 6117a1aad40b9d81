"""A/B tests from the gateway's HTTP to the release log: visitors click, and the verdict acts."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from demo import visitors
from demo.shop import Plan, simulate
from demo.storefront import play
from demo.visitors import Visitors
from flows.collect import collect
from flows.look import look
from kreislauf.experiment import running
from kreislauf.experiment.running import Terms
from kreislauf.release import releases
from kreislauf.release import triton as triton_task
from kreislauf.settings import settings
from models import spec
from serving import split
from tests.serving.conftest import RECOMMENDER

pytestmark = pytest.mark.usefixtures("prefect_harness", "mlflow_store")
PLAN = Plan(days=16, sessions_per_day=60, articles=120, change_day=8)
"""The plan of `small_shop`, from which version 1 has learnt."""
SHARE = 0.5


@pytest.fixture
def challenger(addresses, tmp_path, monkeypatch) -> Callable[[Plan], str]:
    """Gives half of the visitors version 2, which has learnt from the shop of a plan; the gateway's
    address."""
    monkeypatch.setenv("KREISLAUF_DEADLINE_MS", "10000")
    gateway = addresses["GATEWAY"]

    def begin(plan: Plan) -> str:
        table = spec.load(RECOMMENDER).baseline(simulate(plan), tmp_path)
        triton_task.add_version(RECOMMENDER, 2, table)
        triton_task.serve(RECOMMENDER, [1, 2])
        live = releases.current(RECOMMENDER)
        releases.append(RECOMMENDER, 1, "a test", "a test", live, challenger=2, share=SHARE)
        test = running.current(RECOMMENDER)
        running.agree(test, Terms(minimum_effect=0.5))
        return gateway

    return begin


def people() -> list[Visitors]:
    """The visitors of the last days."""
    return [*visitors.days(PLAN)][-12:]


def take_look():
    """What is said of the test once the gateway's answers are in the lake."""
    for folder in settings().spools:
        for path in folder.glob("*.open"):
            path.rename(path.with_suffix(".jsonl"))
    collect()
    (newest,) = look(maturity_minutes=0)
    return newest


def test_a_challenger_that_is_clicked_less_is_stopped(challenger):
    gateway = challenger(Plan(days=2, articles=120, seed=9))
    shown = pl.concat([play(day, gateway) for day in people()])

    newest = take_look()

    assert newest.verdict.outcome == "harm", newest
    assert sum(newest.counts.assigned.values()) == shown["session"].n_unique()
    assert newest.counts.answers == shown.height
    of_challenger = shown.filter(pl.col("variant") == "challenger")
    assert newest.counts.answered["challenger"] == of_challenger["session"].n_unique()
    live = releases.current(RECOMMENDER)
    assert (live.champion, live.challenger, live.share) == (1, None, 0)
    assert "The challenger does harm: -" in live.reason
    assert look(maturity_minutes=0) == []


def test_users_that_never_arrive_stop_it(challenger):
    gateway = challenger(PLAN)
    release = releases.current(RECOMMENDER)
    for day in people():
        arms = [split.assign(release, str(session)).arm for session in day.session]
        is_lost = (np.array(arms) == "challenger") & (day.session % 3 == 0)
        play(day.take(~is_lost), gateway)

    newest = take_look()

    assert newest.verdict.outcome == "mismatch", newest
    assert "were assigned to the challenger" in newest.verdict.reason
    assert releases.current(RECOMMENDER).challenger is None
