"""The lifecycle page of a model type, as the flows have left it beside the release log."""

import asyncio
import logging

from fastapi import Request
from fastapi.responses import HTMLResponse

from kreislauf.release import lifecycle_page
from serving.parsing import Refusal

HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""The page has no scripts, loads nothing, and says nothing to others."""
log = logging.getLogger("kreislauf.gateway")


async def show(model: str, request: Request) -> HTMLResponse:
    """The life of a model type: what is live, how well it answers, what was decided."""
    if model not in request.app.state.gateway.pages:
        raise Refusal(404, f"There is no model type {model[:100]!r}.")
    try:
        page = await asyncio.to_thread(lifecycle_page.read, model)
    except Exception as error:  # Whatever the storage raises.
        log.warning("The page of %s cannot be read: %s", model, error)
        raise Refusal(
            503, f"The page of {model} cannot be read now: the gateway's log says why."
        ) from error
    if page is None:
        raise Refusal(
            404,
            f"{model} has no page yet. The first training draws it: run retrain.",
        )
    return HTMLResponse(page, headers=HEADERS)
