"""A rollback is for emergencies: it needs no MLflow."""

import shutil

import pytest

from flows.publish import publish
from flows.retrain import retrain
from flows.rollback import rollback
from kreislauf import registry
from kreislauf.registry import RegistryError
from kreislauf.release import releases
from tests.conftest import aliases
from tests.flows.test_loop import answers, two_releases

pytestmark = pytest.mark.usefixtures("prefect_harness", "mlflow_store", "triton")


@pytest.mark.parametrize("named", [None, 1])
def test_a_rollback_needs_no_mlflow_and_the_aliases_follow(
    prepared, tiny, orders, home, monkeypatch, named
):
    prepared(two_releases)
    shutil.rmtree(home / "cache")
    with monkeypatch.context() as patch:
        patch.setenv("KREISLAUF_MLFLOW_URL", "http://127.0.0.1:1")
        back = rollback(tiny, version=named, reason="Clicks fell.")
        assert (back.champion, back.previous) == (1, 2)
        assert answers(tiny, {"price": [[60.0]]})[0] == 1
        assert rollback(tiny, version=1) == back, "a second run changes nothing"
        with pytest.raises(RegistryError, match="does not answer"):
            publish(tiny)
    assert releases.current(tiny) == back
    assert aliases(tiny)["champion"] == 2
    assert retrain(tiny).outcome == "cooling down"
    assert aliases(tiny) == {"champion": 1, "previous": 2}
    assert registry.get(tiny, 1).number == 1
