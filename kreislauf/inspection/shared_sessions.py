"""Session ids that several users have, as numbers that count the sessions of each user."""

from dataclasses import replace

import polars as pl

from kreislauf.inspection import names, roles
from kreislauf.inspection.roles import Reading, Role
from kreislauf.inspection.traits import PLACEHOLDERS, Traits

MIN_SHARE = 0.1
"""Share of the sessions with several users from which it is asked what a session is."""
GAP_MINUTES = 30
NOBODY = ("", "0", "-1", "guest", "anonymous", *PLACEHOLDERS)
"""Users that are none, in small letters."""
MODEL_HINT = (
    "Better say `user` and `gap_minutes`, as docs/data.md shows, with "
    "`model: session_recommender_text`."
)


def asked(session: Role, columns: list[Traits], can_be_made: bool) -> Role:
    """The session's role, with a doubt if its values have several users each, and with sessions by
    user and gap to choose, if most likely they are meant.

    `can_be_made` tells whether the model type takes sessions by user and gap.
    """
    ids = [t for t in columns if t.name in session.sources and t.plain not in names.USERS]
    users = [t for t in columns if t.plain in names.USERS and not t.is_empty]
    if session.is_open or not ids or not users:
        return session
    counts = {user.name: _shared(ids[0], user) for user in roles.fullest(users)}
    # Sessions that are all of a single user in one of the columns are sound.
    name = min(counts, key=lambda user: counts[user][0])
    shared, of_all = counts[name]
    if not shared:
        return session
    doubt = f"{shared:,} of {of_all:,} values of {ids[0].name} have several users in {name}."
    if shared < MIN_SHARE * of_all:
        return replace(session, doubts=[*session.doubts, doubt])
    doubt += " It seems to count the sessions of each user anew."
    if not can_be_made:
        return replace(session, doubts=[*session.doubts, f"{doubt} {MODEL_HINT}"])
    by_gap = {"user": name, "gap_minutes": GAP_MINUTES}
    choice = "Take one of them; sessions by user and gap need the `model` above:"
    return replace(
        session,
        readings=[Reading(by_gap, by_gap, {}), *session.readings],
        doubts=[*session.doubts, doubt, choice],
    )


def _shared(session: Traits, user: Traits) -> tuple[int, int]:
    """Number of sessions with several users, and of those with several rows."""
    rows = pl.DataFrame({"session": session.texts, "user": user.texts.str.strip_chars()})
    rows = rows.drop_nulls().filter(~pl.col("user").str.to_lowercase().is_in(NOBODY))
    sizes = rows.group_by("session").agg(rows=pl.len(), users=pl.col("user").n_unique())
    return sizes.filter(pl.col("users") > 1).height, sizes.filter(pl.col("rows") > 1).height
