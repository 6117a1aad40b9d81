"""Whose deployments a Prefect server has, so that nobody overwrites those of another project.

A deploy notes in the Prefect variable `VARIABLE` which project it is of, who did it and where.
"""

import getpass
import secrets
import socket
from datetime import UTC, datetime
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.variables import Variable

from deployments import personal_changes
from deployments.environment import ROOT
from kreislauf.settings import settings

VARIABLE = "kreislauf_deployer"


class ForeignDeployments(RuntimeError):
    """The server has deployments of another project, or some that are not Kreislauf's."""


def project() -> str:
    """The name of this project: KREISLAUF_PROJECT, else one that the home got once."""
    given = settings()
    if given.project:
        return given.project
    path = given.home / "project"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(secrets.token_hex(4))
    return path.read_text()


def refuse_to_overwrite(client: SyncPrefectClient) -> None:
    """Raise ForeignDeployments unless the server's deployments are of this project, or of a
    Kreislauf that did not note whose they are."""
    server = client.api_url.netloc.decode()
    deployer: Any = Variable.get(VARIABLE)
    if deployer and deployer["project"] != project():
        theirs = deployer["project"]
        raise ForeignDeployments(
            f"The deployments on {server} are of the project {theirs}, not of {project()}: "
            f"{deployer['who']} deployed them from {deployer['checkout']} at {deployer['at']}. If "
            f"this is the same project, set KREISLAUF_PROJECT={theirs} here. If not, use a Prefect "
            f"server of your own; or, if they are not wanted any more, run `prefect variable "
            f"delete {VARIABLE}`. Then deploy again."
        )
    if deployer:
        return
    specs = personal_changes.specs()
    for name, deployment in personal_changes.deployments(client).items():
        if module(deployment.entrypoint or "") != specs[name]["entrypoint"]:
            raise ForeignDeployments(
                f"The deployment {name} on {server} is not Kreislauf's: it runs "
                f"{deployment.entrypoint}. Rename or delete it, or use a Prefect server of your "
                "own. Then deploy again."
            )


def module(entrypoint: str) -> str:
    """An entrypoint as a module, if it is a file as in earlier versions."""
    return entrypoint.replace(".py:", ".").replace("/", ".").replace(":", ".")


def note() -> None:
    """Write down whose the deployments are."""
    deployer = {
        "project": project(),
        "who": f"{getpass.getuser()} on {socket.gethostname()}",
        "checkout": str(ROOT),
        "at": datetime.now(UTC).isoformat(timespec="minutes"),
    }
    Variable.set(VARIABLE, deployer, overwrite=True)
