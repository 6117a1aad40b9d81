"""Put prefect.yaml in place; a second time changes nothing.

`python -m deployments.deploy`, or `make deploy`. The server is the one of PREFECT_API_URL, else the
one that `make up` recorded.
"""

import argparse
import os
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from deployments import processes, triggers
from deployments.environment import ROOT, prefect_api_url, python_path
from deployments.stack import client_env
from deployments.worker import WORK_POOL
from kreislauf.settings import named_prefect_api, settings

FORMER_AUTOMATIONS = ("kreislauf-crash-silent-runs", "kreislauf-resume-crashed-runs")
"""Of earlier versions; the flow recover does better what they did."""
RECOVERY_DELAYS = (timedelta(minutes=2), timedelta(minutes=5, seconds=30))
"""Times after which a process that ended just before has been silent for long enough, and after
which a run that never began has had enough time."""


def deploy(reset: bool = False) -> list[str]:
    """Create or update the work pool and all deployments; then look after runs that lost their
    process or never began, because a trigger that is put in place anew forgets what it waited for.

    What people changed on the server since the last deploy stays, unless `reset`. Returns a
    sentence for each such thing, and for each monitor that nobody hears. Raises TriggerError or
    ForeignDeployments, before anything is changed, and RuntimeError with Prefect's words.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.states import Scheduled

    # Imported with Prefect, which reads its address when it is imported.
    from deployments import copies, deployer, personal_changes

    specs = list(personal_changes.specs().values())
    triggers.refuse_to_start_twice(specs)
    with get_client(sync_client=True) as client:
        deployer.refuse_to_overwrite(client)
        copies.refuse(client)
        deployer.note()
        with suppress(ObjectAlreadyExists):  # Then it is as people want it.
            client.create_work_pool(WorkPoolCreate(name=WORK_POOL, type="process"))
        delete_former_automations(client)
        changes = {} if reset else personal_changes.changes(client)
        personal_changes.remember(changes)
    done = subprocess.run(
        [Path(sys.executable).parent / "prefect", "--no-prompt", "deploy", "--all"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": python_path()},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"`prefect deploy --all` failed:\n{done.stdout}{done.stderr}")
    with get_client(sync_client=True) as client:
        deployed = personal_changes.values(client)
        kept = personal_changes.keep(client, changes, deployed)
        personal_changes.note(deployed)
        recover = client.read_deployment_by_name("recover/recover")
        for delay in RECOVERY_DELAYS:
            due = datetime.now(UTC) + delay
            client.create_flow_run_from_deployment(recover.id, state=Scheduled(scheduled_time=due))
    return [*kept, *triggers.unheard_monitors(specs)]


def delete_former_automations(client) -> None:
    """Delete what an earlier version has put in place."""
    for name in FORMER_AUTOMATIONS:
        for automation in client.read_automations_by_name(name):
            client.delete_automation(automation.id)


def main() -> None:
    """Deploy to the server that is named, or to the recorded one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reset", action="store_true", help="undo what people changed")
    reset = parser.parse_args().reset
    if not named_prefect_api():
        prefect_api_url()
        home = settings().home
        os.environ.update(client_env(home, processes.read(home)))
    try:
        sentences = deploy(reset)
    except (RuntimeError, triggers.TriggerError) as error:
        sys.exit(str(error))
    for sentence in sentences:
        print(sentence)


if __name__ == "__main__":
    main()
