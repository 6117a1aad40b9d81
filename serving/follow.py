"""Which release is in force: follows the release log, and keeps an answer that is good for everyone
in hand."""

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
from serving.ask import Triton
from serving.metrics import Metrics

SECONDS = 0.5
"""Between two looks into the log."""
TURNS = 20
"""Of these, between two looks at what the monitor said."""
FALLBACK_SECONDS = 5.0
"""For the one question whose answer is kept."""
log = logging.getLogger("kreislauf.gateway")


@dataclass
class Followed:
    """What is known of one model type."""

    model_type: ModelSpec
    file: Path
    """Keeps the fallback answer over a restart."""
    release: releases.Release | None = None
    fallback: dict | None = None
    """Answer of some champion to `ModelSpec.fallback`."""
    asked: int | None = None
    """Champion that gave it."""
    versions: set[int] = field(default_factory=set)
    """All that ever were in force."""
    read: bool = False
    """Whether the log was read at all."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Followers:
    """All model types of a gateway."""

    def __init__(self, kinds: list[ModelSpec], folder: Path, triton: Triton, metrics: Metrics):
        folder.mkdir(parents=True, exist_ok=True)
        self.triton = triton
        self.metrics = metrics
        self.models = {
            model_type.name: Followed(model_type, folder / f"{model_type.name}.json")
            for model_type in kinds
        }
        for one in self.models.values():
            # A machine that lost power may have left half a file; Triton is asked again.
            with suppress(FileNotFoundError, ValueError):
                one.fallback = json.loads(one.file.read_text())

    async def refresh(self, one: Followed) -> None:
        """Read the log; one that cannot be read, or has lost entries, leaves in force what was."""
        name = one.model_type.name
        async with one.lock:
            try:
                if not one.read:
                    past = await asyncio.to_thread(releases.history, name)
                    one.versions.update(version for release in past for version in release.versions)
                release = await asyncio.to_thread(releases.current, name)
                check(one.release, release)
            except (
                Exception
            ) as error:  # Whatever the storage raises, what is in force must not end.
                self.metrics.release_errors.labels(name).inc()
                log.warning(
                    "The release log of %s cannot be read, release %s stays: %s",
                    name,
                    one.release,
                    error,
                )
                return
            one.read = True
            one.release = release
            if release:
                one.versions.update(release.versions)
                self.metrics.release.labels(name).set(release.number)
                self.metrics.champion.labels(name).set(release.champion)
                if release.watermark:
                    self.metrics.watermark.labels(name).set(release.watermark / 1000)

    async def keep_fallback(self, one: Followed) -> None:
        """Ask the champion once for what is good for everyone."""
        release = one.release
        if release is None or one.asked == release.champion:
            return
        try:
            inputs = one.model_type.tensors([one.model_type.fallback])
            outputs = await self.triton.ask(
                one.model_type.name, release.champion, inputs, FALLBACK_SECONDS
            )
            one.fallback = one.model_type.answers(outputs)[0]
            one.asked = release.champion
            draft = one.file.with_suffix(".tmp")
            draft.write_text(json.dumps(one.fallback))
            draft.replace(one.file)
        except (
            Exception
        ) as error:  # Whatever Triton says or the disk refuses, the log must still be followed.
            log.warning("No new fallback answer for %s is kept: %s", one.model_type.name, error)

    async def watch(self, one: Followed) -> None:
        """Tell Prometheus what the monitor last said."""
        try:
            said = await asyncio.to_thread(status.read, one.model_type.name)
        except Exception as error:  # Answers do not depend on it.
            log.warning(
                "What the monitor said of %s cannot be read: %s", one.model_type.name, error
            )
            return
        if said:
            self.metrics.watched(said)

    async def forever(self) -> None:
        """Follow until cancelled."""
        for turn in itertools.count():
            await asyncio.sleep(SECONDS)
            for one in self.models.values():
                await self.refresh(one)
                await self.keep_fallback(one)
                if turn % TURNS == 0:
                    await self.watch(one)


def check(before: releases.Release | None, now: releases.Release | None) -> None:
    """Raises LookupError if the log ends earlier than before: it only grows, so its storage is what
    is gone."""
    if before and (now is None or now.number < before.number):
        raise LookupError(
            f"it ended with release {before.number} and now with {now and now.number}"
        )
