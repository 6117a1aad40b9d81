"""The gateway in front of Triton: validates, splits users, asks, falls back, and remembers answers.

`app.py` adds HTTP. What happens to one request is `Gateway.predict`.
"""

import asyncio
import json
import logging
import time
import uuid
from contextlib import suppress
from typing import Any

from kreislauf import gateway_secret
from kreislauf.exposures import KINDS, PSEUDONYMS, Exposure, Feedback, pseudonym
from kreislauf.release.releases import NO_MODEL
from kreislauf.settings import Settings
from models import loading
from models.mapped_requests import MappedRequests, requests_of
from models.spec import Tensors
from serving import parsing, questions, request_ids, split
from serving.answer import Answer, overlap
from serving.ask import NoAnswer, NotResident, TooLate, Triton
from serving.follow import ModelState, ReleaseFollower
from serving.metrics import Metrics
from serving.parsing import USER_CHARACTERS, Refusal
from serving.split import Assignment
from serving.spool import Spool

MAX_SHADOWS = 8
"""Maximum shadow questions at a time; more are dropped, so that they never slow an answer down."""
log = logging.getLogger("kreislauf.gateway")


class Gateway:
    """Everything but HTTP. It is made and used inside one event loop."""

    def __init__(self, settings: Settings):
        self.request_id_key = gateway_secret.key(settings, request_ids.PURPOSE)
        self.pseudonym_key = gateway_secret.key(settings, PSEUDONYMS)
        self.metrics = Metrics()
        self.deadline = settings.deadline_ms / 1000
        self.mapped = requests_of(settings.mapping)
        self.triton = Triton(settings.triton_url)
        sound, self.broken = loading.load_sound()
        model_types = [model_type for model_type in sound if model_type.is_served]
        self.pages = {model_type.name for model_type in sound}
        """Model types with a lifecycle page; no server answers for some of them."""
        for name, error in self.broken.items():
            log.error("models/%s cannot be loaded and does not answer: %r", name, error)
        self.follower = ReleaseFollower(
            model_types, settings.home / "gateway", self.triton, self.metrics
        )
        self.exposures, self.feedbacks = (Spool(folder) for folder in settings.spools)
        self.metrics.start(
            [model_type.name for model_type in model_types],
            [folder.name for folder in settings.spools],
        )
        self.shadows: set[asyncio.Task] = set()

    async def start(self) -> None:
        """Learn what is live before the first request."""
        for state in self.follower.models.values():
            await self.follower.refresh(state)
            await self.follower.keep_resident(state)
            await self.follower.keep_fallback(state)
        self.background = [
            asyncio.create_task(self.follower.follow()),
            asyncio.create_task(self.follower.look_after_triton()),
            asyncio.create_task(self.close_old_segments()),
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

    async def close_old_segments(self) -> None:
        """Close old segments even when nobody asks."""
        while True:
            await asyncio.sleep(1)
            for spool in (self.exposures, self.feedbacks):
                try:
                    spool.tick()
                except OSError as error:
                    log.error("A segment cannot be closed, the next start does: %s", error)

    async def predict(self, model: str, body: bytes) -> dict:
        """One answer. Raises Refusal."""
        began = time.perf_counter()
        state = self.get_state(model)
        question = questions.parse(state.model_type, self.mapped_requests(model), body)
        user, inputs = question.user, question.inputs
        answer = await self.answer(state, inputs, user or uuid.uuid4().hex, began)
        items = state.model_type.items(answer.answer)
        request_id = request_ids.make(self.request_id_key, model, answer.variant, answer.version)
        seconds = time.perf_counter() - began
        self.metrics.count_answer(
            model, answer.version, answer.variant, seconds, len(items), answer.reason
        )
        self.write_line(
            self.exposures,
            Exposure(
                request_id=request_id,
                ts=time.time_ns() // 1_000_000,
                model=model,
                version=answer.version,
                variant=answer.variant,
                user=pseudonym(user, self.pseudonym_key) if user else "",
                items=json.dumps(items),
                latency_ms=round(seconds * 1000, 3),
                release=answer.assignment.release.number,
                arm=answer.assignment.arm,
            ),
        )
        self.start_shadow(state, inputs, items)
        return {
            "request_id": request_id,
            "model": model,
            "version": answer.version,
            "variant": answer.variant,
            "answer": question.form(answer.answer),
        }

    async def answer(self, state: ModelState, inputs: Tensors, user: str, began: float) -> Answer:
        """By the user's version or, if that does not answer in time, the fallback."""
        model = state.model_type.name
        if state.release is None:
            raise Refusal(503, f"Nothing of {model} is live yet: run the flow retrain.")
        for attempt in (1, 2):
            assignment = split.assign(state.release, user)
            version = assignment.version
            if version == NO_MODEL:
                neutral = await self.follower.fallback(state, self.seconds_left(began))
                if neutral is not None:
                    return Answer(assignment, neutral)
            try:
                outputs = await self.triton.ask(model, version, inputs, self.seconds_left(began))
                return Answer(assignment, state.model_type.answers(outputs)[0])
            except NotResident:
                # Two releases may have passed since the log was last read.
                if attempt == 1:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(self.seconds_left(began)):
                            await self.follower.refresh(state)
            except TooLate as error:
                return self.fall_back(state, assignment, "deadline", error)
            except NoAnswer as error:
                return self.fall_back(state, assignment, "unavailable", error)
        absence = NoAnswer(f"version {version} is not resident")
        return self.fall_back(state, assignment, "unavailable", absence)

    def seconds_left(self, began: float) -> float:
        """Seconds until the deadline."""
        return self.deadline - (time.perf_counter() - began)

    def fall_back(
        self, state: ModelState, assignment: Assignment, reason: str, error: Exception
    ) -> Answer:
        """The answer that is good for everyone. Raises Refusal if no version ever gave it."""
        model = state.model_type.name
        log.warning("Fallback for %s: %s", model, error)
        if state.fallback is None:
            raise Refusal(
                503,
                f"{model} cannot be answered: Triton does not answer, and no fallback is kept.",
            )
        return Answer(assignment, state.fallback, reason)

    def start_shadow(self, state: ModelState, inputs: Tensors, items: list) -> None:
        """Ask a challenger whose share is 0, too, after the answer has left, and compare."""
        release = state.release
        if release is None or release.challenger is None or release.share > 0:
            return
        if len(self.shadows) >= MAX_SHADOWS:
            self.metrics.shadow_dropped.labels(state.model_type.name).inc()
            return
        task = asyncio.create_task(self.compare(state, release.challenger, inputs, items))
        self.shadows.add(task)
        task.add_done_callback(self.shadows.discard)

    async def compare(
        self, state: ModelState, challenger: int, inputs: Tensors, items: list
    ) -> None:
        """Observe the share of `items` that the challenger has, too."""
        model = state.model_type.name
        try:
            outputs = await self.triton.ask(model, challenger, inputs, self.deadline)
        except (NoAnswer, NotResident) as error:
            self.metrics.shadow_dropped.labels(model).inc()
            log.warning("Shadow of %s: %s", model, error)
            return
        challenger_items = state.model_type.items(state.model_type.answers(outputs)[0])
        share = overlap(items, challenger_items)
        self.metrics.shadow.labels(model, str(challenger)).observe(share)

    def feedback(self, body: bytes) -> None:
        """Take what somebody did with an answer. Raises Refusal."""
        content = parsing.parse(body)
        mapped_requests = self.mapped_requests(content.get("model"))
        if mapped_requests:
            content = mapped_requests.reaction(content)
        wrong = {"request_id", "model", "kind", "item"} ^ set(content)
        if wrong:
            raise Refusal(
                422,
                "Send exactly request_id, model, kind and item; "
                f"{sorted(wrong)} is missing or unknown.",
            )
        model = content["model"]
        kind = content["kind"]
        state = self.get_state(model)
        request_id = content["request_id"]
        variant, version = request_ids.parse(self.request_id_key, model, request_id)
        if kind not in KINDS:
            raise Refusal(422, f"kind is {str(kind)[:100]!r}. Send one of {', '.join(KINDS)}.")
        item = json.dumps(state.model_type.item(content["item"]))
        # Counted as people do: JSON may spell an umlaut with six characters.
        if len(json.dumps(content["item"], ensure_ascii=False)) > USER_CHARACTERS:
            raise Refusal(
                422,
                f"item is longer than {USER_CHARACTERS} characters. "
                "Send one of the items of the answer.",
            )
        self.write_line(
            self.feedbacks,
            Feedback(
                request_id=request_id,
                ts=time.time_ns() // 1_000_000,
                model=model,
                version=version,
                variant=variant,
                kind=kind,
                item=item,
            ),
        )
        self.metrics.feedback.labels(model, str(version), variant, kind).inc()

    def mapped_requests(self, model: Any) -> MappedRequests | None:
        """How bodies of this model type are read, if a mapping says so."""
        if self.mapped and self.mapped.model_type.name == model:
            return self.mapped
        return None

    def write_line(self, spool: Spool, line: Any) -> None:
        """Spool a line; a full disk costs the line, not the answer, and is counted."""
        try:
            spool.write(line)
        except OSError as error:
            self.metrics.lost.labels(spool.folder.name).inc()
            log.error("A line for %s is lost: %s", spool.folder.name, error)

    def get_state(self, model: Any) -> ModelState:
        """State of the model type of this name. Raises Refusal if there is none."""
        models = self.follower.models
        if isinstance(model, str) and model in self.broken:
            raise Refusal(503, f"models/{model} cannot be loaded: {self.broken[model]!r}"[:1_000])
        if not isinstance(model, str) or model not in models:
            raise Refusal(
                404,
                f"No model type is called {str(model)[:100]!r}. Known: {', '.join(models)}.",
            )
        return models[model]
