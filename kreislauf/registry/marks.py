"""Notes on a version: the gate's decision, tags, and aliases that mirror the release log."""

from pydantic import BaseModel

from kreislauf.registry import runs
from kreislauf.registry.versions import Version, get, lookup

ALIASES = ("champion", "challenger", "previous")


def call_challenger(version: Version) -> None:
    """Give the version the alias `challenger`."""
    runs.client().set_registered_model_alias(version.model, "challenger", str(version.number))


def record_decision(version: Version, decision: BaseModel) -> Version:
    """Store the gate's decision on the version."""
    client = runs.client()
    number = str(version.number)
    outcome = decision.model_dump()["outcome"]
    client.set_model_version_tag(version.model, number, "decision", decision.model_dump_json())
    client.set_model_version_tag(version.model, number, "outcome", outcome)
    return get(version.model, version.number)


def close(version: Version) -> None:
    """Mark that nothing is left to do with the version."""
    runs.client().set_model_version_tag(version.model, str(version.number), "closed", "true")


def mirror(model: str, champion: int, challenger: int | None, previous: int | None) -> None:
    """Make the aliases say what the release log says; idempotent, so that every run repairs it. A
    version that was deleted has none. Raises RegistryError."""
    from mlflow.exceptions import MlflowException

    client = runs.client()
    try:
        current = client.get_registered_model(model).aliases
        for alias, number in zip(ALIASES, (champion, challenger, previous), strict=True):
            if current.get(alias) == str(number):
                continue
            if number is not None and lookup(model, number):
                client.set_registered_model_alias(model, alias, str(number))
            elif alias in current:
                client.delete_registered_model_alias(model, alias)
    except MlflowException as error:
        raise runs.RegistryError(f"MLflow did not take the aliases of {model}: {error}") from error
