"""Put prefect.yaml and automations.yaml in place; a second time changes nothing.

`python -m deployments.deploy`, or `make deploy`. The server is the one of PREFECT_API_URL, else the
one that `make up` recorded.
"""

import os
import subprocess
import sys
from pathlib import Path

import yaml

from deployments import processes
from deployments.stack import ROOT, WORK_POOL, client_env
from kreislauf.settings import settings

AUTOMATIONS = ROOT / "deployments" / "automations.yaml"


def deploy() -> None:
    """Create or update the work pool, all automations and all deployments.

    Raises RuntimeError with Prefect's words.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate

    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=WORK_POOL, type="process"), overwrite=True)
        put_automations(client)
    done = subprocess.run(
        [Path(sys.executable).parent / "prefect", "--no-prompt", "deploy", "--all"],
        cwd=ROOT,
        env={**os.environ, "KREISLAUF_ROOT": str(ROOT), "KREISLAUF_PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"`prefect deploy --all` failed:\n{done.stdout}{done.stderr}")


def put_automations(client) -> None:
    """Create each automation of automations.yaml, or update the one of the same name."""
    from prefect.events.schemas.automations import AutomationCore

    for spec in yaml.safe_load(AUTOMATIONS.read_text())["automations"]:
        automation = AutomationCore.model_validate(spec)
        existing = client.read_automations_by_name(automation.name)
        if existing:
            client.update_automation(existing[0].id, automation)
        else:
            client.create_automation(automation)


def main() -> None:
    """Deploy to the server of the environment, or to the recorded one."""
    home = settings().home
    running = processes.read(home)
    if "PREFECT_API_URL" not in os.environ:
        if "prefect" not in running:
            sys.exit("No Prefect server: set PREFECT_API_URL, or start a local one with `make up`.")
        os.environ.update(client_env(home, running))
    deploy()


if __name__ == "__main__":
    main()
