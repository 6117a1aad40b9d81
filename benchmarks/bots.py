"""What a bot's session does to the quality that is measured and to what is learnt, with the limit
of events of a session and without.

`python -m benchmarks.bots --data FOLDER` (FOLDER with a `sessions.jsonl.gz`) fits the co-visitation
table on the first nine tenths of the sessions, and asks it for every prefix of the others. A bot
then begins where the last tenth begins, and another one in the middle of what is learnt: 20,000
events each, of articles drawn evenly. The last line is JSON:

- `longest`: events of the longest session of the file; `above_limit`: sessions above the limit.
- `people`: recall@20 of all prefixes without a bot.
- `judged_with_bot`, `learnt_with_bot`: the same with a bot among those that are asked, and with one
  among those that are learnt from. `_unlimited`: all of its events count.
"""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks import weeks
from kreislauf.evaluation import scoring
from models.session_recommender import SPEC, features

BOT_EVENTS = 20_000
"""Events of a bot."""
JUDGED_SHARE = 0.1
"""Share of the sessions, the newest, that are asked for."""


def bot(rows: pl.DataFrame, start: int, session: int) -> pl.DataFrame:
    """A session of `BOT_EVENTS` events, one a second from `start` (ms) on, as the rows are."""
    articles = rows["aid"].unique().sort()
    drawn = np.random.default_rng(session).integers(0, len(articles), BOT_EVENTS)
    events = {
        "session": np.full(BOT_EVENTS, session),
        "aid": articles.to_numpy()[drawn],
        "ts": start + 1_000 * np.arange(BOT_EVENTS),
        "type": ["clicks"] * BOT_EVENTS,
    }
    return pl.DataFrame(events, schema=rows.schema)


def recall(learnt: pl.DataFrame, judged: pl.DataFrame) -> float:
    """Mean recall@20 of a co-visitation table."""
    return float(scoring.baseline_scores(SPEC, learnt, SPEC.examples(judged)).mean())


@contextmanager
def unlimited() -> Iterator[None]:
    """All events of a session count."""
    limit = features.MAX_EVENTS
    features.MAX_EVENTS = BOT_EVENTS
    try:
        yield
    finally:
        features.MAX_EVENTS = limit


def measured(rows: pl.DataFrame) -> dict:
    """The last line."""
    starts = rows.group_by("session").agg(pl.col("ts").min(), events=pl.len())
    start = int(starts["ts"].quantile(1 - JUDGED_SHARE))  # type: ignore[arg-type]
    middle = int(starts["ts"].quantile((1 - JUDGED_SHARE) / 2))  # type: ignore[arg-type]
    newest = starts.filter(pl.col("ts") >= start)["session"]
    judged = rows.filter(pl.col("session").is_in(newest.implode()))
    learnt = rows.filter(~pl.col("session").is_in(newest.implode()))
    last = int(rows["session"].max())  # type: ignore[arg-type]
    with_bot = pl.concat([judged, bot(rows, start, last + 1)])
    taught_by_bot = pl.concat([learnt, bot(rows, middle, last + 2)])
    numbers = {
        "people": recall(learnt, judged),
        "judged_with_bot": recall(learnt, with_bot),
        "learnt_with_bot": recall(taught_by_bot, judged),
    }
    with unlimited():
        numbers["judged_with_bot_unlimited"] = recall(learnt, with_bot)
        numbers["learnt_with_bot_unlimited"] = recall(taught_by_bot, judged)
    return {
        "longest": int(starts["events"].max()),  # type: ignore[arg-type]
        "above_limit": int((starts["events"] > features.MAX_EVENTS).sum()),
        **{name: round(value, 4) for name, value in numbers.items()},
    }


def main() -> None:
    """Parse the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    print(json.dumps(measured(weeks.load(parser.parse_args().data, SPEC))))


if __name__ == "__main__":
    main()
