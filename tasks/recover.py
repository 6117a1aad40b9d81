"""Which runs have lost their process, and what follows."""

import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.responses import SetStateStatus
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events.filters import (
    EventFilter,
    EventNameFilter,
    EventOccurredFilter,
    EventResourceFilter,
)
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.states import Cancelled, Crashed

TAG = "kreislauf"
"""Tag of every deployment in prefect.yaml but recover itself, and so of its runs."""
ONCE = "once"
"""Tag of deployments that do what a person wants now: nobody repeats that for them later. What an
alert started is taken up."""
HEARTBEAT = "prefect.flow-run.heartbeat"
FREQUENCY = "PREFECT_FLOWS_HEARTBEAT_FREQUENCY"
"""Variable with the seconds between two heartbeats; in prefect.yaml 30."""
SILENCE = timedelta(seconds=90)
"""Time without a heartbeat after which a run is suspect."""
LISTENING_SECONDS = 45
"""Time in which a suspect that lives is heard, even if the whole machine was asleep before."""
PENDING = timedelta(minutes=5)
"""Time in which a worker starts a run's process."""
CRASH_AGE = timedelta(days=1)
"""Age of the oldest crash after which a run is taken up."""
ATTEMPTS = 3
"""How often a run is taken up: one that kills its process would never end."""
ENDS = (StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED, StateType.CANCELLING)
BEGINNINGS = (StateType.SCHEDULED, StateType.PENDING)


def end_silent_runs() -> list[str]:
    """Call runs crashed, or cancelled, whose process is gone. Returns a sentence for each."""
    with get_client(sync_client=True) as client:
        suspects = {run.id for run in silent_runs(client)}
        if suspects:
            listen()
        sentences = [end(client, run) for run in silent_runs(client) if run.id in suspects]
        return [sentence for sentence in sentences if sentence]


def listen() -> None:
    """Wait for `LISTENING_SECONDS` in which the machine was awake."""
    while True:
        began = time.time()
        time.sleep(LISTENING_SECONDS)
        if time.time() - began < 2 * LISTENING_SECONDS:
            return


def silent_runs(client: SyncPrefectClient) -> list[FlowRun]:
    """Runs that should have been heard of by now."""
    now = datetime.now(UTC)
    silent = []
    for run in runs(client, {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}}):
        state = present_state(run)
        limit = SILENCE
        if state.is_pending():
            limit = PENDING
        elif not speaks(client, run):
            continue
        if now - state.timestamp > limit and not has_heartbeat(client, run.id, now - limit):
            silent.append(run)
    return silent


def speaks(client: SyncPrefectClient, run: FlowRun) -> bool:
    """Whether the run's deployment asks for a heartbeat while this flow listens."""
    assert run.deployment_id is not None
    try:
        variables = client.read_deployment(run.deployment_id).job_variables or {}
    except ObjectNotFound:
        return False
    seconds = variables.get("env", {}).get(FREQUENCY)
    return seconds is not None and float(seconds) < LISTENING_SECONDS


def runs(client: SyncPrefectClient, criteria: dict) -> list[FlowRun]:
    """Runs of Kreislauf's deployments that meet Prefect's `criteria`, newest first."""
    ours = {"tags": {"all_": [TAG]}, "deployment_id": {"is_null_": False}}
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter.model_validate(ours | criteria),
        sort=FlowRunSort.START_TIME_DESC,
    )


def present_state(run: FlowRun) -> State:
    """The state of a run that has one."""
    assert run.state is not None
    return run.state


def has_heartbeat(client: SyncPrefectClient, run: UUID, since: datetime) -> bool:
    """Whether the run's process has said since then that it lives."""
    heartbeats = EventFilter(
        occurred=EventOccurredFilter(since=since),
        event=EventNameFilter(name=[HEARTBEAT]),
        resource=EventResourceFilter(id=[f"prefect.flow-run.{run}"]),
    )
    return bool(client.read_events(heartbeats, limit=1).events)


