"""Requests: JSON to the events of a session."""

from typing import Any

from models.fields import END_MS, FIRST_MS
from models.session_recommender.features import PADDING
from models.session_recommender.ids import ID_TYPES, Ids, IdType, is_natural
from models.session_recommender.schema import EVENT_TYPES

Event = tuple[int | str, int, int]
"""Article, kind and time (ms, or `PADDING`)."""


def events(i: int, request: dict, ids: Ids) -> list[Event]:
    """Events of request `i`. Raises ValueError that says what is wrong, and where."""
    listed = None
    if isinstance(request, dict):
        listed = request.get("events")
    if not isinstance(listed, list):
        raise ValueError(
            f'Request {i}: "events" must be a list. '
            'Send {"events": [{"aid": 123}]}, oldest first.'
        )
    return [_event(f"Request {i}: events[{j}]", event, ids) for j, event in enumerate(listed)]


def id_type(request: dict) -> IdType:
    """How the answer to a request with sound events writes its ids: as `ids` says, or else as the
    first event has its own. Raises ValueError for another word."""
    wanted = request.get("ids")
    if not isinstance(wanted, str | None) or wanted not in ID_TYPES:
        raise ValueError(f'"ids" is {wanted!r:.100}. Send "number" or "text", or leave it out.')
    if wanted is not None:
        return ID_TYPES[wanted]
    if not request["events"]:
        return None
    return str if isinstance(request["events"][0]["aid"], str) else int


def _event(field: str, event: Any, ids: Ids) -> Event:
    """One event, which errors call `field`."""
    if not isinstance(event, dict):
        event = {}
    article = ids.read(event.get("aid"))
    ts = event.get("ts")
    kind = event.get("type", EVENT_TYPES[0])
    if article is None:
        aid = event.get("aid")
        raise ValueError(f'{field}["aid"] is {aid!r:.300}. Send an article id, {ids.words}.')
    time = PADDING
    if ts is not None:
        if not is_natural(ts):
            raise ValueError(
                f'{field}["ts"] is {ts!r:.300}. Send ms since 1970, an integer, or leave it out.'
            )
        if not FIRST_MS <= ts < END_MS:
            raise ValueError(
                f'{field}["ts"] is {ts}, not in 2000 to 2099. Send ms since 1970, not seconds or '
                "microseconds."
            )
        time = ts
    if kind not in EVENT_TYPES:
        raise ValueError(f'{field}["type"] is {kind!r:.300}. Send one of {", ".join(EVENT_TYPES)}.')
    return article, EVENT_TYPES.index(kind), time
