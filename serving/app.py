"""The gateway over HTTP: `python -m serving.app` (or `make gateway`), its API described at `/docs`.

Where the models, Triton and the spool are, the environment says (`kreislauf/settings.py`). Beyond
loopback it wants a token, which every request then has to bring as `Authorization: Bearer ...`;
`/health` and `/ready` need none.
"""

import argparse
import asyncio
import hmac
import ipaddress
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field

from kreislauf.settings import Settings, settings
from serving.connections import Connection
from serving.gateway import Gateway, Refused

HEAD_BYTES = 65_536
BODY_BYTES = 1_000_000
BODY_SECONDS = 10.0
IN_FLIGHT = 256
"""Requests at a time; more are told to come back."""
OPEN = ("/health", "/ready")


class Prediction(BaseModel):
    """What was answered, and by whom."""

    request_id: str = Field(description="Send it back with the feedback.")
    model: str
    version: int = Field(
        description="Of the registry; for a fallback, the champion that did not answer."
    )
    variant: str = Field(description="champion, challenger, or fallback.")
    answer: dict[str, Any] = Field(description="The model type's answer.")


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str = Field(description="What was wrong, and what to do.")


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (400, 401, 404, 408, 413, 422, 503)
}
OBJECT = {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}


def create(told: Settings) -> FastAPI:
    """The application; its gateway lives from the server's start to its end."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.gateway = gateway = Gateway(told)
        await gateway.start()
        yield
        await gateway.stop()

    app = FastAPI(title="Kreislauf gateway", version="1", lifespan=lifespan, responses=PROBLEMS)
    app.add_api_route("/health", health, methods=["GET"])
    app.add_api_route("/ready", ready, methods=["GET"])
    app.add_api_route("/metrics", metrics, methods=["GET"], response_class=Response)
    for path, endpoint, extra in (
        ("/v1/{model}/predict", predict, {"response_model": Prediction}),
        ("/v1/feedback", feedback, {"status_code": 204, "response_class": Response}),
    ):
        app.add_api_route(
            path, endpoint, methods=["POST"], openapi_extra={"requestBody": OBJECT}, **extra
        )
    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(RecursionError, too_deep)
    app.add_middleware(Guard, token=told.gateway_token)
    return app


class Guard:
    """Before everything else: the token, and no more requests at a time than memory was planned
    for."""

    def __init__(self, app: Any, token: str):
        self.app = app
        self.expected = f"Bearer {token}".encode() if token else b""
        self.in_flight = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI."""
        if scope["type"] != "http" or scope["path"] in OPEN:
            return await self.app(scope, receive, send)
        given = dict(scope["headers"]).get(b"authorization", b"")
        if self.expected and not hmac.compare_digest(given, self.expected):
            return await problem(401, "Send the gateway's token: Authorization: Bearer ...")(
                scope, receive, send
            )
        if self.in_flight >= IN_FLIGHT:
            return await problem(503, "Too many requests at a time. Come back in a second.")(
                scope, receive, send
            )
        self.in_flight += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.in_flight -= 1


async def predict(model: str, request: Request) -> Response:
    """Answer one request of a model type: its raw JSON, and `user`, whom it is for (by default its
    `session`)."""
    gateway: Gateway = request.app.state.gateway
    try:
        return JSONResponse(await gateway.predict(model, await read(request)))
    except Refused as error:
        known = model if model in gateway.followers.models else "unknown"
        gateway.metrics.refused.labels(known, str(error.status)).inc()
        raise


async def feedback(request: Request) -> Response:
    """Say what somebody did with an answer: `{"request_id", "model", "kind": "click" | "cart" |
    "order", "item"}`."""
    request.app.state.gateway.feedback(await read(request))
    return Response(status_code=204)


async def health() -> dict[str, str]:
    """Whether the process lives."""
    return {"status": "alive"}


async def ready(request: Request) -> Response:
    """Whether it can answer for every model type that is live."""
    wrong = request.app.state.gateway.ready()
    if wrong:
        return problem(503, "; ".join(f"{model}: {why}" for model, why in wrong.items()))
    return JSONResponse({"status": "ready"})


async def metrics(request: Request) -> Response:
    """For Prometheus."""
    registry = request.app.state.gateway.metrics.registry
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


async def read(request: Request) -> bytes:
    """The body, if it is no longer than BODY_BYTES and arrives within BODY_SECONDS. Raises
    Refused."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > BODY_BYTES:
                    raise Refused(413, f"The body is longer than {BODY_BYTES} bytes.")
    except TimeoutError as error:
        raise Refused(408, f"The body did not arrive within {BODY_SECONDS:.0f} s.") from error
    return bytes(body)


async def refused(request: Request, error: Exception) -> Response:
    """See Refused."""
    assert isinstance(error, Refused)
    return problem(error.status, error.detail)


async def too_deep(request: Request, error: Exception) -> Response:
    """What can just be parsed may be nested too deeply for a model type, or to be written down."""
    return problem(422, "The JSON is nested too deeply.")


def problem(status: int, detail: str) -> Response:
    """An error as JSON; a 503 says when to come back."""
    return JSONResponse({"detail": detail}, status, {"Retry-After": "1"} if status == 503 else None)


def listen(told: Settings, host: str, port: int) -> uvicorn.Config:
    """How the application is served."""
    return uvicorn.Config(
        create(told), host=host, port=port, access_log=False, timeout_graceful_shutdown=10, server_header=False,
        http=Connection, h11_max_incomplete_event_size=HEAD_BYTES, ws="none",
    )  # fmt: skip


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.app", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    arguments = parser.parse_args()
    told = settings()
    if not is_loopback(arguments.host) and not told.gateway_token:
        sys.exit(
            f"{arguments.host} can be reached from outside: set KREISLAUF_GATEWAY_TOKEN, or bind to 127.0.0.1."
        )
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    uvicorn.Server(listen(told, arguments.host, arguments.port)).run()


if __name__ == "__main__":
    main()
