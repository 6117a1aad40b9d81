"""HTTP connections that cannot exhaust the gateway, whose clients nobody has asked for a token
yet."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS = 512
"""At a time; more are closed, so that there are file handles for the spool."""
SECONDS = 30.0
"""After so long with the same request, or with none, a connection is closed."""


class Connection(H11Protocol):
    """Uvicorn's in Python, because the faster one in C reads headers without end."""

    watch: asyncio.TimerHandle
    seen: object = None

    def connection_made(self, transport: Any) -> None:
        """Accept, unless there are too many."""
        super().connection_made(transport)
        self.watch = self.loop.call_later(SECONDS, self.look)
        if len(self.connections) > CONNECTIONS:
            transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """No more looks."""
        self.watch.cancel()
        super().connection_lost(error)

    def look(self) -> None:
        """Close the connection of a client that neither finishes its request nor reads its
        answer."""
        if self.cycle is self.seen:
            self.transport.abort()
        else:
            self.seen = self.cycle
            self.watch = self.loop.call_later(SECONDS, self.look)
