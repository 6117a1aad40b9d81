"""Two projects, or two models, on one Prefect server: neither is overwritten nor started twice."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelled, Pending

from deployments import stack, triggers
from models import spec
from tests.conftest import ROOT
from tests.operations.conftest import Checkout, start
from tests.waiting import until

SPECS = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]


def copied_retrain() -> dict:
    """The deployment retrain as somebody copies it for another model, without its triggers."""
    retrain = next(spec for spec in SPECS if spec["name"] == "retrain")
    return {**retrain, "name": "retrain-tiny", "parameters": {"model": "tiny"}}


def for_tiny() -> dict:
    """The copied deployment, whose trigger names its model."""
    (trigger,) = copied_retrain()["triggers"]
    own = {**trigger, "match": {"prefect.resource.id": "kreislauf.model.tiny"}}
    return {**copied_retrain(), "triggers": [own]}


def test_the_shipped_triggers_start_each_flow_once():
    triggers.refuse_to_start_twice(SPECS)
    assert triggers.unheard_monitors(SPECS) == []
    triggers.refuse_to_start_twice([*SPECS, for_tiny()])


def copied_for_ranker(flow: str) -> dict:
    """A deployment as somebody copied it for a model that had none of its own then."""
    spec = next(spec for spec in SPECS if spec["name"] == f"{flow}-search_ranker")
    return {**spec, "name": f"{flow}-ranker"}


def test_a_copy_for_a_model_that_has_deployments_of_its_own_is_refused():
    with pytest.raises(triggers.TriggerError) as refused:
        triggers.refuse_to_start_twice([*SPECS, copied_for_ranker("retrain")])
    assert "retrain-search_ranker, for kreislauf.model.search_ranker, and by" in str(refused.value)
    assert "for the same model, take one of the two out." in str(refused.value)
    with pytest.raises(triggers.TriggerError) as refused:
        triggers.refuse_to_start_twice([*SPECS, copied_for_ranker("monitor")])
    assert (
        "The schedules of monitor-search_ranker and monitor-ranker would both start "
        "flows.monitor.monitor for search_ranker" in str(refused.value)
    )
    daily = {"model": "search_ranker", "window_days": 1}
    triggers.refuse_to_start_twice([*SPECS, {**copied_for_ranker("monitor"), "parameters": daily}])
    former = {**copied_for_ranker("monitor"), "parameters": {}}
    with pytest.raises(triggers.TriggerError, match="schedules of monitor and monitor-ranker"):
        triggers.refuse_to_start_twice([*SPECS, former])


def test_a_copy_with_the_same_triggers_is_refused():
    with pytest.raises(triggers.TriggerError, match=r"start flows\.retrain\.retrain twice: by the"):
        triggers.refuse_to_start_twice([*SPECS, copied_retrain()])
    rollback = next(spec for spec in SPECS if spec["name"] == "rollback")
    (trigger,) = rollback["triggers"]
    own = {**trigger, "match": {"prefect.resource.id": "kreislauf.model.tiny"}}
    with pytest.raises(triggers.TriggerError, match=r"for kreislauf\.model\.\*, and by rollback-"):
        triggers.refuse_to_start_twice([*SPECS, {**rollback, "name": "copy", "triggers": [own]}])


def test_a_model_that_is_watched_and_never_retrained_is_named():
    monitor = next(spec for spec in SPECS if spec["name"] == "monitor")
    watched = [*SPECS, {**monitor, "name": "monitor-tiny", "parameters": {"model": "tiny"}}]
    (sentence,) = triggers.unheard_monitors(watched)
    assert sentence.startswith("The monitor's events of tiny start no retraining")
    assert triggers.unheard_monitors([*watched, for_tiny()]) == []


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prefect server."""
    home = tmp_path_factory.mktemp("server")
    try:
        yield start(home, ("postgres", "prefect"))["prefect"]["api"]
    finally:
        stack.down(home)


def checkout(folder: Path, *further: dict) -> Checkout:
    """A checkout whose prefect.yaml has further deployments."""
    copy = Checkout.copied_to(folder)
    file = copy.folder / "prefect.yaml"
    content = yaml.safe_load(file.read_text())
    content["deployments"] += further
    file.write_text(yaml.safe_dump(content))
    return copy


