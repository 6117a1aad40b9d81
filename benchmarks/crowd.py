"""Clients that ask the gateway without pause, or now and then, and remember each answer."""

import asyncio
import threading
import time
from dataclasses import dataclass, field

import aiohttp

CLIENTS = 4
"""Number of clients that ask at the same time."""
TIMEOUT_SECONDS = 30
"""Time after which a client gives a request up."""


@dataclass
class Response:
    """One response of the gateway."""

    began: float
    finished: float
    """Seconds since 1970."""
    question: int
    status: int
    """HTTP status; 0 if there was no answer."""
    body: dict


@dataclass
class Crowd:
    """Clients in a thread of their own, until the end of the `with` statement."""

    url: str
    questions: list[dict]
    pause: float = 0.0
    """Seconds between two requests of a client."""
    responses: list[Response] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Crowd":
        self.thread = threading.Thread(target=lambda: asyncio.run(self._all()))
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    async def _all(self) -> None:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            await asyncio.gather(*(self._client(session, first) for first in range(CLIENTS)))

    async def _client(self, session: aiohttp.ClientSession, number: int) -> None:
        while not self.over.is_set():
            question = number % len(self.questions)
            began = time.time()
            try:
                async with session.post(self.url, json=self.questions[question]) as response:
                    status = response.status
                    body = await response.json()
            except (aiohttp.ClientError, TimeoutError) as error:
                status = 0
                body = {"detail": repr(error)}
            self.responses.append(Response(began, time.time(), question, status, body))
            number += CLIENTS
            await asyncio.sleep(self.pause)
