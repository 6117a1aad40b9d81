"""What the monitor last said of a model: one small file beside its release log, where the gateway
finds it."""

import os
import tempfile
from pathlib import Path

import fsspec
from pydantic import BaseModel, ConfigDict, Field

from kreislauf.settings import settings


class SignalStatus(BaseModel):
    """A signal, as it was in the window."""

    model_config = ConfigDict(frozen=True)

    value: float
    usual: float
    limit: float


class MonitorStatus(BaseModel):
    """The newest run of the monitor."""

    model_config = ConfigDict(frozen=True)

    model: str
    version: int
    end: int = Field(description="Of the window, ms since 1970 UTC.")
    at: int = Field(description="Of the run, ms since 1970 UTC, on the wall clock.")
    verdict: str
    signals: dict[str, SignalStatus] = {}


def write(vitals: MonitorStatus) -> None:
    """Put it in place of what was there; a reader sees the one or the other, whole."""
    fs, path = _where(vitals.model)
    content = vitals.model_dump_json(indent=1).encode()
    if "file" not in fs.protocol:
        fs.pipe_file(path, content)
        return
    folder = Path(path).parent
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".tmp", delete=False) as draft:
        draft.write(content)
    os.replace(draft.name, path)


def read(model: str) -> MonitorStatus | None:
    """The newest; None if the monitor never ran."""
    fs, path = _where(model)
    fs.invalidate_cache()
    return MonitorStatus.model_validate_json(fs.cat_file(path)) if fs.exists(path) else None


def _where(model: str) -> tuple[fsspec.AbstractFileSystem, str]:
    fs, root = fsspec.core.url_to_fs(settings().releases)
    return fs, f"{root.rstrip('/')}/{model}/monitor.json"