def emit(api: str, model: str) -> None:
    """Tell Prefect's server that the model's data drifted."""
    event = {
        "id": str(uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": "kreislauf.drift.detected",
        "resource": {"prefect.resource.id": f"kreislauf.model.{model}"},
        "payload": {"model": model, "reason": "Drift: a test."},
    }
    httpx.post(f"{api}/events", json=[event], timeout=60).raise_for_status()


def retrainings(api: str) -> list[tuple[str, str]]:
    """Deployment and model of each retraining that an event started."""
    with SyncPrefectClient(api) as client:
        names = {d.id: d.name for d in client.read_deployments() if "retrain" in d.name}
        runs = [run for run in client.read_flow_runs() if not run.auto_scheduled]
        return [
            (names[run.deployment_id], run.parameters["model"])
            for run in runs
            if run.deployment_id in names
        ]


@pytest.mark.system
def test_an_event_of_one_model_starts_one_of_two_deployments(api, tmp_path):
    copy = checkout(tmp_path / "copied", copied_retrain())
    done = copy.run("deployments.deploy", api=api)
    assert done.returncode == 1
    assert "would start flows.retrain.retrain twice" in done.stderr.splitlines()[-1]

    mine = checkout(tmp_path / "mine", for_tiny())
    done = mine.run("deployments.deploy", api=api, KREISLAUF_PROJECT="shop")
    assert done.returncode == 0, done.stderr
    emit(api, "tiny")
    until(lambda: retrainings(api), 120, "an event starts a retraining")
    emit(api, "session_recommender")
    emit(api, "search_ranker")
    until(lambda: len(retrainings(api)) > 2, 120, "the other events do, too")
    time.sleep(10)
    assert sorted(retrainings(api)) == [
        ("retrain", "session_recommender"),
        ("retrain-search_ranker", "search_ranker"),
        ("retrain-tiny", "tiny"),
    ]

    with SyncPrefectClient(api) as client:
        own = client.read_deployment_by_name("retrain/retrain-tiny")
        (trigger,) = client.read_resource_related_automations(f"prefect.deployment.{own.id}")
        client.pause_automation(trigger.id)
        done = mine.run("deployments.deploy", api=api, KREISLAUF_PROJECT="shop")
        assert done.stdout.splitlines() == [
            "retrain-tiny: retrain-on-drift-or-decay is still false, as a person set it; "
            "prefect.yaml has true, which RESET=1 puts in place."
        ]
        acts = [a.enabled for a in client.read_automations_by_name("retrain-on-drift-or-decay")]
        assert sorted(acts) == [False, *[True] * len(spec.names())]


def begin(client: SyncPrefectClient, name: str) -> tuple[UUID, str]:
    """A run of a deployment of retrain that a worker has asked to begin, and its state."""
    deployment = client.read_deployment_by_name(f"retrain/{name}")
    run = client.create_flow_run_from_deployment(deployment.id)
    client.set_flow_run_state(run.id, Pending())
    return run.id, state_of(client, run.id)


def state_of(client: SyncPrefectClient, run: UUID) -> str:
    """The name of a run's state."""
    state = client.read_flow_run(run).state
    assert state
    return state.name


@pytest.mark.system
def test_two_models_retrain_at_once_and_one_model_once_at_a_time(api, tmp_path):
    mine = checkout(tmp_path / "mine")
    done = mine.run("deployments.deploy", api=api, KREISLAUF_PROJECT="shop")
    assert done.returncode == 0, done.stderr
    names = ["retrain", *(f"retrain-{name}" for name in spec.names() if name != spec.DEFAULT)]
    with SyncPrefectClient(api) as client:
        runs = [begin(client, name) for name in names]
        assert [state for _, state in runs] == ["Pending"] * 4
        again = [begin(client, name) for name in names]
        assert [state for _, state in again] == ["AwaitingConcurrencySlot"] * 4
        for run, _ in [*runs, *again]:
            client.set_flow_run_state(run, Cancelled(), force=True)

        for name in names:
            own = client.read_deployment_by_name(f"retrain/{name}")
            weekly = FlowRunFilter.model_validate({"deployment_id": {"any_": [own.id]}})
            planned = partial(scheduled, client, weekly)
            until(planned, 120, "Prefect has planned the weekly run")
            model = name.removeprefix("retrain-").replace("retrain", spec.DEFAULT)
            assert planned()[0].parameters == {"model": model, "reason": "weekly schedule"}


def scheduled(client: SyncPrefectClient, wanted: FlowRunFilter) -> list[FlowRun]:
    """The runs that a schedule has made."""
    return [run for run in client.read_flow_runs(flow_run_filter=wanted) if run.auto_scheduled]


@pytest.mark.system
def test_a_copy_that_was_left_on_the_server_is_named_until_it_is_paused(api, tmp_path):
    mine = checkout(tmp_path / "mine")
    weekly = {"schedule": {"cron": "0 4 * * 1", "timezone": "UTC"}}
    with SyncPrefectClient(api) as client:
        left = client.create_deployment(
            client.create_flow_from_name("retrain"),
            "retrain-ranker",
            entrypoint="flows.retrain.retrain",
            parameters={"model": "search_ranker"},
            schedules=[DeploymentScheduleCreate.model_validate(weekly)],
        )
        done = mine.run("deployments.deploy", api=api, KREISLAUF_PROJECT="shop")
        assert done.returncode == 1
        assert done.stderr.splitlines() == [
            "retrain/retrain-ranker on the server is not in prefect.yaml, and starts by itself for "
            "search_ranker. So does retrain/retrain-search_ranker, which is in prefect.yaml. Run "
            "`prefect deployment delete retrain/retrain-ranker`, or pause it. Then deploy again."
        ]
        client.pause_deployment(left)
        done = mine.run("deployments.deploy", api=api, KREISLAUF_PROJECT="shop")
        assert done.returncode == 0, done.stderr
        client.delete_deployment(left)


@pytest.mark.system
def test_another_project_is_refused_and_another_checkout_of_the_same_is_not(api, tmp_path):
    anna = checkout(tmp_path / "anna")
    done = anna.run("deployments.deploy", api=api, KREISLAUF_PROJECT="shop")
    assert done.returncode == 0, done.stderr
    ben = checkout(tmp_path / "ben")
    with SyncPrefectClient(api) as client:
        before = client.read_deployment_by_name("ingest/ingest").updated
        done = ben.run("deployments.deploy", api=api)
        assert done.returncode == 1
        (sentence,) = done.stderr.splitlines()
        assert (
            f"are of the project shop, not of {(ben.folder / '.kreislauf/project').read_text()}"
            in sentence
        )
        assert f"deployed them from {anna.folder} at 20" in sentence
        assert "set KREISLAUF_PROJECT=shop here" in sentence
        assert client.read_deployment_by_name("ingest/ingest").updated == before

        done = ben.run("deployments.deploy", api=api, KREISLAUF_PROJECT="shop")
        assert done.returncode == 0, done.stderr
        client.delete_variable_by_name("kreislauf_deployer")
        done = ben.run("deployments.deploy", api=api)
        assert done.returncode == 0, done.stderr
        done = anna.run("deployments.deploy", api=api, KREISLAUF_PROJECT="shop")
        assert f"deployed them from {ben.folder}" in done.stderr


@pytest.mark.system
def test_what_is_not_kreislaufs_is_not_overwritten(api, tmp_path):
    mine = checkout(tmp_path / "mine")
    with SyncPrefectClient(api) as client:
        flow = client.create_flow_from_name("ingest")
        client.create_deployment(flow, "ingest", entrypoint="etl/shop.py:ingest")
        if client.read_variable_by_name("kreislauf_deployer"):
            client.delete_variable_by_name("kreislauf_deployer")
    done = mine.run("deployments.deploy", api=api)
    assert done.returncode == 1
    assert "The deployment ingest/ingest on" in done.stderr
    assert "is not Kreislauf's: it runs etl/shop.py:ingest" in done.stderr
