"""Runs that lose their process, people who end runs, and what Prefect hears too late."""

import time
from datetime import timedelta
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events import emit_event
from prefect.states import Cancelled, Cancelling, Completed, Crashed, Pending, Running

from flows.recover import recover
from tasks import recover as steps

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_harness")]
SHORT = timedelta(seconds=2)


@flow
def errand(number: int = 0) -> None:
    """A flow that is never run: what matters is what Prefect has heard of its runs."""


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds instead of minutes."""
    monkeypatch.setattr(steps, "SILENCE", SHORT)
    monkeypatch.setattr(steps, "PENDING", SHORT)
    monkeypatch.setattr(steps, "LISTENING_SECONDS", 1.5)


@pytest.fixture
def client():
    """A client of the test's server, on which no earlier run is left to look after."""
    with get_client(sync_client=True) as client:
        for run in steps.runs(client, {}):
            client.delete_flow_run(run.id)
        yield client


@pytest.fixture
def deployment(client: SyncPrefectClient) -> UUID:
    """The id of a deployment that runs once at a time."""
    return client.create_deployment(
        client.create_flow(errand),
        name="errand",
        tags=["kreislauf"],
        concurrency_limit=1,
        parameter_openapi_schema={},
        job_variables={"env": {steps.FREQUENCY: "1"}},
    )


def run_through(client: SyncPrefectClient, deployment: UUID, *states) -> UUID:
    """The id of a run that went through the states."""
    run = client.create_flow_run_from_deployment(deployment, parameters={"number": 7})
    for state in states:
        client.set_flow_run_state(run.id, state(), force=True)
    return run.id


def types(client: SyncPrefectClient) -> dict[UUID, str]:
    """The type of state of each run."""
    return {run.id: steps.present_state(run).type.value for run in steps.runs(client, {})}


def wait_for_silence(length: timedelta = SHORT) -> None:
    """Until what was heard so far is too long ago."""
    time.sleep(length.total_seconds() + 0.1)


def test_a_silent_run_is_taken_up_once_by_a_new_one_with_its_parameters(client, deployment):
    run = run_through(client, deployment, Pending, Running)
    wait_for_silence()
    done = recover()
    assert "has crashed. No heartbeat" in done[0]
    assert "takes up" in done[1]
    (successor,) = [r for r in steps.runs(client, {}) if r.id != run]
    assert successor.parameters == {"number": 7}
    assert types(client) == {run: "CRASHED", successor.id: "SCHEDULED"}
    assert recover() == []

    client.set_flow_run_state(successor.id, Pending())
    client.set_flow_run_state(successor.id, Running())
    client.set_flow_run_state(run, Crashed(message="The old process was late."), force=True)
    assert recover() == [], "what is heard of the old process does not concern the new one"
    assert types(client)[successor.id] == "RUNNING"


def test_a_run_that_crashes_each_time_is_taken_up_three_times(client, deployment):
    run_through(client, deployment, Pending, Running, Crashed)
    for _ in range(steps.ATTEMPTS):
        recover()
        (waiting,) = [id for id, state in types(client).items() if state == "SCHEDULED"]
        for state in (Pending, Running, Crashed):
            client.set_flow_run_state(waiting, state(), force=True)
    assert recover() == []
    assert list(types(client).values()) == ["CRASHED"] * (1 + steps.ATTEMPTS)


def test_a_run_that_speaks_while_it_is_listened_to_lives(client, deployment, monkeypatch):
    run = run_through(client, deployment, Pending, Running)
    # It takes Prefect five seconds to store an event.
    monkeypatch.setattr(steps, "SILENCE", 8 * SHORT)
    monkeypatch.setattr(steps, "LISTENING_SECONDS", 10)
    wait_for_silence(8 * SHORT)

    def speak_and_listen() -> None:
        emit_event(steps.HEARTBEAT, resource={"prefect.resource.id": f"prefect.flow-run.{run}"})
        listen()

    listen = steps.listen
    monkeypatch.setattr(steps, "listen", speak_and_listen)
    assert recover() == []
    assert types(client) == {run: "RUNNING"}


def test_a_run_that_speaks_rarely_is_not_called_crashed(client, deployment):
    rare = {"job_variables": {"env": {steps.FREQUENCY: "180"}}}
    client.request("PATCH", "/deployments/{id}", path_params={"id": deployment}, json=rare)
    run = run_through(client, deployment, Pending, Running)
    wait_for_silence()
    assert recover() == []
    assert types(client) == {run: "RUNNING"}


def test_a_run_that_never_began_is_taken_up(client, deployment):
    run = run_through(client, deployment, Pending)
    wait_for_silence()
    recover()
    assert sorted(types(client).values()) == ["CRASHED", "SCHEDULED"]
    assert types(client)[run] == "CRASHED"


@pytest.mark.parametrize(
    ("states", "end"),
    [
        ((Pending, Running, Completed, Crashed), "COMPLETED"),
        ((Pending, Running, Cancelling, Crashed), "CANCELLED"),
        ((Pending, Running, Cancelling, Cancelled, Crashed), "CANCELLED"),
        ((Pending, Running, Cancelling), "CANCELLED"),
    ],
)
def test_what_has_ended_stays_so_whatever_is_heard_later(client, deployment, states, end):
    run = run_through(client, deployment, *states)
    wait_for_silence()
    recover()
    assert types(client) == {run: end}


def test_a_run_that_a_person_started_again_may_crash(client, deployment):
    run = run_through(
        client, deployment, Pending, Running, Cancelling, Cancelled, Pending, Running, Crashed
    )
    recover()
    assert sorted(types(client).values()) == ["CRASHED", "SCHEDULED"]
    assert types(client)[run] == "CRASHED"


def test_what_a_person_wanted_then_is_not_repeated_and_what_an_alert_started_is(client):
    deployment = client.create_deployment(
        client.create_flow(errand),
        name="once",
        tags=["kreislauf", "once"],
        parameter_openapi_schema={},
    )
    run_through(client, deployment, Pending, Running, Crashed)
    assert recover() == []
    alarmed = client.create_flow_run_from_deployment(deployment, parameters={"automatic": True})
    client.set_flow_run_state(alarmed.id, Crashed(), force=True)
    assert len(recover()) == 1


def test_the_runs_of_a_paused_deployment_stay_as_they_are(client, deployment):
    run = run_through(client, deployment, Pending, Running, Crashed)
    client.pause_deployment(deployment)
    assert recover() == []
    assert types(client) == {run: "CRASHED"}
