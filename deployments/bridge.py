"""Alertmanager's webhook into Prefect's events: `python -m deployments.bridge`, on loopback.

An alert becomes the event that its label `event` names, `kreislauf.alert` by default. When it is
over, it becomes `kreislauf.alert.resolved`. The same alert sent again is the same event, by its id,
and is sent on once. If Prefect does not take an event, the answer is 503, and Alertmanager sends
it again. Prefect's server is the one of PREFECT_API_URL, else the local stack's.
KREISLAUF_BRIDGE_TOKEN must be set; Alertmanager brings it as `Authorization: Bearer ...`.
"""

import argparse
import hmac
import os
import sys
import uuid
from collections import OrderedDict
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import AwareDatetime, BaseModel

from deployments.environment import prefect_api_url
from kreislauf import events

MAX_REMEMBERED = 10_000
"""Maximum ids of sent events in memory."""
ALLOWED_EVENTS = {events.KPI_FELL, events.ALERT}
"""Events that an alert may name in its label."""


class Alert(BaseModel):
    """One alert of Alertmanager's webhook, version 4."""

    status: str
    labels: dict[str, str]
    annotations: dict[str, str] = {}
    startsAt: AwareDatetime
    endsAt: AwareDatetime
    fingerprint: str


class Webhook(BaseModel):
    """The body that Alertmanager posts."""

    alerts: list[Alert]


def as_event(alert: Alert) -> dict[str, Any]:
    """An alert as Prefect wants its events.

    A name that an alert must not send becomes `kreislauf.alert`.
    """
    if alert.status == "resolved":
        event = events.ALERT_RESOLVED
        occurred = alert.endsAt
    else:
        event = alert.labels.get("event", events.ALERT)
        occurred = alert.startsAt
        if event not in ALLOWED_EVENTS:
            event = events.ALERT
    model = alert.labels.get("model")
    title = alert.labels.get("alertname", "unnamed")
    resource = f"kreislauf.model.{model}" if model else f"kreislauf.alert.{title}"
    identity = f"{alert.fingerprint} {alert.startsAt.isoformat()} {event}"
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, identity)),
        "occurred": occurred.isoformat(),
        "event": event,
        "resource": {"prefect.resource.id": resource, "prefect.resource.name": model or title},
        "payload": {
            "model": model,
            "reason": alert.annotations.get("summary", title),
            "alert": title,
            "labels": alert.labels,
        },
    }


def create(token: str) -> FastAPI:
    """The bridge. Raises ValueError without a token."""
    if not token:
        raise ValueError("Set KREISLAUF_BRIDGE_TOKEN, and the same as Alertmanager's credentials.")
    app = FastAPI(title="Alertmanager to Prefect", docs_url=None, redoc_url=None, openapi_url=None)
    sent: OrderedDict[str, None] = OrderedDict()

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "alive"}

    @app.post("/alerts", status_code=204)
    async def alerts(webhook: Webhook, request: Request) -> None:
        header = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(header, f"Bearer {token}".encode()):
            raise HTTPException(401, "Send the bridge's token: Authorization: Bearer ...")
        incoming = {event["id"]: event for event in map(as_event, webhook.alerts)}
        new = {name: event for name, event in incoming.items() if name not in sent}
        if not new:
            return
        try:
            async with get_client() as client:
                response = await client.request("POST", "/events", json=list(new.values()))
                response.raise_for_status()
        except httpx.HTTPError as error:
            raise HTTPException(503, "Prefect did not take the events; send them again.") from error
        sent.update(dict.fromkeys(new))
        while len(sent) > MAX_REMEMBERED:
            sent.popitem(last=False)

    return app


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(
        prog="python -m deployments.bridge", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--port", type=int, default=8090)
    arguments = parser.parse_args()
    api = prefect_api_url()
    try:
        app = create(os.environ.get("KREISLAUF_BRIDGE_TOKEN", ""))
    except ValueError as error:
        sys.exit(str(error))
    with temporary_settings({PREFECT_API_URL: api}):
        uvicorn.run(app, host="127.0.0.1", port=arguments.port, access_log=False)


if __name__ == "__main__":
    main()
