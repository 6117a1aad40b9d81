"""The gateway in front of Triton: validates, splits users, asks, falls back, and remembers what it
showed.

Everything but HTTP, which is in `app.py`. What it does with one request is `Gateway.predict`.
"""

import asyncio
import itertools
import json
import logging
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from kreislauf.exposures import KINDS, VARIANTS, Exposure, Feedback, Variant
from kreislauf.settings import Settings
from models import spec
from models.spec import Tensors
from serving import split
from serving.ask import NoAnswer, NotResident, TooLate, Triton
from serving.follow import Followed, Followers
from serving.metrics import Metrics
from serving.spool import Spool

USER_CHARACTERS = 200
SHADOWS = 8
"""Shadow questions at a time; more are dropped, so that they never slow an answer down."""
log = logging.getLogger("kreislauf.gateway")


class Refused(Exception):
    """A request that gets no answer: HTTP status and a sentence that says what to do."""

    def __init__(self, status: int, detail: str):
        super().__init__(detail)
        self.status = status
        self.detail = detail


@dataclass
class Answer:
    """What a version, or the fallback, answered."""

    version: int
    variant: Variant
    answer: dict
    reason: str | None = None
    """Why it is the fallback: `deadline` or `unavailable`."""


class Gateway:
    """All of it but HTTP. Made and used inside one event loop."""

    def __init__(self, settings: Settings):
        self.metrics = Metrics()
        self.deadline = settings.deadline_ms / 1000
        self.triton = Triton(settings.triton_url)
        kinds = [spec.load(name) for name in spec.names()]
        self.followers = Followers(kinds, settings.home / "gateway", self.triton, self.metrics)
        self.exposures, self.feedbacks = (Spool(folder) for folder in settings.spools)
        self.metrics.start(
            [kind.name for kind in kinds], [folder.name for folder in settings.spools]
        )
        self.shadows: set[asyncio.Task] = set()

    async def start(self) -> None:
        """Know what is live before the first request."""
        for one in self.followers.models.values():
            await self.followers.refresh(one)
            await self.followers.keep_fallback(one)
        self.background = [
            asyncio.create_task(self.followers.forever()),
            asyncio.create_task(self.ticking()),
        ]

    async def stop(self) -> None:
        """Close what is open; every line is on disk afterwards."""
        for task in [*self.background, *self.shadows]:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await self.triton.close()
        self.exposures.close()
        self.feedbacks.close()

    async def ticking(self) -> None:
        """Old segments are closed even when nobody asks."""
        while True:
            await asyncio.sleep(1)
            for spool in (self.exposures, self.feedbacks):
                try:
                    spool.tick()
                except OSError as error:
                    log.error("A segment cannot be closed, the next start does: %s", error)

    def ready(self) -> dict[str, str]:
        """What is wrong with each model type that cannot be answered for; empty when all can."""
        found = {}
        for name, one in self.followers.models.items():
            if not one.read:
                found[name] = "its release log could not be read yet"
            elif one.release and one.fallback is None:
                found[name] = "Triton has not answered yet, and no fallback answer is kept"
        return found

    async def predict(self, model: str, body: bytes) -> dict:
        """One answer. Raises Refused."""
        began = time.perf_counter()
        one = self.followed(model)
        user, inputs = self.understand(one, body)
        found = await self.answer(one, inputs, user or uuid.uuid4().hex, began)
        items = one.model_type.items(found.answer)
        request_id = f"{uuid.uuid4().hex}.{found.variant}.{found.version}"
        seconds = time.perf_counter() - began
        served = (model, str(found.version), found.variant)
        self.metrics.requests.labels(*served).inc()
        for kind in KINDS:
            self.metrics.feedback.labels(*served, kind)
        self.metrics.latency.labels(*served).observe(seconds)
        self.metrics.items.labels(*served).observe(len(items))
        if found.reason:
            self.metrics.fallbacks.labels(model, found.reason).inc()
        self.keep(
            self.exposures,
            Exposure(
                request_id, time.time_ns() // 1_000_000, model, found.version, found.variant,
                split.pseudonym(user) if user else "", json.dumps(items), round(seconds * 1000, 3),
            ),
        )  # fmt: skip
        self.shadow(one, inputs, items)
        return {
            "request_id": request_id, "model": model, "version": found.version, "variant": found.variant,
            "answer": found.answer,
        }  # fmt: skip

    async def answer(self, one: Followed, inputs: Tensors, user: str, began: float) -> Answer:
        """By the user's version or, if that does not answer in time, the fallback."""
        if one.release is None:
            raise Refused(
                503, f"Nothing of {one.model_type.name} is live yet: run the flow retrain."
            )
        for attempt in (1, 2):
            version, variant = split.assign(one.release, user)
            try:
                outputs = await self.triton.ask(
                    one.model_type.name, version, inputs, self.left(began)
                )
                return Answer(version, variant, one.model_type.answers(outputs)[0])
            except NotResident:
                # Two releases may have passed since the log was last read.
                if attempt == 1:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(self.left(began)):
                            await self.followers.refresh(one)
            except NoAnswer as error:
                return self.fall_back(
                    one, "deadline" if isinstance(error, TooLate) else "unavailable", error
                )
        return self.fall_back(one, "unavailable", NoAnswer(f"version {version} is not resident"))

    def left(self, began: float) -> float:
        """Seconds until the deadline."""
        return self.deadline - (time.perf_counter() - began)

    def fall_back(self, one: Followed, reason: str, error: Exception) -> Answer:
        """What is good for everyone. Raises Refused if no version ever said what that is."""
        log.warning("Fallback for %s: %s", one.model_type.name, error)
        if one.fallback is None:
            raise Refused(
                503,
                f"{one.model_type.name} cannot be answered: Triton does not answer, and no fallback is kept.",
            )
        assert one.release
        return Answer(one.release.champion, "fallback", one.fallback, reason)

    def shadow(self, one: Followed, inputs: Tensors, items: list) -> None:
        """Ask a challenger whose share is 0, too, after the answer has left, and compare."""
        release = one.release
        if release is None or release.challenger is None or release.share > 0:
            return
        if len(self.shadows) >= SHADOWS:
            self.metrics.shadow_dropped.labels(one.model_type.name).inc()
            return
        task = asyncio.create_task(self.compare(one, release.challenger, inputs, items))
        self.shadows.add(task)
        task.add_done_callback(self.shadows.discard)

    async def compare(self, one: Followed, challenger: int, inputs: Tensors, items: list) -> None:
        """Share of `items` that the challenger has, too."""
        try:
            outputs = await self.triton.ask(one.model_type.name, challenger, inputs, self.deadline)
        except (NoAnswer, NotResident) as error:
            self.metrics.shadow_dropped.labels(one.model_type.name).inc()
            log.warning("Shadow of %s: %s", one.model_type.name, error)
            return
        own = one.model_type.items(one.model_type.answers(outputs)[0])
        share = sum(item in own for item in items) / len(items) if items else float(not own)
        self.metrics.shadow.labels(one.model_type.name, str(challenger)).observe(share)

    def feedback(self, body: bytes) -> None:
        """Take what somebody did with an answer. Raises Refused."""
        found = parse(body)
        missing = {"request_id", "model", "kind", "item"} ^ set(found)
        if missing:
            raise Refused(
                422,
                f"Send exactly request_id, model, kind and item; {sorted(missing)} is missing or unknown.",
            )
        one = self.followed(found["model"])
        variant, version = served(found["request_id"], one)
        if found["kind"] not in KINDS:
            raise Refused(
                422, f"kind is {str(found['kind'])[:100]!r}. Send one of {', '.join(KINDS)}."
            )
        if len(json.dumps(found["item"])) > USER_CHARACTERS:
            raise Refused(
                422,
                f"item is longer than {USER_CHARACTERS} characters. Send one of the items of the answer.",
            )
        self.keep(
            self.feedbacks,
            Feedback(
                found["request_id"], time.time_ns() // 1_000_000, found["model"], version, variant, found["kind"],
                json.dumps(found["item"]),
            ),
        )  # fmt: skip
        self.metrics.feedback.labels(found["model"], str(version), variant, found["kind"]).inc()

    def keep(self, spool: Spool, line: Any) -> None:
        """Spool a line; a full disk costs the line, not the answer, and is counted for the
        alert."""
        try:
            spool.write(line)
        except OSError as error:
            self.metrics.lost.labels(spool.folder.name).inc()
            log.error("A line for %s is lost: %s", spool.folder.name, error)

    def followed(self, model: Any) -> Followed:
        """Raises Refused for a name that no model type has."""
        one = self.followers.models.get(model) if isinstance(model, str) else None
        if one is None:
            raise Refused(
                404,
                f"No model type is called {str(model)[:100]!r}. Known: {', '.join(self.followers.models)}.",
            )
        return one

    def understand(self, one: Followed, body: bytes) -> tuple[str | None, Tensors]:
        """User and tensors; the parsed JSON, which can be twenty times the body, is not kept while
        Triton is asked.

        Raises Refused with the model type's own words.
        """
        request = parse(body)
        user = read_user(request)
        try:
            return user, one.model_type.tensors([request])
        except ValueError as error:
            raise Refused(422, str(error)[:1_000]) from error


