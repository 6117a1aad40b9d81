"""The shop's front end: asks the gateway in each step of a visit, and sends back what is clicked.

The gateway gives exposures and feedback the time of the wall clock, whatever time the events of a
request have: a replay of weeks lies within minutes in these tables. So its releases are compared
by the version of their answers, not by windows of the shop's time.
"""

import asyncio
from dataclasses import dataclass

import httpx
import numpy as np
import polars as pl

from demo.visitors import Visitors

CLIENTS = 16
"""Requests that are under way at a time; the gateway takes 256. An `httpx` client that got
all at once would look through those that wait at each answer."""
BATCH = 1_000
"""Steps that are asked before what was clicked in them is sent."""
TIMEOUT = httpx.Timeout(30)
"""Seconds after which a request is given up; to wait until others are answered does not count."""
MODEL = "session_recommender"


@dataclass(frozen=True)
class GatewayClient:
    """Sends CLIENTS requests at a time."""

    http: httpx.AsyncClient
    slots: asyncio.Semaphore

    async def post(self, path: str, body: dict) -> httpx.Response:
        """What the gateway says to a body. Raises RuntimeError for what it refuses."""
        async with self.slots:
            response = await self.http.post(path, json=body)
        if response.is_error:
            raise RuntimeError(f"{response.url} answered {response.status_code}: {response.text}")
        return response


def play(visitors: Visitors, gateway: str) -> pl.DataFrame:
    """Show each step's answer of the gateway (an address such as http://127.0.0.1:8080), and send
    the clicks.

    Returns a row for each step: session, ts (the shop's time, ms since 1970 UTC), request_id,
    version, variant, clicked (the position from 0, -1 for none) and expected (the expected clicks
    of the answer). Raises RuntimeError for what the gateway refuses, and httpx.HTTPError if it is
    gone.
    """
    return asyncio.run(_play(visitors, gateway))


async def _play(visitors: Visitors, gateway: str) -> pl.DataFrame:
    """See `play`."""
    async with httpx.AsyncClient(base_url=gateway, timeout=TIMEOUT) as http:
        client = GatewayClient(http, asyncio.Semaphore(CLIENTS))
        batches = [
            await _show(client, visitors.take(np.arange(first, min(first + BATCH, len(visitors)))))
            for first in range(0, len(visitors), BATCH)
        ]
    return pl.concat(batches)


async def _show(client: GatewayClient, visitors: Visitors) -> pl.DataFrame:
    """Ask in all steps, decide over the clicks, and send them."""
    path = f"/v1/{MODEL}/predict"
    asked = [client.post(path, body) for body in visitors.requests()]
    predictions = [response.json() for response in await asyncio.gather(*asked)]
    answers = padded([prediction["answer"]["article_ids"] for prediction in predictions])
    clicked = visitors.clicks(answers)
    reactions = [
        {
            "request_id": predictions[row]["request_id"],
            "model": MODEL,
            "kind": "click",
            "item": int(answers[row, clicked[row]]),
        }
        for row in np.flatnonzero(clicked >= 0)
    ]
    await asyncio.gather(*(client.post("/v1/feedback", body) for body in reactions))
    return pl.DataFrame(
        {
            "session": visitors.session,
            "ts": visitors.time,
            "request_id": [prediction["request_id"] for prediction in predictions],
            "version": [prediction["version"] for prediction in predictions],
            "variant": [prediction["variant"] for prediction in predictions],
            "clicked": clicked,
            "expected": visitors.expected_clicks(answers),
        }
    )


def padded(answers: list[list[int]]) -> np.ndarray:
    """Answers of different lengths as one array, short ones filled up with -1: int64 (n, k)."""
    width = max(map(len, answers), default=0)
    rows = [answer + [-1] * (width - len(answer)) for answer in answers]
    return np.array(rows, np.int64).reshape(len(answers), width)
