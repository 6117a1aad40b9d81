"""Every flow that changes something draws the lifecycle page anew, and none depends on it."""

from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import polars as pl
import pytest
from prefect.artifacts import Artifact
from prefect.client.orchestration import get_client

import flows.train
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
from kreislauf.evaluation.decision import DECISIONS
from kreislauf.lake import journal
from kreislauf.monitoring import tables
from kreislauf.release import lifecycle_page, releases
from tests.flows.test_loop import newest_page

pytestmark = pytest.mark.usefixtures("prefect_harness", "mlflow_store", "triton")


def drawn(model: str) -> str:
    """The page that was drawn since the last call."""
    path = Path(lifecycle_page.address(model))
    text = path.read_text(encoding="utf-8")
    path.unlink()
    return text


@pytest.mark.slow
def test_the_page_follows_a_model_from_its_first_training_on(tiny, orders, monkeypatch):
    fit = flows.train.fit
    seen = []

    def look_and_fit(*arguments):
        seen.append(lifecycle_page.read(tiny))
        return fit(*arguments)

    monkeypatch.setattr(flows.train, "fit", look_and_fit)
    ingest(orders(0, 20, threshold=50), tiny)
    retrain(tiny)
    assert b"No version is live yet, and nothing waits for a person." in seen[0]
    first = drawn(tiny)
    assert '<p class="lead">Version 1 is live since' in first
    artifact = newest_page("lifecycle-tiny")
    assert artifact.startswith("Version 1 is live since")
    assert lifecycle_page.address(tiny) in artifact

    ingest(orders(20, 60, threshold=120), tiny)
    monitor(tiny)
    assert "concept drift" in drawn(tiny)
    version = train(tiny).number
    drawn(tiny)
    promote(tiny, version)
    assert f"v{version} promote" in drawn(tiny)
    publish(tiny, version)
    assert f"Version {version} is live" in drawn(tiny)
    rollback(tiny, reason="Clicks fell.")
    page = drawn(tiny)
    assert "Version 1 is live" in page
    assert f"The model is on hold: version {version} was rolled back" in page
    experiment(tiny, challenger=version, share=0.25, who="Ada")
    assert "25.0%" in drawn(tiny)
    lift("Ada", "It was a campaign.", tiny)
    assert "on hold" not in drawn(tiny).replace("Not on hold any more", "")
    moment = datetime.fromtimestamp(1_700_000_000, UTC)
    trust(moment, "Ada", "A test.", end=moment, trusted=False, model=tiny)
    assert "No training learns from these stretches" in drawn(tiny)
    check_flow_runs(tiny)
    for key in ("card", "release", "ab-test", "monitor", "lifecycle"):
        artifact = Artifact.get(f"{key}-tiny")
        assert artifact.description, f"Prefect's list says what {key} is"


def check_flow_runs(model: str) -> None:
    """What is stored names Prefect's run that wrote it, by its id."""
    log = releases.history(model)
    flows_of_log = [flow_of(release.flow_run) for release in log]
    assert flows_of_log == ["publish", "publish", "publish", "experiment", "lift"]
    decisions = journal.read(DECISIONS, model=model)
    assert {flow_of(run) for run in decisions["flow_run"]} == {"promote"}
    assert decisions["flow_run"].n_unique() == decisions.height
    looks = journal.read(tables.WINDOWS, pl.col("verdict") != "calibration", model=model)
    (look,) = looks["flow_run"].unique()
    assert flow_of(look) == "monitor"
    assert set(journal.read(tables.ALARMS, model=model)["flow_run"]) == {look}


def flow_of(run: str) -> str:
    """Name of the flow of a flow run, as Prefect's server has it."""
    with get_client(sync_client=True) as client:
        return client.read_flow(client.read_flow_run(UUID(run)).flow_id).name


def test_a_question_is_on_the_page_until_a_person_says_no(tiny, orders):
    ingest(orders(0, 20, threshold=50), tiny)
    question = retrain(tiny, approval="manual").reason
    page = drawn(tiny)
    assert "something waits for a person" in page
    assert question.split(" ", 1)[0] in page.split("This waits for a person")[1]
    approve("Ada", 1, go_live=False, model=tiny)
    assert "nothing waits for a person" in drawn(tiny)


def test_a_page_that_cannot_be_written_stops_no_release_and_is_said(tiny, orders, caplog):
    folder = Path(lifecycle_page.address(tiny))
    folder.mkdir(parents=True)
    ingest(orders(0, 20, threshold=50), tiny)
    assert retrain(tiny).release == 1
    errors = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert any("The lifecycle page of tiny was not drawn anew" in error for error in errors)
    folder.rmdir()
    publish(tiny, 1)
    assert "Version 1 is live" in drawn(tiny), "the next flow draws what is true by then"
