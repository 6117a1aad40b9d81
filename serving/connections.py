"""HTTP connections that cannot exhaust the gateway, even before a client has shown a token."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 512
"""Maximum connections at a time; more are closed, so that the spool has file handles left."""
IDLE_SECONDS = 30.0
"""Seconds with the same unfinished request, or without any, after which a connection is closed."""


class Connection(H11Protocol):
    """Uvicorn's protocol in Python, because the faster one in C reads headers without end."""

    timer: asyncio.TimerHandle
    last_cycle: object = None

    def connection_made(self, transport: Any) -> None:
        """Accept, unless there are too many."""
        super().connection_made(transport)
        self.timer = self.loop.call_later(IDLE_SECONDS, self.check_idle)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """End the checks."""
        self.timer.cancel()
        super().connection_lost(error)

    def check_idle(self) -> None:
        """Close the connection of a client that neither asks on nor reads its answer.

        One that has read its answer, and sends nothing, is kept as long as `keep_alive_s` says.
        """
        is_kept = self.timeout_keep_alive_task and not self.transport.get_write_buffer_size()
        if self.cycle is self.last_cycle and not is_kept:
            self.transport.abort()
        else:
            self.last_cycle = self.cycle
            self.timer = self.loop.call_later(IDLE_SECONDS, self.check_idle)
