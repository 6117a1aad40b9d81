"""The demo's shop asks a real gateway, and what it sends back is in the lake."""

import time

import numpy as np
import polars as pl
import pytest

from demo import visitors
from demo.shop import Plan, simulate
from demo.storefront import padded, play
from flows.collect import collect
from kreislauf import exposures, lake
from kreislauf.monitoring import release_clicks
from kreislauf.release import releases
from kreislauf.release import triton as triton_task
from kreislauf.settings import settings
from models import spec
from tests.serving.conftest import RECOMMENDER

PLAN = Plan(days=16, sessions_per_day=60, articles=120, change_day=8)
"""The plan of `small_shop`, from which version 1 has learnt."""


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_harness")
def test_a_better_version_earns_more_and_the_lake_has_each_click(addresses, tmp_path, monkeypatch):
    monkeypatch.setenv("KREISLAUF_DEADLINE_MS", "10000")
    days = [*visitors.days(PLAN)][-4:]
    gateway = addresses["GATEWAY"]
    good = pl.concat([play(day, gateway) for day in days])
    # Version 2 has learnt from a shop with other articles.
    table = spec.load(RECOMMENDER).baseline(simulate(Plan(days=2, articles=120, seed=9)), tmp_path)
    triton_task.add_version(RECOMMENDER, 2, table)
    triton_task.serve(RECOMMENDER, [1, 2])
    live = releases.append(RECOMMENDER, 2, "a test", "a test", releases.current(RECOMMENDER))
    while play(days[0].take(np.arange(1)), gateway)["version"][0] != live.champion:
        time.sleep(0.1)
    worse = pl.concat([play(day, gateway) for day in days])

    assert (good["version"].unique().to_list(), good.height) == ([1], sum(map(len, days)))
    assert good["session"].to_list() == np.concatenate([day.session for day in days]).tolist()
    rates = [(shown["clicked"] >= 0).mean() for shown in (good, worse)]
    expected = [shown["expected"].mean() for shown in (good, worse)]
    assert rates[0] > 2 * rates[1]
    assert expected[0] > 2 * expected[1]
    error = np.sqrt((good["expected"] * (1 - good["expected"])).sum()) / good.height
    assert abs(rates[0] - expected[0]) < 4 * error
    assert_lake_has(good)
    comparison = release_clicks.compare(RECOMMENDER, 2, 1, maturity=0)
    assert comparison.worse, comparison.reason


def assert_lake_has(shown: pl.DataFrame) -> None:
    """Load what the gateway wrote, as the flow collect does once its segments are closed."""
    for folder in settings().spools:
        for path in folder.glob("*.open"):
            path.rename(path.with_suffix(".jsonl"))
    collect()
    rows = lake.read(exposures.EXPOSURES).join(shown, on="request_id")
    assert rows.height == shown.height
    assert (rows["version"] == rows["version_right"]).all()
    clicks = lake.read(exposures.FEEDBACK).join(shown, on="request_id")
    assert clicks.height == (shown["clicked"] >= 0).sum()
    items = rows.join(clicks.select("request_id", "item"), on="request_id")
    for listed, item, position in items.select("items", "item", "clicked").iter_rows():
        assert pl.Series([listed]).str.json_decode(pl.List(pl.Int64))[0][position] == int(item)


def test_short_answers_are_filled_up_with_what_nobody_wants():
    assert padded([[5, 6], [], [7]]).tolist() == [[5, 6], [-1, -1], [7, -1]]


def test_what_the_gateway_refuses_is_said(addresses):
    day = next(iter(visitors.days(PLAN)))
    early = day.take(np.arange(3))
    early.time[:] = 1_000
    with pytest.raises(RuntimeError, match=r"predict answered 422: .*ms since 1970"):
        play(early, addresses["GATEWAY"])