def end(client: SyncPrefectClient, run: FlowRun) -> str:
    """Give a run without a process, and the flows that it had called, their end; empty if it has
    ended meanwhile."""
    state = present_state(run)
    if state.is_cancelling():
        change_state(client, run.id, Cancelled(message="Its process is gone."))
        return f"{run.name} is cancelled: its process is gone."
    why = f"No heartbeat for {SILENCE.seconds} seconds."
    if state.is_pending():
        why = f"It did not begin for {PENDING.seconds // 60} minutes after a worker had taken it."
    if not change_state(client, run.id, Crashed(message=why)):
        return ""
    end_called_flows(client, run.id)
    return f"{run.name} has crashed. {why}"


def change_state(client: SyncPrefectClient, run: UUID, state: State) -> bool:
    """Whether Prefect gave the run the state: not one that was deleted or has ended meanwhile."""
    try:
        return client.set_flow_run_state(run, state).status == SetStateStatus.ACCEPT
    except ObjectNotFound:
        return False


def end_called_flows(client: SyncPrefectClient, caller: UUID) -> None:
    """Call the flows crashed that a crashed run was in the middle of."""
    called = {"parent_flow_run_id": {"any_": [caller]}, "state": {"type": {"any_": ["RUNNING"]}}}
    for run in client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(called)):
        change_state(client, run.id, Crashed(message="The run that called it has crashed."))
        end_called_flows(client, run.id)


def crashed_runs(client: SyncPrefectClient) -> list[FlowRun]:
    """Runs that crashed of late."""
    since = datetime.now(UTC) - CRASH_AGE
    return runs(
        client,
        {"state": {"type": {"any_": ["CRASHED"]}}, "end_time": {"after_": since}},
    )


def restore_ended_runs() -> list[str]:
    """Give runs that had ended before they were called crashed their end back. Returns a sentence
    for each."""
    restored = []
    with get_client(sync_client=True) as client:
        for run in crashed_runs(client):
            before = end_of_attempt(client.read_flow_run_states(run.id))
            if before and change_state(client, run.id, before):
                restored.append(f"{run.name} was {before.name} before it was called crashed.")
    return restored


def end_of_attempt(history: list[State]) -> State | None:
    """How the newest attempt had ended before the last state of its `history`, oldest first; None
    if it had not."""
    before = None
    for state in history[:-1]:
        if state.type in BEGINNINGS:
            before = None
        elif state.type in ENDS:
            before = state
    if before is None:
        return None
    if before.is_cancelling():
        return Cancelled(message="A person cancelled it.")
    return before.fresh_copy()


def take_up_crashed_runs() -> list[str]:
    """Begin a run for each crashed one that has none yet. Returns a sentence for each."""
    with get_client(sync_client=True) as client:
        sentences = [take_up(client, run) for run in crashed_runs(client)]
    return [sentence for sentence in sentences if sentence]


def take_up(client: SyncPrefectClient, run: FlowRun) -> str:
    """Begin a run that does what a crashed one did not; empty if there is one, or must be none."""
    attempt = attempts(run) + 1
    key = successor_key(run)
    if ONCE in run.tags and not run.parameters.get("automatic"):
        return ""
    if attempt > ATTEMPTS or runs(client, {"idempotency_key": {"any_": [key]}}):
        return ""
    assert run.deployment_id is not None
    try:
        if client.read_deployment(run.deployment_id).paused:
            return ""
        again = client.create_flow_run_from_deployment(
            run.deployment_id,
            parameters=run.parameters,
            tags=[f"attempt-{attempt}"],
            idempotency_key=key,
            job_variables=run.job_variables,
        )
    except ObjectNotFound:
        return ""
    except (httpx.HTTPError, PrefectException) as error:
        return f"{run.name} has crashed and cannot be taken up. {error}"
    return f"{again.name} takes up {run.name}, which has crashed."


def successor_key(run: FlowRun) -> str:
    """The idempotency key of the run that takes this one up."""
    return f"takes-up-{run.id}"


def attempts(run: FlowRun) -> int:
    """How many crashed runs this one has taken up, one after another."""
    numbers = [tag.removeprefix("attempt-") for tag in run.tags if tag.startswith("attempt-")]
    return max(map(int, numbers), default=0)
