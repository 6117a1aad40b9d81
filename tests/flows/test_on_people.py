"""From the gateway's HTTP to the release log: people click, and what they click decides."""

from collections import Counter
from collections.abc import Container, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from flows.collect import collect
from flows.experiment import experiment
from flows.look import look
from kreislauf import exposures, lake
from kreislauf.release import releases, triton
from serving import split
from tests.flows.test_look import two_promoted
from tests.serving.conftest import running
from tests.serving.test_gateway import metric
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("prefect_harness", "mlflow_store", "triton")


def in_test(model: str, orders) -> None:
    """Version 1 is live, and half of the people get version 2, which the gate has promoted."""
    two_promoted(model, orders)
    experiment(model, 2, share=0.5, minimum_effect=0.5)


@pytest.fixture
def gateway(prepared, monkeypatch) -> Iterator[httpx.Client]:
    """See `in_test`."""
    monkeypatch.setenv("KREISLAUF_DEADLINE_MS", "10000")
    monkeypatch.setenv("KREISLAUF_HOLD_BACK", "0.5")
    prepared(in_test)
    with running() as address, httpx.Client(base_url=f"http://{address}", timeout=30) as client:
        yield client


def visit(
    gateway: httpx.Client,
    rates: dict[int, float],
    names: str,
    count: int,
    lost: Container[int] = (),
) -> dict[str, str]:
    """So many people ask once each, and click as often as they like the version that answers. The
    last one clicks: answers count until the newest click. The requests of the numbers in `lost` do
    not arrive. Who comes again under the same `names` clicks as before. Returns the variant that
    each was told, by user."""
    variants = {}

    def ask(number: int) -> None:
        body = {"price": 60, "user": f"{names}-{number}"}
        answer = gateway.post("/v1/tiny/predict", json=body).json()
        variants[body["user"]] = answer["variant"]
        if draws[number] < rates[answer["version"]]:
            click = {"request_id": answer["request_id"], "model": "tiny", "kind": "click"}
            item = answer["answer"]["returned"]
            gateway.post("/v1/feedback", json=click | {"item": item}).raise_for_status()

    draws = np.random.default_rng(len(names)).random(count)
    draws[-1] = 0
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, [number for number in range(count - 1) if number not in lost]))
    ask(count - 1)
    return variants


def until_followed(gateway: httpx.Client) -> None:
    """Wait until the gateway answers with the release in force: who asks before takes part in the
    test that has ended."""
    number = releases.current("tiny").number
    until(lambda: metric(gateway, 'kreislauf_release{model="tiny"}') == number)


def take_look():
    """What is said once the gateway's answers are in the lake."""
    collect()
    (newest,) = look(maturity_minutes=0)
    return newest


@pytest.mark.slow
def test_a_benefit_goes_live_and_is_taken_back_by_those_who_kept_the_version_before(gateway):
    visit(gateway, {1: 0.2, 2: 0.5}, "test", 700)
    in_test = take_look()
    assert in_test.verdict.outcome == "benefit", in_test
    released = releases.current("tiny")
    assert (released.champion, released.challenger, released.is_hold_back) == (2, 1, True)
    assert "In its A/B test: The challenger is better: +" in released.reason

    until_followed(gateway)
    visit(gateway, {1: 0.5, 2: 0.1}, "release", 1_200)
    held_back = take_look()
    assert held_back.verdict.outcome == "harm", held_back
    back = releases.current("tiny")
    assert (back.champion, back.challenger, back.hold != "") == (1, None, True)
    assert back.reason.startswith("Compared with the users who kept version 1: The release does")
    people = sum(sum(record.counts.assigned.values()) for record in (in_test, held_back))
    assert people == 1_900, "nobody is lost, and nobody counts twice"
    assert lake.scan(exposures.EXPOSURES).collect().height == 1_900


def test_harm_is_stopped_and_the_challenger_leaves_triton(gateway):
    variants = visit(gateway, {1: 0.5, 2: 0.1}, "harm", 500)
    assert visit(gateway, {1: 0.5, 2: 0.1}, "harm", 500) == variants
    newest = take_look()
    assert newest.verdict.outcome == "harm", newest
    live = releases.current("tiny")
    assert (live.champion, live.challenger, live.share) == (1, None, 0)
    assert live.reason.startswith("The A/B test of version 2 ends. The challenger does harm: -")
    assert not triton.is_resident("tiny", 2)
    assert newest.counts.assigned == newest.counts.answered == dict(Counter(variants.values()))
    assert newest.counts.answers == 1_000
    assert look(maturity_minutes=0) == []


def test_a_challenger_that_does_not_answer_all_of_its_users_is_not_judged(gateway):
    visit(gateway, {1: 0.3, 2: 0.3}, "before", 350)
    triton.serve("tiny", [1])
    visit(gateway, {1: 0.3, 2: 0.3, 0: 0.3}, "after", 350)
    newest = take_look()
    assert newest.verdict.outcome == "mismatch", newest
    assert "were answered by the challenger, and 50.00% were planned" in newest.verdict.reason
    assert sum(newest.counts.assigned.values()) == 700, "assigned they were"
    live = releases.current("tiny")
    assert (live.champion, live.challenger) == (1, None)
    assert "lost to the fallback" in live.reason


def test_users_that_never_arrive_stop_it(gateway):
    release = releases.current("tiny")
    lost = {
        number
        for number in range(0, 699, 3)
        if split.assign(release, f"lost-{number}").arm == "challenger"
    }
    visit(gateway, {1: 0.3, 2: 0.3}, "lost", 700, lost)
    newest = take_look()
    assert newest.verdict.outcome == "mismatch", newest
    assert "were assigned to the challenger" in newest.verdict.reason
    assert sum(newest.counts.assigned.values()) == 700 - len(lost)
    assert releases.current("tiny").challenger is None


def test_without_a_difference_the_champion_stays(gateway):
    visit(gateway, {1: 0.3, 2: 0.3}, "no difference", 900)
    newest = take_look()
    assert newest.verdict.outcome == "undecided", newest
    live = releases.current("tiny")
    assert (live.champion, live.challenger) == (1, None)
    assert "No difference is proven at the horizon, so the champion stays" in live.reason
