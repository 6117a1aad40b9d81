"""Registries fill up, and people delete old versions: the loop goes on without them."""

import shutil

import pytest
from mlflow import MlflowClient

from flows.experiment import experiment
from flows.ingest import ingest
from flows.monitor import monitor
from flows.prune import prune
from flows.publish import publish
from flows.retrain import retrain
from flows.rollback import NothingToRollBackTo, rollback
from kreislauf import registry
from kreislauf.evaluation.gate import Decision
from kreislauf.release import releases
from kreislauf.settings import settings
from tests.conftest import aliases
from tests.flows.test_loop import two_releases

pytestmark = pytest.mark.usefixtures("prefect_harness", "mlflow_store", "triton")


def delete(model: str, number: int) -> None:
    """What a person does who tidies MLflow up."""
    MlflowClient(settings().mlflow_url).delete_model_version(model, str(number))


def test_the_loop_goes_on_when_the_previous_version_was_deleted(prepared, tiny, orders, triton):
    prepared(two_releases)
    assert releases.current(tiny).previous == 1
    delete(tiny, 1)
    assert publish(tiny, 2).champion == 2, "it is verified again"
    assert experiment(tiny).previous == 1, "Triton still has its file"
    with pytest.raises(NothingToRollBackTo, match="or those before were deleted"):
        rollback(tiny)
    assert aliases(tiny)["champion"] == 2

    # The disk of Triton is lost, too.
    shutil.rmtree(triton["repository"] / tiny / "1")
    ended = experiment(tiny)
    assert (ended.champion, ended.previous) == (2, None)
    ingest(orders(60, 140, threshold=20), tiny)
    third = retrain(tiny, cooldown_days=0)
    assert third.outcome == "promote"
    live = releases.current(tiny)
    assert (live.champion, live.previous) == (third.version, 2)
    assert aliases(tiny) == {"champion": third.version, "previous": 2}
    assert rollback(tiny).champion == 2


def test_a_rollback_goes_to_an_older_version_if_the_previous_one_was_deleted(
    prepared, tiny, orders
):
    prepared(two_releases)
    ingest(orders(60, 140, threshold=20), tiny)
    third = retrain(tiny, cooldown_days=0)
    assert third.outcome == "promote"
    delete(tiny, 2)
    back = rollback(tiny, reason="Clicks fell.")
    assert back.champion == 1
    assert rollback(tiny).champion == third.version, "a second one undoes the first"


def test_the_loop_goes_on_when_the_champion_was_deleted(prepared, tiny, orders, home):
    prepared(two_releases)
    delete(tiny, 2)
    shutil.rmtree(home / "cache")
    assert monitor(tiny) is None, "there is nothing to compare with"
    ingest(orders(60, 140, threshold=20), tiny)
    third = retrain(tiny, cooldown_days=0)
    assert third.outcome == "promote", third.reason
    assert registry.get(tiny, third.version).lineage.parent is None
    decision = Decision.model_validate_json(registry.get(tiny, third.version).decision)
    assert decision.champion_version == 2, "it is judged against the file that Triton serves"
    live = releases.current(tiny)
    assert (live.champion, live.previous) == (third.version, 2)
    assert monitor(tiny).version == third.version
    assert rollback(tiny).champion == 1, "nobody goes back to what was deleted"


def test_old_versions_are_pruned_with_their_files_and_what_is_needed_stays(
    prepared, tiny, orders, home
):
    prepared(two_releases)
    with pytest.raises(ValueError, match="at least one version"):
        prune(tiny, keep=0)
    assert prune(tiny, keep=1) == [], "the previous version can be brought back"
    ingest(orders(60, 140, threshold=20), tiny)
    third = retrain(tiny, cooldown_days=0)
    assert third.outcome == "promote"
    files = {path for path in (home / "mlflow").rglob("*") if path.is_file()}
    assert prune(tiny, keep=5) == []
    assert prune(tiny, keep=1) == [1]
    left = {path for path in files if path.exists()}
    assert sum(path.name == "model.onnx" for path in files - left) == 1
    assert [version.number for version in registry.versions(tiny)] == [3, 2]
    assert prune(tiny, keep=1) == []
    assert rollback(tiny).champion == 2
    assert retrain(tiny, cooldown_days=0).outcome in ("waiting", "refuse", "cooling down")
