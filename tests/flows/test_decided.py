"""What a person or an alert decided outlasts the next runs."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from prefect.exceptions import ParameterTypeError

from flows.approve import approve
from flows.experiment import experiment
from flows.ingest import ingest
from flows.lift import lift
from flows.monitor import monitor
from flows.promote import promote
from flows.publish import publish
from flows.retrain import retrain
from flows.rollback import rollback
from flows.train import train
from flows.trust import trust
from kreislauf import gateway_secret, lake
from kreislauf.clock import DAY_MS
from kreislauf.exposures import PSEUDONYMS, pseudonym
from kreislauf.lake import exclusions, journal
from kreislauf.release import releases
from kreislauf.release.permission import PublishRefused
from kreislauf.settings import settings
from models import spec
from tests.flows.test_loop import newest_page, one_release, two_releases

pytestmark = pytest.mark.usefixtures("prefect_harness", "mlflow_store", "triton")


def test_what_a_person_trusts_is_learnt_from_whatever_the_next_runs_see(tiny, orders):
    ingest(orders(0, 60, threshold=100), tiny)
    retrain(tiny)
    ingest(orders(60, 65, threshold=5), tiny)
    fault = monitor(tiny)
    assert fault.verdict == "data fault"
    table = spec.load(tiny).table.name
    assert exclusions.intervals(table) == [fault.fault]

    sale = (1_700_000_000_000 + 60 * DAY_MS, 1_700_000_000_000 + 65 * DAY_MS)
    first, last = [datetime.fromtimestamp(ms / 1000, UTC) for ms in sale]
    with pytest.raises(ParameterTypeError, match="at least 1 character"):
        trust(first, who=" ", reason="a sale", model=tiny)
    with pytest.raises(ValueError, match="is before start"):
        trust(last, who="Ada", reason="a sale", end=first, model=tiny)
    verdict = trust(first.replace(tzinfo=None), who="Ada", reason="a sale", end=last, model=tiny)
    assert verdict.start % 60_000 == 0
    assert verdict.end - sale[1] < 60_000
    assert exclusions.intervals(table) == []

    again = monitor(tiny)
    assert again.verdict == "data fault"
    assert again.action.startswith("Ada trusts the rows from ")
    page = newest_page("monitor-tiny")
    assert "a sale. So nothing is left out." in page
    assert "No training will learn" not in page
    assert journal.read("alarms").height == 1, "it is not reported again"
    assert exclusions.intervals(table) == []
    assert train(tiny).lineage.without == []

    trust(first, "Bob", "a tracker", end=first + timedelta(hours=1), trusted=False, model=tiny)
    assert [start for start, _ in exclusions.intervals(table)] == [verdict.start]


@pytest.mark.slow
def test_after_a_rollback_a_person_is_asked_until_the_hold_is_lifted(prepared, tiny, orders):
    prepared(two_releases)
    back = rollback(tiny, reason="Clicks fell.", who="an alert", automatic=True)
    assert back.hold == "version 2 was rolled back: Clicks fell."
    assert "On hold: version 2 was rolled back: Clicks fell." in newest_page("release-tiny")
    same = retrain(tiny, cooldown_days=0)
    assert (same.outcome, same.version, same.release) == ("refuse", 2, None)
    assert "version 2 was live before and was replaced" in same.reason

    ingest(orders(60, 65, threshold=120), tiny)
    asked = retrain(tiny)
    assert (asked.outcome, asked.version) == ("waiting for approval", 3)
    assert "The model is on hold: version 2 was rolled back: Clicks fell." in asked.reason
    assert approve("Ada", 3, go_live=False, model=tiny) is None
    with pytest.raises(PublishRefused, match="tiny is on hold: version 2 was rolled back"):
        publish(tiny, 3)
    assert experiment(tiny, 3).hold == back.hold, "a test is the way to see its clicks"

    lifted = lift("Ada", "It was a campaign.", tiny)
    assert (lifted.hold, lifted.who, lifted.champion, lifted.challenger) == ("", "Ada", 1, 3)
    assert lifted.reason == "Not on hold any more: It was a campaign."
    assert lift("Bob", "Once more.", tiny) == lifted
    ingest(orders(65, 70, threshold=120), tiny)
    assert retrain(tiny).outcome == "promote"
    champions = [release.champion for release in releases.history(tiny)]
    assert champions == [1, 2, 1, 1, 1, 4]


def test_who_approves_a_version_ends_the_hold(prepared, tiny, orders):
    prepared(two_releases)
    rollback(tiny, reason="Clicks fell.", who="an alert", automatic=True)
    ingest(orders(60, 65, threshold=120), tiny)
    assert retrain(tiny).version == 3
    assert approve("Ada", 3, comment="the clicks are fine", model=tiny).champion == 3
    log = releases.history(tiny)[-2:]
    assert [(release.who, release.champion, release.hold) for release in log] == [
        ("Ada", 1, ""),
        ("Ada: the clicks are fine", 3, ""),
    ]


def test_clicks_on_what_the_champion_showed_help_it_less(prepared, tiny, orders, tmp_path):
    prepared(one_release)
    ingest(orders(20, 60, threshold=55), tiny)
    version = train(tiny)
    model_type = spec.load(tiny)
    rows = lake.read(model_type.table, start=version.lineage.holdout)
    right = rows.filter((pl.col("price") > 50) == pl.col("returned")).head(200)
    land_clicks(tmp_path, tiny, right)
    decision = promote(tiny, version.number)
    assert decision.clicked == pytest.approx(200 / decision.groups)
    counted = decision.challenger - decision.champion
    assert decision.gain.mean != pytest.approx(counted, abs=1e-4)
    assert decision.gain.mean == pytest.approx(counted / (1 - 0.25 * decision.clicked), rel=0.2)
    page = newest_page("card-tiny")
    assert f"{decision.clicked:.1%} of the right answers were taken from an answer" in page


def test_the_card_says_how_much_was_learnt_from_clicks_on_answers(tiny, orders, tmp_path):
    ingest(orders(0, 20, threshold=50), tiny)
    rows = lake.read(spec.load(tiny).table)
    land_clicks(tmp_path, tiny, rows.filter(pl.col("order") % 4 == 0))
    version = train(tiny)
    assert version.lineage.clicked == pytest.approx(0.25, abs=0.01)
    promote(tiny, version.number)
    learnt = f"{version.lineage.clicked:.1%} of the newest right answers learnt from were taken"
    assert learnt in newest_page("card-tiny")


def land_clicks(folder: Path, model: str, rows: pl.DataFrame) -> None:
    """Orders whose answer, by version 1, was shown and clicked."""
    shown, clicked = [], []
    key = gateway_secret.key(settings(), PSEUDONYMS)
    for order, ts, returned in rows.select("order", "ts", "returned").iter_rows():
        about = {"request_id": f"r{order}", "ts": ts, "model": model, "version": 1}
        about |= {"variant": "champion"}
        item = json.dumps(returned)
        about_shown = {"user": pseudonym(str(order), key), "items": f"[{item}]", "latency_ms": 1.0}
        shown.append(about | about_shown)
        clicked.append(about | {"kind": "click", "item": item})
    for name, lines in (("exposures", shown), ("feedback", clicked)):
        path = folder / f"{name}.jsonl"
        path.write_text("\n".join(map(json.dumps, lines)))
        ingest(str(path), table=name)
