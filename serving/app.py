"""The gateway over HTTP: `python -m serving.app`, its API described at `/docs`.

The environment says where the models, Triton and the spool are (`kreislauf/settings.py`). Beyond
loopback it wants a token, which every request then has to bring as `Authorization: Bearer ...`;
`/health` and `/ready` need none.
"""

import argparse
import asyncio
import ipaddress
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from kreislauf import gateway_secret
from kreislauf.settings import Settings, settings
from models.mapped_requests import requests_of
from models.messages import AnyObject
from serving import description, lifecycle_page, request_ids
from serving.connections import Connection
from serving.gateway import Gateway
from serving.guard import Guard
from serving.messages import Health, Prediction, Problem, Readiness, problem
from serving.parsing import Refusal

HEAD_BYTES = 65_536
BODY_BYTES = 1_000_000
BODY_SECONDS = 10.0


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (400, 401, 404, 408, 413, 422, 503)
}
"""What a question or feedback may get instead of an answer."""
PAGE_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: PROBLEMS[status] for status in (401, 404, 503)
}
"""What a lifecycle page may be in the place of."""
SERIES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
    401: PROBLEMS[401],
    503: PROBLEMS[503],
}
"""What Prometheus may get."""


def create(settings: Settings) -> FastAPI:
    """The application; its gateway lives from the server's start to its end."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        gateway = Gateway(settings)
        app.state.gateway = gateway
        await gateway.start()
        yield
        await gateway.stop()

    app = FastAPIOffline(
        title="Kreislauf gateway",
        version="1",
        description="Answers of the live models, and what people did with them.",
        lifespan=lifespan,
        redoc_url=None,
        static_url=description.STATIC,
    )
    add_routes(app)

    @cache
    def describe() -> dict[str, Any]:
        models = app.state.gateway.follower.models.values()
        model_types = [state.model_type for state in models]
        return description.describe(app, model_types, bool(settings.gateway_token))

    app.openapi = describe  # type: ignore[method-assign]
    app.add_exception_handler(Refusal, answer_refusal)
    app.add_exception_handler(RecursionError, answer_too_deep)
    app.add_middleware(Guard, token=settings.gateway_token)
    return app


def add_routes(app: FastAPI) -> None:
    """What the gateway answers, each with what it takes and gives."""
    app.add_api_route("/health", health, methods=["GET"], response_model=Health)
    app.add_api_route(
        "/ready",
        ready,
        methods=["GET"],
        response_model=Readiness,
        responses={503: PROBLEMS[503]},
    )
    app.add_api_route(
        "/metrics", metrics, methods=["GET"], response_class=Response, responses=SERIES
    )
    app.add_api_route(
        description.PREDICT,
        predict,
        methods=["POST"],
        response_model=Prediction[AnyObject],
        responses=PROBLEMS,
    )
    app.add_api_route(
        description.FEEDBACK,
        feedback,
        methods=["POST"],
        status_code=204,
        response_class=Response,
        responses=PROBLEMS,
    )
    app.add_api_route(
        description.PAGE,
        lifecycle_page.show,
        methods=["GET"],
        response_class=HTMLResponse,
        responses=PAGE_PROBLEMS,
    )


async def predict(model: str, request: Request) -> Response:
    """Answer one request of a model type.

    Beside what the model type takes, `user` says whom the answer is for, by default `session`.
    """
    gateway: Gateway = request.app.state.gateway
    try:
        return JSONResponse(await gateway.predict(model, await read(request)))
    except Refusal as error:
        label = model if model in gateway.follower.models else "unknown"
        gateway.metrics.refused.labels(label, str(error.status)).inc()
        raise


async def feedback(request: Request) -> Response:
    """Take what somebody did with an answer."""
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
        requests_of(gateway_settings.mapping)
    except (gateway_secret.SecretError, ValueError) as error:
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
