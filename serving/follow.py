"""Which release is in force: follows the release log, and keeps an answer that is good for all."""

import asyncio
import itertools
import json
import logging
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from kreislauf.monitoring import status
from kreislauf.release import releases
from models.spec import ModelSpec
from serving.ask import NoAnswer, Triton
from serving.metrics import Metrics

POLL_SECONDS = 0.5
"""Seconds between two reads of the release log."""
POLLS_PER_STATUS = 20
"""Reads of the release log between two reads of the monitor's status."""
POLLS_PER_LOOK = 4
"""Reads of the release log in whose time Triton is asked once what is resident."""
FALLBACK_SECONDS = 5.0
"""Deadline of the question whose answer is kept as the fallback."""
log = logging.getLogger("kreislauf.gateway")


@dataclass
class ModelState:
    """The state of one model type in this gateway."""

    model_type: ModelSpec
    file: Path
    """File that keeps the fallback answer over a restart."""
    release: releases.Release | None = None
    fallback: dict | None = None
    """Answer of some champion to `ModelSpec.fallback`."""
    fallback_version: int | None = None
    """Champion that gave it."""
    log_was_read: bool = False
    """Whether the release log could be read at all."""
    absence: str = ""
    """Why no version answers, though Triton does; empty if one does."""
    was_resident: bool = False
    """Whether a champion was ever seen in Triton."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class ReleaseFollower:
    """Keeps the states of all model types of a gateway up to date."""

    def __init__(
        self, model_types: list[ModelSpec], folder: Path, triton: Triton, metrics: Metrics
    ):
        folder.mkdir(parents=True, exist_ok=True)
        self.triton = triton
        self.metrics = metrics
        self.models = {
            model_type.name: ModelState(model_type, folder / f"{model_type.name}.json")
            for model_type in model_types
        }
        for state in self.models.values():
            # A machine that lost power may have left half a file; Triton is asked again.
            with suppress(FileNotFoundError, ValueError):
                state.fallback = json.loads(state.file.read_text())

    async def refresh(self, state: ModelState) -> None:
        """Read the release log.

        A log that cannot be read, or has lost entries, leaves the release in force.
        """
        name = state.model_type.name
        async with state.lock:
            try:
                release = await asyncio.to_thread(releases.current, name)
                check_log_grew(state.release, release)
            except Exception as error:
                # Whatever the storage raises, the release in force must not end.
                self.metrics.release_errors.labels(name).inc()
                log.warning(
                    "The release log of %s cannot be read, release %s stays: %s",
                    name,
                    state.release,
                    error,
                )
                return
            state.log_was_read = True
            state.release = release
            if release:
                self.metrics.show_release(release)

    async def keep_fallback(self, state: ModelState) -> None:
        """Ask a new champion once for the answer that is good for everyone."""
        name = state.model_type.name
        release = state.release
        if release is None or state.fallback_version == release.champion:
            return
        try:
            inputs = state.model_type.tensors([state.model_type.fallback])
            outputs = await self.triton.ask(name, release.champion, inputs, FALLBACK_SECONDS)
            state.fallback = state.model_type.answers(outputs)[0]
            state.fallback_version = release.champion
            draft = state.file.with_suffix(".tmp")
            draft.write_text(json.dumps(state.fallback))
            draft.replace(state.file)
        except Exception as error:
            # Whatever Triton says or the disk refuses, the log must still be followed.
            log.warning("No new fallback answer for %s is kept: %s", name, error)

    async def fallback(self, state: ModelState, seconds: float) -> dict | None:
        """The answer that is good for everyone; None if it does not come in so many seconds."""
        if state.fallback is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.keep_fallback(state)
        return state.fallback

    async def keep_resident(self, state: ModelState) -> None:
        """Let Triton load the champion again from its repository, if somebody has restarted it
        without.

        A repository that lacks the file is filled by the flow collect, or publish.
        """
        name = state.model_type.name
        release = state.release
        if release is None:
            return
        try:
            if not await self.triton.has(name, release.champion):
                state.absence = f"Triton does not serve version {release.champion}"
                log.warning("%s of %s: it is asked to load it again.", state.absence, name)
                await self.triton.load(name)
                if not await self.triton.has(name, release.champion):
                    raise NoAnswer("its repository does not have it")
            state.absence = ""
            state.was_resident = True
        except NoAnswer as error:
            if state.absence:
                state.absence = (
                    f"Triton does not serve version {release.champion}, and cannot load it "
                    f"({error}). The flow collect puts it back within ten minutes, publish at once."
                )

    async def look_after_triton(self) -> None:
        """Look until cancelled whether Triton serves what is in force."""
        while True:
            await asyncio.sleep(POLLS_PER_LOOK * POLL_SECONDS)
            for state in self.models.values():
                await self.keep_resident(state)

    def ready(self) -> dict[str, str]:
        """Problems of the model types that cannot be answered for; empty when all can."""
        problems = {}
        for name, state in self.models.items():
            if not state.log_was_read:
                problems[name] = "its release log could not be read yet"
            elif state.release and state.fallback is None:
                problems[name] = "Triton has not answered yet, and no fallback answer is kept"
            elif state.absence and not state.was_resident:
                problems[name] = state.absence
        return problems

    def fallbacks(self) -> dict[str, str]:
        """Why the model types that are answered for by fallbacks alone are; empty when none is."""
        states = self.models.items()
        return {name: state.absence for name, state in states if state.absence}

    async def show_monitor(self, state: ModelState) -> None:
        """Show Prometheus the newest status of the monitor."""
        name = state.model_type.name
        try:
            monitor_status = await asyncio.to_thread(status.read, name)
        except Exception as error:  # Answers do not depend on it.
            log.warning("What the monitor said of %s cannot be read: %s", name, error)
            return
        if monitor_status:
            self.metrics.show_monitor(monitor_status)

    async def follow(self) -> None:
        """Follow the release log and the monitor until cancelled."""
        for turn in itertools.count():
            await asyncio.sleep(POLL_SECONDS)
            for state in self.models.values():
                await self.refresh(state)
                await self.keep_fallback(state)
                if turn % POLLS_PER_STATUS == 0:
                    await self.show_monitor(state)


def check_log_grew(before: releases.Release | None, now: releases.Release | None) -> None:
    """Raises LookupError if the log ends earlier than before.

    The log only grows: if it is shorter, its storage is gone.
    """
    if before and (now is None or now.number < before.number):
        raise LookupError(
            f"it ended with release {before.number} and now with {now and now.number}"
        )
