"""A deployment's slot outlives a restart of Prefect's server, and an unused one becomes free."""

import asyncio
import signal
import time
from pathlib import Path
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import PrefectClient
from prefect.states import Pending, Running

from deployments import processes, stack

pytestmark = pytest.mark.system
LEASE_SECONDS = 30
"""Prefect's shortest lease of a slot."""


@flow
def errand() -> None:
    """A flow that is never run: what matters is who holds its slot."""


async def deployed(client: PrefectClient) -> UUID:
    """The id of a deployment that runs once at a time."""
    return await client.create_deployment(
        await client.create_flow(errand),
        name="errand",
        concurrency_limit=1,
    )


async def begin(client: PrefectClient, deployment: UUID, states: tuple) -> tuple[UUID, list[str]]:
    """A new run that was asked for these states, and the types of state that it got."""
    run = await client.create_flow_run_from_deployment(deployment)
    given = [await client.set_flow_run_state(run.id, state()) for state in states]
    return run.id, [each.state.type.value for each in given]


def killed_and_started(home: Path, running: dict) -> str:
    """The address of Prefect after its server was killed and `up` was called."""
    server = processes.find(running["prefect"])
    assert server
    for process in [*server.children(recursive=True), server]:
        process.send_signal(signal.SIGKILL)
    server.wait(10)
    return stack.up(home, ("postgres", "prefect"))["prefect"]["api"]


@pytest.fixture
def running(home: Path, monkeypatch: pytest.MonkeyPatch):
    """Postgres and Prefect with short leases."""
    monkeypatch.setitem(
        stack.SERVER_SETTINGS,
        "PREFECT_SERVER_CONCURRENCY_INITIAL_DEPLOYMENT_LEASE_DURATION",
        str(LEASE_SECONDS),
    )
    yield stack.up(home, ("postgres", "prefect"))
    stack.down(home)


def test_a_run_that_never_began_frees_its_slot_after_the_server_was_killed(home, running):
    async def before() -> UUID:
        async with PrefectClient(running["prefect"]["api"]) as client:
            deployment = await deployed(client)
            _, first = await begin(client, deployment, (Pending,))
            _, second = await begin(client, deployment, (Pending,))
            assert (first, second) == (["PENDING"], ["SCHEDULED"])
            return deployment

    async def after(api: str, deployment: UUID) -> float:
        async with PrefectClient(api) as client:
            began = time.monotonic()
            while time.monotonic() < began + 4 * LEASE_SECONDS:
                _, states = await begin(client, deployment, (Pending,))
                if states == ["PENDING"]:
                    return time.monotonic() - began
                await asyncio.sleep(2)
            return float("inf")

    deployment = asyncio.run(before())
    api = killed_and_started(home, running)
    assert api == running["prefect"]["api"], "clients keep the address"
    assert asyncio.run(after(api, deployment)) < 4 * LEASE_SECONDS


def test_a_run_that_is_well_keeps_its_slot_when_the_server_was_killed(home, running):
    async def before() -> UUID:
        async with PrefectClient(running["prefect"]["api"]) as client:
            run, states = await begin(client, await deployed(client), (Pending, Running))
            assert states == ["PENDING", "RUNNING"]
            details = (await client.read_flow_run(run)).state.state_details
            return details.deployment_concurrency_lease_id

    async def after(api: str, lease: UUID) -> None:
        async with PrefectClient(api) as client:
            await client.renew_concurrency_lease(lease, 60)

    lease = asyncio.run(before())
    asyncio.run(after(killed_and_started(home, running), lease))
