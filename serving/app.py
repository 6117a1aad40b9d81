"""The gateway over HTTP: `python -m serving.app`, its API described at `/docs`.

The environment says where the models, Triton and the spool are (`kreislauf/settings.py`). Beyond
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

from kreislauf import gateway_secret
from kreislauf.settings import Settings, settings
from serving import request_ids
from serving.connections import Connection
from serving.gateway import Gateway
from serving.parsing import Refusal

HEAD_BYTES = 65_536
BODY_BYTES = 1_000_000
BODY_SECONDS = 10.0
IN_FLIGHT = 256
"""Maximum requests at a time; more are asked to come back later."""
OPEN = ("/health", "/ready")
"""Paths that need no token."""


class Prediction(BaseModel):
    """An answer, and who gave it."""

    request_id: str = Field(description="Send it back with the feedback.")
    model: str
    version: int = Field(
        description="Version in the registry; for a fallback, the champion that did not answer."
    )
    variant: str = Field(description="champion, challenger, or fallback.")
    answer: dict[str, Any] = Field(description="The model type's answer.")


class Problem(BaseModel):
    """The reason why there is no answer."""

    detail: str = Field(description="What was wrong, and what to do.")


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (400, 401, 404, 408, 413, 422, 503)
}
OBJECT = {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}


def create(settings: Settings) -> FastAPI:
    """The application; its gateway lives from the server's start to its end."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        gateway = Gateway(settings)
        app.state.gateway = gateway
        await gateway.start()
        yield
        await gateway.stop()

    app = FastAPI(title="Kreislauf gateway", version="1", lifespan=lifespan, responses=PROBLEMS)
    app.add_api_route("/health", health, methods=["GET"])
    app.add_api_route("/ready", ready, methods=["GET"])
    app.add_api_route("/metrics", metrics, methods=["GET"], response_class=Response)
    app.add_api_route(
        "/v1/{model}/predict",
        predict,
        methods=["POST"],
        openapi_extra={"requestBody": OBJECT},
        response_model=Prediction,
    )
    app.add_api_route(
        "/v1/feedback",
        feedback,
        methods=["POST"],
        openapi_extra={"requestBody": OBJECT},
        status_code=204,
        response_class=Response,
    )
    app.add_exception_handler(Refusal, answer_refusal)
    app.add_exception_handler(RecursionError, answer_too_deep)
    app.add_middleware(Guard, token=settings.gateway_token)
    return app


class Guard:
    """Checks the token, and lets in no more requests at a time than there is memory for."""

    def __init__(self, app: Any, token: str):
        self.app = app
        self.token = token
        self.in_flight = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The application behind the guard, as ASGI calls it."""
        if scope["type"] != "http" or scope["path"] in OPEN:
            return await self.app(scope, receive, send)
        if not self.has_token(scope):
            response = problem(401, "Send the gateway's token: Authorization: Bearer ...")
            return await response(scope, receive, send)
        if self.in_flight >= IN_FLIGHT:
            response = problem(503, "Too many requests at a time. Come back in a second.")
            return await response(scope, receive, send)
        self.in_flight += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.in_flight -= 1

    def has_token(self, scope: Any) -> bool:
        """Whether the request has the token, or none is wanted."""
        if not self.token:
            return True
        header = dict(scope["headers"]).get(b"authorization", b"")
        return hmac.compare_digest(header, f"Bearer {self.token}".encode())


async def predict(model: str, request: Request) -> Response:
    """Answer one request of a model type.

    The body is the model type's raw JSON, and `user`, whom the answer is for (by default the
    `session`).
    """
    gateway: Gateway = request.app.state.gateway
    try:
        return JSONResponse(await gateway.predict(model, await read(request)))
    except Refusal as error:
        label = model if model in gateway.follower.models else "unknown"
        gateway.metrics.refused.labels(label, str(error.status)).inc()
        raise


async def feedback(request: Request) -> Response:
    """Take what somebody did with an answer.

    The body is `{"request_id", "model", "kind": "click" | "cart" | "order", "item"}`.
    """
    request.app.state.gateway.feedback(await read(request))
    return Response(status_code=204)


async def health() -> dict[str, str]:
    """Whether the process lives."""
    return {"status": "alive"}


async def ready(request: Request) -> Response:
    """Whether it can answer for every model type that is live.

    One that lost its champion later still answers, with fallbacks, and says so.
    """
    follower = request.app.state.gateway.follower
    problems = follower.ready()
    if problems:
        return problem(503, "; ".join(f"{model}: {why}" for model, why in problems.items()))
    fallbacks = follower.fallbacks()
    if fallbacks:
        return JSONResponse({"status": "fallbacks only", "models": fallbacks})
    return JSONResponse({"status": "ready"})


async def metrics(request: Request) -> Response:
    """All series, as Prometheus reads them."""
    registry = request.app.state.gateway.metrics.registry
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


async def read(request: Request) -> bytes:
    """The body, if it has at most BODY_BYTES and arrives within BODY_SECONDS. Raises Refusal."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > BODY_BYTES:
                    raise Refusal(413, f"The body is longer than {BODY_BYTES} bytes.")
    except TimeoutError as error:
        raise Refusal(408, f"The body did not arrive within {BODY_SECONDS:.0f} s.") from error
    return bytes(body)


async def answer_refusal(request: Request, error: Exception) -> Response:
    """A refusal as a response."""
    assert isinstance(error, Refusal)
    return problem(error.status, error.detail)


async def answer_too_deep(request: Request, error: Exception) -> Response:
    """A response to JSON that can be parsed, and is too deep for a model type or the spool."""
    return problem(422, "The JSON is nested too deeply.")


def problem(status: int, detail: str) -> Response:
    """An error as JSON; a 503 says when to come back."""
    response = JSONResponse({"detail": detail}, status)
    if status == 503:
        response.headers["Retry-After"] = "1"
    return response


def listen(settings: Settings, host: str, port: int) -> uvicorn.Config:
    """The server's configuration."""
    return uvicorn.Config(
        create(settings),
        host=host,
        port=port,
        access_log=False,
        timeout_graceful_shutdown=10,
        timeout_keep_alive=settings.keep_alive_s,
        server_header=False,
        http=Connection,
        h11_max_incomplete_event_size=HEAD_BYTES,
        ws="none",
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.app", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    arguments = parser.parse_args()
    gateway_settings = settings()
    try:
        gateway_secret.key(gateway_settings, request_ids.PURPOSE)
    except gateway_secret.SecretError as error:
        sys.exit(str(error))
    if not is_loopback(arguments.host) and not gateway_settings.gateway_token:
        sys.exit(
            f"{arguments.host} can be reached from outside: "
            "set KREISLAUF_GATEWAY_TOKEN, or bind to 127.0.0.1."
        )
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    uvicorn.Server(listen(gateway_settings, arguments.host, arguments.port)).run()


if __name__ == "__main__":
    main()
