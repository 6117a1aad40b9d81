"""What people did with the answers they were shown: clicks per answer, over time and by variant."""

import json
import logging
from collections.abc import Sequence

import numpy as np
import polars as pl

from kreislauf import exposures, gateway_secret, lake
from kreislauf.batch import answers
from kreislauf.batch.batch import Batch
from kreislauf.clock import DAY_MS
from kreislauf.evaluation.intervals import Interval, interval
from kreislauf.exposures import KINDS, MATURITY_MS
from kreislauf.lake import storage
from kreislauf.monitoring.limits import Measured
from kreislauf.settings import settings
from models import session_names
from models.spec import Examples

HISTORY_DAYS = 28
"""Days before a window from which the usual clicks per answer are learnt."""
MIN_ANSWERS = 100
"""Fewest answers of a day that counts as history."""
SAMPLE = 50_000
"""Answers, about, of whole users, that are joined with their feedback."""
BATCH = "batch"
"""Variant of answers that were given in batches."""
SHOWN = ("request_id", "ts", "user", "version", pl.col("variant").cast(pl.String))
"""Columns of an answer that may be joined with feedback."""
VariantClicks = tuple[int, str, int, Interval]
"""Version, variant, number of answers, and clicks per answer with the confidence interval."""
log = logging.getLogger(__name__)


def reactions(model: str, start: int, end: int, history_days: int = HISTORY_DAYS) -> pl.DataFrame:
    """Reactions to answers of the model until `end` (ms), and in `history_days` before `start`
    (ms), as `join_feedback` gives them; empty without answers or feedback.

    Answers of a batch count, as the variant `BATCH`, once feedback names one of them: those that
    nobody was shown would look as if nobody liked them.
    """
    newest_feedback = lake.watermark(exposures.FEEDBACK)
    if newest_feedback is None:
        return pl.DataFrame()
    first = start - history_days * DAY_MS
    of_model = pl.col("model") == model
    shown = []
    with lake.reading(exposures.FEEDBACK), storage.answering(answers.ANSWERS):
        feedback = lake.scan(exposures.FEEDBACK, start=first).filter(of_model)
        newest_exposure = lake.watermark(exposures.EXPOSURES)
        if newest_exposure is not None:
            last = min(end, min(newest_exposure, newest_feedback) - MATURITY_MS)
            exposed = lake.scan(exposures.EXPOSURES, start=first, end=last + 1)
            shown.append(exposed.filter(of_model).select(SHOWN))
        last = min(end, newest_feedback - MATURITY_MS)
        answered = answers.scan(of_model, pl.col("ts").is_between(first, last))
        if answered is not None:
            shown.append(of_batches(answered, feedback))
        if not shown:
            return pl.DataFrame()
        return join_feedback(pl.concat(shown), feedback)


def of_batches(answered: pl.LazyFrame, feedback: pl.LazyFrame) -> pl.LazyFrame:
    """Rows of the table `answers` as those of exposures, of batches that feedback names."""
    named = answered.join(feedback, on="request_id", how="semi").select(answers.BATCH).unique()
    rows = answered.filter(pl.col("answer").is_not_null())
    rows = rows.join(named, on=answers.BATCH, how="semi")
    return rows.with_columns(user=pl.lit(""), variant=pl.lit(BATCH)).select(SHOWN)


def clicks_by_batch(batches: Sequence[Batch]) -> dict[str, float]:
    """Clicks per answer of some batches, by their names, of those that feedback names and whose
    answers are older than `MATURITY_MS`."""
    newest_feedback = lake.watermark(exposures.FEEDBACK)
    if newest_feedback is None:
        return {}
    starts = {b.name: b.ts for b in batches if b.ts <= newest_feedback - MATURITY_MS}
    given = answers.scan(pl.col(answers.BATCH).is_in(list(starts)), pl.col("refusal").is_null())
    if not starts or given is None:
        return {}
    with lake.reading(exposures.FEEDBACK), storage.answering(answers.ANSWERS):
        feedback = lake.scan(exposures.FEEDBACK, start=min(starts.values()))
        by_request = feedback.group_by("request_id").agg(click=(pl.col("kind") == "click").any())
        joined = given.join(by_request, on="request_id", how="left").group_by(answers.BATCH)
        rates = joined.agg(pl.col("click").count(), rate=pl.col("click").fill_null(False).mean())
        named = rates.filter(pl.col("click") > 0).select(answers.BATCH, "rate")
        return dict(named.collect(engine="streaming").iter_rows())


def join_feedback(shown: pl.LazyFrame, feedback: pl.LazyFrame) -> pl.DataFrame:
    """Rows of exposures with their feedback, joined by request id: columns ts, user, version,
    variant, and whether there was a `click`, `cart` or `order`.

    Of more than `SAMPLE` answers, those of users drawn by their hash. An answer without a user is a
    user of its own, whose name is the request id: hashed by an empty name, all or none were drawn.
    """
    count = shown.select(pl.len()).collect(engine="streaming").item()
    sampled_share = max(1, round(count / SAMPLE))
    anonymous = pl.col("user") == ""
    user = pl.when(anonymous).then("request_id").otherwise("user").alias("user")
    drawn = shown.with_columns(user).filter(pl.col("user").hash(0) % sampled_share == 0)
    columns = drawn.select(SHOWN)
    kinds = [(pl.col("kind") == kind).any().alias(kind) for kind in KINDS]
    by_request = feedback.group_by("request_id").agg(kinds)
    joined = columns.join(by_request, on="request_id", how="left")
    without_nulls = joined.with_columns(pl.col(KINDS).fill_null(False))
    return without_nulls.drop("request_id").collect(engine="streaming")


