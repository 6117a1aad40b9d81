"""How long until every event of a burst has its flow run, on SQLite and on Postgres?

`python -m benchmarks.burst` starts both servers, each with a worker that polls. It emits BURSTS
times EVENTS events to an automation without debounce. The last line is JSON: seconds of the slowest
burst by database, and their ratio.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from deployments import processes, stack, worker

BURSTS = 3
EVENTS = 10
CLIENT = f"""
import time
from datetime import timedelta
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.events import emit_event
from prefect.events.actions import RunDeployment
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

with get_client(sync_client=True) as client:
    pool = WorkPoolCreate(name="{worker.WORK_POOL}", type="process")
    client.create_work_pool(pool, overwrite=True)
    flow = client.create_flow_from_name("burst")
    deployment = client.create_deployment(
        flow, "burst", work_pool_name="{worker.WORK_POOL}", entrypoint="none:none"
    )
    later = timedelta(hours=1)
    action = RunDeployment(source="selected", deployment_id=deployment, schedule_after=later)
    trigger = EventTrigger(
        expect={{"burst"}}, posture=Posture.Reactive, threshold=1, within=timedelta(0)
    )
    client.create_automation(AutomationCore(name="burst", trigger=trigger, actions=[action]))
    time.sleep(5)
    for burst in range(1, {BURSTS} + 1):
        began = time.monotonic()
        for _ in range({EVENTS}):
            emit_event("burst", {{"prefect.resource.id": "benchmark"}})
        while (runs := len(client.read_flow_runs(limit=200))) < burst * {EVENTS}:
            if time.monotonic() - began > 180:
                raise TimeoutError(f"only {{runs}} runs after 180 s")
            time.sleep(0.1)
        print(time.monotonic() - began, flush=True)
"""


def measure(services: tuple[str, ...]) -> list[float]:
    """Seconds from the first event to the last run, for each burst."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        try:
            running = stack.up(home, services)
            running["worker"] = stack.start_worker(home, running)
            processes.write(home, running)
            command = [sys.executable, "-W", "ignore", "-c", CLIENT]
            env = stack.client_env(home, running) | {"PREFECT_LOGGING_LEVEL": "ERROR"}
            done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
            return [float(line) for line in done.stdout.split()]
        finally:
            stack.down(home)


def main() -> None:
    """Measure both databases, and print the result."""
    seconds = {"sqlite": measure(("prefect",)), "postgres": measure(("postgres", "prefect"))}
    for database, bursts in seconds.items():
        print(database, " ".join(f"{s:.1f} s" for s in bursts))
    slowest = {f"{database}_seconds": round(max(bursts), 2) for database, bursts in seconds.items()}
    ratio = round(slowest["sqlite_seconds"] / slowest["postgres_seconds"], 2)
    print(
        json.dumps({**slowest, "sqlite_over_postgres": ratio, "events": EVENTS, "bursts": BURSTS})
    )


if __name__ == "__main__":
    main()
