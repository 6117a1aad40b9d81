"""Two publishers at once: one wins, and registry and Triton agree with the release log
afterwards."""

import numpy as np
import pytest

from flows.ingest import ingest
from flows.promote import promote
from flows.train import train
from kreislauf.release import releases
from serving import live
from tests.conftest import aliases
from tests.flows.child_process import receive, send, started
from tests.flows.test_loop import one_release

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("prefect_harness", "mlflow_store", "triton"),
]


@pytest.mark.parametrize("rounds", [4, pytest.param(200, marks=pytest.mark.long)])
def test_of_two_publishers_exactly_one_wins(
    prepared, rounds, tiny, orders, other_models, tmp_path, monkeypatch
):
    prepared(one_release)
    ingest(orders(20, 60, threshold=120), tiny)
    rivals = [train(tiny).number, train(tiny, {"steps": 30}).number]
    assert [promote(tiny, number).outcome for number in rivals] == ["promote", "promote"]
    with (
        started("publisher", other_models.parent) as first,
        started("publisher", other_models.parent) as second,
    ):
        for number in range(rounds):
            log = str(tmp_path / "logs" / str(number))
            monkeypatch.setenv("KREISLAUF_RELEASES", log)
            releases.append(tiny, 1, "the first", "a test", after=None)
            for process, version in zip((first, second), rivals, strict=True):
                send(process, {"model": tiny, "version": version, "releases": log})
            outcomes = receive(first), receive(second)
            assert outcomes.count("published") == 1, outcomes
            winner = rivals[outcomes.index("published")]
            assert [release.champion for release in releases.history(tiny)] == [1, winner]
            assert aliases(tiny) == {"champion": winner, "previous": 1}
            assert live.answer(tiny, {"price": np.array([[60.0]], np.float32)})[0] == winner