def clicks_per_answer(reactions: pl.DataFrame, version: int, start: int) -> dict[str, Measured]:
    """The signal `clicks`: clicks per answer of the champion `version` since `start` (ms), or of
    its batches, if it is asked in no other way.

    Its history is that of all champions on each day before that had `MIN_ANSWERS`. Nothing without
    any answer. `reactions` are from `join_feedback`.
    """
    if reactions.is_empty():
        return {}
    champion = reactions.filter(pl.col("variant") == "champion")
    if champion.is_empty():
        champion = reactions.filter(pl.col("variant") == BATCH)
    newest = champion.filter(pl.col("ts") >= start, pl.col("version") == version)
    rate = newest["click"].mean()
    if rate is None:
        return {}
    days = (
        champion.filter(pl.col("ts") < start)
        .group_by(pl.col("ts") // DAY_MS)
        .agg(pl.len(), pl.col("click").mean())
    )
    history = days.filter(pl.col("len") >= MIN_ANSWERS)["click"].to_list()
    return {"clicks": Measured(value=float(rate), history=history)}  # type: ignore[arg-type]


def clicks_by_variant(reactions: pl.DataFrame, start: int) -> list[VariantClicks]:
    """Version, variant, number of answers, and clicks per answer since `start` (ms) with its
    confidence interval over users; `reactions` are from `join_feedback`."""
    if reactions.is_empty():
        return []
    rows = []
    ordered = reactions.filter(pl.col("ts") >= start).sort("version", "variant")
    for (version, variant), shown in ordered.group_by("version", "variant", maintain_order=True):
        _, users = np.unique(shown["user"].to_numpy(), return_inverse=True)
        clicks = shown["click"].cast(pl.Float64).to_numpy()
        rows.append((version, variant, shown.height, interval(clicks, users, 0.95)))
    return rows


def clicked(model: str, examples: Examples, start: int, end: int) -> np.ndarray | None:
    """Whether each right answer, from `start` to `end` (ms), was an item that its group took from
    an answer that it was shown, bool (n,); None if no group is known to have taken any.

    The gateway's user must be the group, as where requests have no field `user`; or the user of the
    group, where sessions are made of users.
    """
    if not lake.watermark(exposures.EXPOSURES) or not lake.watermark(exposures.FEEDBACK):
        return None
    of_model = pl.col("model") == model
    with lake.reading(exposures.EXPOSURES):
        shown = lake.scan(exposures.EXPOSURES, start=start, end=end + 1).filter(of_model)
        taken = lake.scan(exposures.FEEDBACK, start=start, end=end + MATURITY_MS).filter(of_model)
        joined = shown.select("request_id", "user").join(
            taken.select("request_id", "item"), on="request_id"
        )
        pairs = joined.select("user", "item").unique().collect(engine="streaming").rows()
    if not pairs:
        return None
    key = gateway_secret.key(settings(), exposures.PSEUDONYMS)
    warn_of_foreign_names([user for user, _ in pairs], exposures.key_mark(key))
    return among(examples, set(pairs), key)


def warn_of_foreign_names(users: list[str], mark: str) -> None:
    """Log how many of the pseudonyms have the mark of another key: they are those of no group."""
    foreign = sum("-" in user and not user.startswith(f"{mark}-") for user in users)
    if foreign:
        log.warning(
            "%d of %d items were taken by users whose pseudonyms another secret of the gateway "
            "made; they count as if nobody had been shown them. Give this worker the gateway's "
            "KREISLAUF_GATEWAY_SECRET, unless it was changed.",
            foreign,
            len(users),
        )


def among(examples: Examples, taken: set[tuple[str, str]], key: bytes) -> np.ndarray | None:
    """Whether the group of each example took its right answer, bool (n,); None if none did.

    `taken` has the pseudonym, made with `key` or before there were keys, and the item as JSON.
    """
    groups = examples.groups.tolist()
    names = {group: _pseudonyms(str(group), key) for group in set(groups)}
    pairs = zip(groups, map(json.dumps, examples.labels.tolist()), strict=True)
    is_taken = np.fromiter(
        (any((name, item) in taken for name in names[group]) for group, item in pairs),
        bool,
        len(groups),
    )
    if not is_taken.any():
        return None
    return is_taken


def _pseudonyms(group: str, key: bytes) -> set[str]:
    """What a group, and the user of which it is a session, may be called in the exposures."""
    users = {group, session_names.user_of(group)}
    keyed = {exposures.pseudonym(user, key) for user in users}
    return keyed | {exposures.unkeyed_pseudonym(user) for user in users}
