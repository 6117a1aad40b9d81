"""What a person or an alert decided outlasts the next runs."""

from datetime import UTC, datetime, timedelta

import pytest
from prefect.exceptions import ParameterTypeError

from flows.ingest import ingest
from flows.monitor import monitor
from flows.retrain import retrain
from flows.train import train
from flows.trust import trust
from kreislauf.lake import exclusions, journal
from models import spec
from tests.flows.test_loop import newest_page

pytestmark = pytest.mark.usefixtures("prefect_harness", "mlflow_store", "triton")


def test_what_a_person_trusts_is_learnt_from_whatever_the_next_runs_see(tiny, orders):
    ingest(orders(0, 60, threshold=100), tiny)
    retrain(tiny)
    ingest(orders(60, 65, threshold=5), tiny)
    fault = monitor(tiny)
    assert fault.verdict == "data fault"
    table = spec.load(tiny).table.name
    assert exclusions.intervals(table) == [(fault.start, fault.end)]

    first, last = [datetime.fromtimestamp(ms / 1000, UTC) for ms in (fault.start, fault.end)]
    with pytest.raises(ParameterTypeError, match="at least 1 character"):
        trust(first, who=" ", reason="a sale", model=tiny)
    with pytest.raises(ValueError, match="is before start"):
        trust(last, who="Ada", reason="a sale", end=first, model=tiny)
    verdict = trust(first.replace(tzinfo=None), who="Ada", reason="a sale", end=last, model=tiny)
    assert verdict.start % 60_000 == 0
    assert verdict.end - fault.end < 60_000
    assert exclusions.intervals(table) == []

    again = monitor(tiny)
    assert (again.verdict, again.fault) == ("data fault", fault.fault)
    assert again.action.startswith("Ada trusts the rows from ")
    page = newest_page("monitor-tiny")
    assert "a sale. So nothing is left out." in page
    assert "No training will learn" not in page
    assert journal.read("alarms").height == 1, "it is not reported again"
    assert exclusions.intervals(table) == []
    assert train(tiny).lineage.without == []

    trust(first, "Bob", "a tracker", end=first + timedelta(hours=1), trusted=False, model=tiny)
    assert [start for start, _ in exclusions.intervals(table)] == [verdict.start]
