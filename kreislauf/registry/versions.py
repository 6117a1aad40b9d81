"""Registered versions, as MLflow has them; not those that somebody registered by hand.

What is live is the release log's to say (`kreislauf/release/releases.py`).
"""

import json

from pydantic import BaseModel, ConfigDict, Field

from kreislauf.registry import runs
from kreislauf.registry.lineage import Lineage
from kreislauf.registry.runs import NoSuchVersion, RegistryError
from kreislauf.settings import settings
from models.spec import MAX_BATCH, Parity

DECLINED = "not approved"
"""How the answer of a person begins who said no."""


class Version(BaseModel):
    """A registered model version. Numbers are the registry's, and Triton's."""

    model_config = ConfigDict(frozen=True)

    model: str
    number: int
    run_id: str
    digests: dict[str, str] = Field(
        description="SHA-256 of the ONNX file and of each file beside it, by name."
    )
    lineage: Lineage
    parity: Parity | None = None
    decision: str | None = Field(None, description="JSON of the gate's decision.")
    closed: bool = Field(
        False, description="Judged, and live if promoted: nothing is left to do with it."
    )
    question: str | None = Field(
        None, description="What a person is asked before the version may go live."
    )
    answer: str | None = Field(None, description="What came of the question.")

    @property
    def was_declined(self) -> bool:
        """Whether a person has said that it must not go live."""
        return (self.answer or "").startswith(DECLINED)

    @property
    def proven(self) -> bool:
        """Whether the ONNX file answered as the module did, at every batch size that Triton may
        make."""
        return (
            self.parity is not None
            and self.parity.passed
            and self.parity.largest_batch >= MAX_BATCH
        )


def find(model: str, key: str) -> Version | None:
    """The version that was trained from exactly the inputs behind `key`."""
    return next((v for v in versions(model) if v.lineage.key == key), None)


def versions(model: str) -> list[Version]:
    """All registered versions of a model, newest first."""
    stored = [_version(entity) for entity in _stored(f"name='{model}'")]
    return sorted(stored, key=lambda version: -version.number)


def finished(model: str) -> Version | None:
    """The newest version with which nothing is left to do, whether it went live or not."""
    return next((v for v in versions(model) if v.closed), None)


def _stored(query: str) -> list:
    """MLflow's model versions; not those that someone registered by hand: these are not ours to
    judge or to serve."""
    client = runs.client()
    page = client.search_model_versions(query, max_results=1000)
    stored = list(page)
    while page.token:
        page = client.search_model_versions(query, max_results=1000, page_token=page.token)
        stored += page
    return [version for version in stored if "lineage" in version.tags]


def lineages() -> list[Lineage]:
    """Where all registered versions of all models come from, also of model types that this checkout
    does not have."""
    return [Lineage.model_validate_json(v.tags["lineage"]) for v in _stored("")]


def get(model: str, number: int) -> Version:
    """One version. Raises NoSuchVersion when there is none, RegistryError."""
    from mlflow.exceptions import MlflowException

    client = runs.client()
    try:
        stored = client.get_model_version(model, str(number))
    except MlflowException as error:
        where = f"MLflow at {settings().mlflow_url}"
        failure = RegistryError
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            failure = NoSuchVersion
        raise failure(
            f"{where} has no {model} version {number} to give: {error.message}"
        ) from error
    if "lineage" not in stored.tags:
        raise NoSuchVersion(
            f"{model} version {number} was not registered by Kreislauf: it has no lineage."
        )
    return _version(stored)


def lookup(model: str, number: int) -> Version | None:
    """The version of this number; None if there is none, because people delete old ones."""
    try:
        return get(model, number)
    except NoSuchVersion:
        return None


def _version(entity) -> Version:
    tags = entity.tags
    parity = None
    if "parity" in tags:
        parity = Parity.model_validate_json(tags["parity"])
    return Version(
        model=entity.name,
        number=int(entity.version),
        run_id=entity.run_id,
        digests=json.loads(tags["digests"]),
        lineage=Lineage.model_validate_json(tags["lineage"]),
        parity=parity,
        decision=tags.get("decision"),
        closed=tags.get("closed") == "true",
        question=tags.get("question"),
        answer=tags.get("answer"),
    )
