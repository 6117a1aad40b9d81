"""What people change on Prefect's server outlasts `make deploy` and `make down; make up`."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import FlowRunFilter
from prefect.events.schemas.automations import Automation
from prefect.types import MAX_VARIABLE_VALUE_LENGTH

from deployments import personal_changes, stack
from tasks import recover as steps
from tests.conftest import ROOT
from tests.operations.conftest import start

SERVICES = ("postgres", "prefect")
OF_DEFAULT = {"model": "session_recommender"}


@pytest.fixture(scope="module")
def prefect_home(tmp_path_factory: pytest.TempPathFactory):
    """The home of a Prefect server."""
    home = tmp_path_factory.mktemp("people")
    start(home, SERVICES)
    yield home
    stack.down(home)


def deploy(home: Path, *words: str) -> list[str]:
    """What `make deploy` says in a new shell."""
    env = stack.client_env(home, start(home, SERVICES))
    del env["PREFECT_API_URL"]
    command = [sys.executable, "-m", "deployments.deploy", *words]
    done = subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def kept_fields(client: SyncPrefectClient, name: str) -> tuple[bool, dict, list[tuple[str, bool]]]:
    """Of a deployment: whether it is paused, its parameters, its schedules and whether they act."""
    deployment = client.read_deployment_by_name(f"{name.split('-')[0]}/{name}")
    schedules = [(s.schedule.cron, s.active) for s in deployment.schedules]
    return deployment.paused, deployment.parameters, schedules


def trigger_of(client: SyncPrefectClient, name: str) -> Automation:
    """The one trigger of a deployment of retrain."""
    deployment = client.read_deployment_by_name(f"retrain/{name}")
    (trigger,) = personal_changes.triggers_of(client, deployment.id)
    return trigger


@pytest.mark.system
def test_what_people_changed_stays_until_it_is_reset(prefect_home):
    assert deploy(prefect_home) == []
    with SyncPrefectClient(start(prefect_home, SERVICES)["prefect"]["api"]) as client:
        before = {
            name: kept_fields(client, name) for name in ("monitor", "retrain", "collect", "stream")
        }
        monitor = client.read_deployment_by_name("monitor/monitor")
        client.update_deployment_schedule(monitor.id, monitor.schedules[0].id, active=False)
        retrain = client.read_deployment_by_name("retrain/retrain")
        change = {"parameters": {"params": {"epochs": 2}}}
        client.request("PATCH", "/deployments/{id}", path_params={"id": retrain.id}, json=change)
        client.delete_deployment_schedule(retrain.id, retrain.schedules[0].id)
        monthly = {"schedule": {"cron": "0 4 1 * *", "timezone": "UTC"}}
        monthly["parameters"] = {"reason": "once a month"}
        client.create_deployment_schedules(
            retrain.id, [DeploymentScheduleCreate.model_validate(monthly)]
        )
        client.pause_deployment(client.read_deployment_by_name("collect/collect").id)
        client.resume_deployment(client.read_deployment_by_name("stream/stream").id)
        client.pause_automation(trigger_of(client, "retrain").id)
        ranker = client.read_deployment_by_name("retrain/retrain-search_ranker")
        client.update_deployment_schedule(ranker.id, ranker.schedules[0].id, active=False)

        stack.down(prefect_home)
        start(prefect_home, SERVICES)
        report = "\n".join(deploy(prefect_home))

        assert kept_fields(client, "monitor") == (False, OF_DEFAULT, [("0 * * * *", False)])
        assert kept_fields(client, "monitor-search_ranker")[2] == [("0 * * * *", True)]
        assert kept_fields(client, "retrain-search_ranker")[2] == [("0 3 * * 1", False)]
        assert kept_fields(client, "retrain-support_answers")[2] == [("0 3 * * 1", True)]
        assert kept_fields(client, "retrain") == (
            False,
            change["parameters"],
            [("0 4 1 * *", True)],
        )
        retrain = client.read_deployment_by_name("retrain/retrain")
        assert retrain.schedules[0].parameters == {"reason": "once a month"}
        assert kept_fields(client, "collect")[0]
        assert not kept_fields(client, "stream")[0]
        assert not trigger_of(client, "retrain").enabled
        assert trigger_of(client, "retrain-search_ranker").enabled
        for words in (
            "monitor: schedules is still",
            'retrain: parameters is still {"params": {"epochs": 2}}, as a person set it;',
            "retrain: retrain-on-drift-or-decay is still false",
            "retrain-search_ranker: schedules is still",
            "collect: paused is still true",
            "stream: paused is still false",
        ):
            assert words in report
        assert len(deploy(prefect_home)) == len(report.splitlines()), (
            "a further deploy keeps them, too"
        )

        assert deploy(prefect_home, "--reset") == []
        assert {name: kept_fields(client, name) for name in before} == before
        assert trigger_of(client, "retrain").enabled
        assert deploy(prefect_home) == []


@pytest.mark.system
def test_a_deploy_has_runs_looked_after_that_are_silent_and_that_never_began(prefect_home):
    begin = datetime.now(UTC)
    deploy(prefect_home)
    with SyncPrefectClient(start(prefect_home, SERVICES)["prefect"]["api"]) as client:
        recover = client.read_deployment_by_name("recover/recover")
        ours = FlowRunFilter.model_validate({"deployment_id": {"any_": [recover.id]}})
        runs = client.read_flow_runs(flow_run_filter=ours)
    asked_for = [run for run in runs if not run.auto_scheduled and run.created > begin]
    early, late = sorted(run.expected_start_time - run.created for run in asked_for)
    assert steps.SILENCE < early < steps.PENDING < late


def test_what_a_new_version_brings_is_not_taken_for_a_change():
    deployed = personal_changes.digests({("retrain", "paused"): False, ("retrain", "old"): True})
    present = {
        ("retrain", "paused"): False,
        ("retrain", "old"): False,
        ("retrain", "a new trigger"): None,
        ("a new deployment", "paused"): True,
    }
    assert personal_changes.differences(present, deployed) == {("retrain", "old"): False}


def test_the_variable_has_room_for_twice_as_many_deployments():
    specs = [*personal_changes.specs().values()]
    deployed = {
        (f"{spec['name']}{number}", field): spec.get(field, plain)
        for spec in specs
        for number in (1, 2)
        for field, plain in personal_changes.PLAIN.items()
    }
    deployed |= {
        (f"{spec['name']}{number}", trigger["name"]): True
        for spec in specs
        for number in (1, 2)
        for trigger in spec.get("triggers", [])
    }
    assert len(json.dumps(personal_changes.digests(deployed))) < MAX_VARIABLE_VALUE_LENGTH


@pytest.mark.parametrize("field", personal_changes.PLAIN)
def test_a_change_of_a_plain_value_and_one_back_to_it_are_noticed(field):
    plain = {("train", field): personal_changes.PLAIN[field]}
    chosen = {("train", field): "another"}
    for deployed, present, changed in (
        (plain, chosen, chosen),
        (chosen, plain, plain),
        (plain, plain, {}),
        (chosen, chosen, {}),
    ):
        digests = personal_changes.digests(deployed)
        assert personal_changes.differences(present, digests) == changed
    former = {"train": {field: personal_changes.digest(personal_changes.PLAIN[field])}}
    assert personal_changes.differences(plain, former) == {}, "an earlier version noted all"


def test_changes_of_a_deployment_that_was_given_another_model_are_for_that_models_own():
    specs = [*personal_changes.specs().values()]
    text = {"model": "session_recommender_text", "params": {"epochs": 2}}
    schedule = [{"schedule": {"cron": "0 3 * * 1"}, "active": False}]
    own = "retrain-session_recommender_text"
    changes = {
        ("retrain", "parameters"): text,
        ("retrain", "schedules"): schedule,
        ("monitor", "paused"): True,
        ("train", "parameters"): {"model": "a folder of mine"},
        ("tune", "parameters"): {"params": {"epochs": 3}},
        ("ingest", "parameters"): {"model": "search_ranker"},
    }
    assert personal_changes.of_models(changes, specs) == {
        (own, "parameters"): text,
        (own, "schedules"): schedule,
        ("monitor", "paused"): True,
        ("train", "parameters"): {"model": "a folder of mine"},
        ("tune", "parameters"): {"params": {"epochs": 3}},
        ("ingest", "parameters"): {"model": "search_ranker"},
    }
