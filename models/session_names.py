"""Names of sessions that are made of a user's events: the user, and when the session began.

`ada/2026-11-28T12:30:00.000Z` is the session of the user ada that began then.
"""

import re

import polars as pl

from models.table import Table

START = "/%Y-%m-%dT%H:%M:%S%.3fZ"
"""How a name ends, as a pattern of chrono; UTC."""
START_LENGTH = 25
"""Characters of that, for the years 1000 to 9999."""
ENDING = r"/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"
LONGEST_USER = 75
"""Most characters of a user: an id that is text, such as a session's name, has 100 at most."""


def name(user: pl.Expr, start: pl.Expr) -> pl.Expr:
    """The name of a session that begins at `start`, ms since 1970 UTC."""
    return user + pl.from_epoch(start, "ms").dt.strftime(START)


def user(session: pl.Expr) -> pl.Expr:
    """The user in a session's name; null for a session that was given, and not made."""
    return pl.when(session.str.contains(ENDING)).then(session.str.head(-START_LENGTH))


def user_of(session: str) -> str:
    """The user in a session's name; a session that was given is its own."""
    is_made = re.fullmatch(f".*{ENDING}", session, re.DOTALL)
    return session[:-START_LENGTH] if is_made else session


def fault(table: Table, column: str) -> str | None:
    """Why a table's column cannot hold sessions of users, in a sentence; None if it can."""
    if column != table.group or table.lasting:
        return (
            f"`columns.{column}` cannot have a `user`: only sessions are made by a gap of "
            "inactivity. Say `from`."
        )
    if table.dtypes[column] != pl.String:
        return (
            f"`columns.{column}` has a `user`, and sessions by gap have text names, which the "
            f"table {table.name} does not take: name `model: session_recommender_text`."
        )
    return None
