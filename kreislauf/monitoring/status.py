"""The monitor's newest finding about a model: one small file beside its release log, where the
gateway reads it."""

import json
import time

import fsspec
from pydantic import BaseModel, ConfigDict, Field

from kreislauf import object_store
from kreislauf.clock import DAY_MS
from kreislauf.monitoring import renamed
from kreislauf.settings import settings


class SignalStatus(BaseModel):
    """A signal, as it was in the window."""

    model_config = ConfigDict(frozen=True)

    value: float
    mean: float
    tolerance: float


class MonitorStatus(BaseModel):
    """The newest run of the monitor."""

    model_config = ConfigDict(frozen=True)

    model: str
    version: int
    end: int = Field(description="End of the window, ms since 1970 UTC.")
    at: int = Field(description="Time of the run, ms since 1970 UTC, on the wall clock.")
    verdict: str
    wait: str = Field("", description="Why trainings wait; empty if they need not.")
    signals: dict[str, SignalStatus] = {}


def write(status: MonitorStatus) -> None:
    """Replace the file of an earlier run; a reader sees the one or the other, whole."""
    fs, path = _locate(status.model)
    object_store.replace(fs, path, status.model_dump_json(indent=1).encode())


def read(model: str) -> MonitorStatus | None:
    """The status of the newest run; None if the monitor never ran."""
    fs, path = _locate(model)
    if not fs.exists(path):
        return None
    content = renamed.status(json.loads(fs.cat_file(path)))
    return MonitorStatus.model_validate(content)


def wait(model: str, version: int) -> str:
    """Why a training must wait, as the newest run of the monitor says of the live `version`; empty
    if it need not, or if that run is more than a day ago."""
    status = read(model)
    if status is None or status.version != version or time.time() * 1000 - status.at > DAY_MS:
        return ""
    return status.wait


def _locate(model: str) -> tuple[fsspec.AbstractFileSystem, str]:
    return object_store.locate(settings().releases, model, "monitor.json")
