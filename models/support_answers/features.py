"""Rows of `questions` to texts, labels, and what is watched. numpy and Polars only."""

import numpy as np
import polars as pl

from models import text
from models.support_answers.schema import OUT_OF_SCOPE

MAX_WORDS = 20_000
"""Most words that a version remembers, the most frequent ones."""
WORD = r"[\p{L}\p{N}]+"
"""Pattern of a word."""
OTHER_SCRIPT = r"[^\p{Latin}\P{L}]"
"""Pattern of a letter that the model cannot read."""


def with_answer(rows: pl.DataFrame) -> pl.DataFrame:
    """The questions that a known answer fits, sorted by question."""
    return rows.filter(pl.col("intent") != OUT_OF_SCOPE).sort("question", "ts")


def texts(rows: pl.DataFrame) -> np.ndarray:
    """Questions as the ONNX file takes them: str objects (n, 1)."""
    return text.column(rows["text"])[:, None]


def words() -> pl.Expr:
    """The words of each question in lower case: list of text."""
    return pl.col("text").str.to_lowercase().str.extract_all(WORD)


def length_in_words() -> pl.Expr:
    """Number of words of each question."""
    return pl.col("text").str.count_matches(WORD)


def profile(rows: pl.LazyFrame) -> pl.LazyFrame:
    """How often training saw each intent, and each of the `MAX_WORDS` most frequent words.

    Columns: kind (intent or word), value, seen; sorted.
    """
    intents = rows.group_by(value="intent").agg(seen=pl.len()).sort("value")
    each = rows.select(value=words()).explode("value").drop_nulls()
    counts = each.group_by("value").agg(seen=pl.len())
    frequent = counts.sort("seen", "value", descending=[True, False]).head(MAX_WORDS)
    kinds = {"intent": intents, "word": frequent.sort("value")}
    return pl.concat(
        [part.select(pl.lit(kind).alias("kind"), "value", "seen") for kind, part in kinds.items()]
    )


def seen(profile: pl.DataFrame, kind: str) -> pl.DataFrame:
    """Columns value and seen of the profile's intents or words."""
    return profile.filter(pl.col("kind") == kind).drop("kind")


def monitored(rows: pl.LazyFrame, profile: pl.DataFrame) -> pl.LazyFrame:
    """Numbers of each question; see `SupportAnswers.monitored`."""
    known_words = seen(profile, "word")["value"]
    known_intents = seen(profile, "intent")["value"]
    is_known = words().list.eval(pl.element().is_in(known_words.implode()).cast(pl.Float64))
    return rows.select(
        log_words=length_in_words().log1p(),
        unseen_words=1 - is_known.list.mean().fill_null(1.0),
        other_script=pl.col("text").str.contains(OTHER_SCRIPT),
        unseen_intent=~pl.col("intent").is_in(known_intents.implode()),
        out_of_scope=pl.col("intent") == OUT_OF_SCOPE,
    )