def parse(body: bytes) -> dict:
    """The JSON object in a body. Raises Refused."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Refused(400, f"The body is no JSON: {str(error)[:200]}") from error
    if not isinstance(found, dict):
        raise Refused(422, f"The body is a JSON {type(found).__name__}. Send an object.")
    return found


def read_user(request: dict) -> str | None:
    """Whom the answer is for: `user`, else the `session`, taken out of the request; None if neither
    is there."""
    user = request.pop("user", None)
    if user is None:
        user = request.get("session")
    if user is None:
        return None
    if (
        isinstance(user, bool)
        or not isinstance(user, str | int)
        or not 0 < len(str(user)) <= USER_CHARACTERS
    ):
        raise Refused(
            422, f"user must be an integer or a string of 1 to {USER_CHARACTERS} characters."
        )
    return str(user)


def served(request_id: Any, one: Followed) -> tuple[Variant, int]:
    """Variant and version, which the id of a request tells. Raises Refused for ids that were never
    given."""
    parts = request_id.split(".") if isinstance(request_id, str) else []
    if len(parts) == 3 and len(parts[0]) == 32:
        for variant, version in itertools.product(VARIANTS, one.versions):
            if parts[1:] == [variant, str(version)]:
                return variant, version
    raise Refused(422, "request_id is not one that an answer had: send it back as it came.")
