"""The evaluation: by hand, against slow loops, and against OTTO's published evaluation on OTTO's
sample."""

import math
import os
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import otto_protocol
from models.session_recommender import SPEC
from models.session_recommender.features import DAY_MS, LENGTH, PADDING
from models.session_recommender.metrics import coverage, mrr, recall, slices
from models.session_recommender.schema import EVENT_TYPES
from tests.models.test_otto_protocol import SEED, WHOLE, cut_sessions, pieces

SAMPLE = (
    Path(os.environ.get("KREISLAUF_DATA", Path(__file__).parents[3] / "shared/data"))
    / "otto-sample/sessions.jsonl"
)
T0 = 1_700_000_000_000
NOTHING = np.zeros((0, LENGTH), np.int64), np.zeros(0, np.int64)


def frame(*rows: tuple[int, int, int, str]) -> pl.DataFrame:
    """Rows (session, aid, ms since T0, type)."""
    made = pl.DataFrame(
        rows, ["session", "aid", "ts", "type"], orient="row", schema_overrides={"ts": pl.Int64}
    )
    kinds = {"session": pl.Int64, "aid": pl.Int64, "type": pl.Enum(EVENT_TYPES)}
    return made.with_columns(pl.col("ts") + T0).cast(kinds)


def trained(counts: dict[int, int]) -> pl.DataFrame:
    """Training rows in which each article has so many events."""
    return frame(*((0, aid, 0, "clicks") for aid, count in counts.items() for _ in range(count)))


def test_recall_and_mrr_by_hand():
    answers = np.array(
        [[5, 6, 7, 8], [5, 6, 7, 8], [5, 6, 7, 8], [6, 5, 5, PADDING], [PADDING] * 4]
    )
    labels = np.array([5, 7, 9, 5, 5])
    assert recall(answers, labels).tolist() == [1, 1, 0, 1, 0]
    assert mrr(answers, labels) == pytest.approx([1, 1 / 3, 0, 1 / 2, 0])
    assert recall(answers, labels, k=2).tolist() == [1, 0, 0, 1, 0]
    assert mrr(answers, labels, k=2) == pytest.approx([1, 0, 0, 1 / 2, 0])
    assert (
        recall(answers, labels, k=1).tolist()
        == mrr(answers, labels, k=1).tolist()
        == [1, 0, 0, 0, 0]
    )
    assert recall(answers, labels).dtype == mrr(answers, labels).dtype == np.float64


def test_only_20_answers_count_unless_said_otherwise():
    answers, labels = np.arange(30)[None].repeat(2, 0), np.array([19, 20])
    assert recall(answers, labels).tolist() == [1, 0]
    assert mrr(answers, labels) == pytest.approx([1 / 20, 0])
    assert recall(answers, labels, k=30).tolist() == [1, 1]
    assert coverage(answers, 40) == 20 / 40


def test_padding_hits_nothing():
    answers = np.array([[1, PADDING], [PADDING, PADDING]])
    labels = np.array([PADDING, PADDING])
    assert recall(answers, labels).tolist() == mrr(answers, labels).tolist() == [0, 0]
    assert coverage(answers, 4) == 1 / 4
    assert coverage(answers[1:], 4) == 0


def slow_rank(answers: list[int], label: int, k: int) -> int | None:
    for rank, answer in enumerate(answers[:k], 1):
        if answer == label != -1:
            return rank
    return None


aids = st.integers(-1, 8)
examples = st.lists(st.tuples(st.lists(aids, min_size=5, max_size=5), aids), max_size=8)


@given(examples, st.integers(1, 6))
@settings(max_examples=200, deadline=None, database=None)
def test_numbers_equal_a_slow_loop(examples, k):
    answers = np.array([answer for answer, _ in examples], np.int64).reshape(-1, 5)
    labels = np.array([label for _, label in examples], np.int64)
    ranks = [slow_rank(answer, label, k) for answer, label in examples]
    assert recall(answers, labels, k).tolist() == [float(rank is not None) for rank in ranks]
    assert mrr(answers, labels, k).tolist() == [1 / rank if rank else 0 for rank in ranks]
    shown = {a for answer, _ in examples for a in answer[:k]} - {-1}
    assert coverage(answers, 9, k) == len(shown) / 9


def test_no_examples():
    rows = trained({1: 2})
    assert recall(*NOTHING).shape == mrr(*NOTHING).shape == (0,)
    assert coverage(NOTHING[0], 3) == 0
    kinds = slices(rows.clear(), rows)
    assert kinds.shape == (0, 4)
    assert slices(rows, rows.clear()).shape == (1, 4), (
        "an article twice in a session, so one example"
    )
    assert slices(rows.head(1), rows).shape == (0, 4)
    assert kinds.schema == slices(rows, rows).schema


ONE = np.array([[1, 2]]), np.array([1])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: recall(*ONE, k=0), "k is 0: at least one"),
        (lambda: mrr(*ONE, k=-1), "k is -1"),
        (lambda: coverage(ONE[0], 5, k=0), "k is 0"),
        (lambda: recall(ONE[0], np.array([1, 2])), "1 rows of answers for 2 labels"),
        (lambda: mrr(ONE[0], np.array([1, 2])), "1 rows of answers for 2 labels"),
        (lambda: coverage(ONE[0], 1), "answers hold 2 articles and the catalogue 1: count"),
        (lambda: coverage(NOTHING[0], 0), "answers hold 0 articles and the catalogue 0"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_slices_by_hand():
    day = DAY_MS
    history = frame(
        (90, 1, 0, "clicks"),
        (91, 1, 3 * day, "clicks"),
        (92, 2, day + 1, "clicks"),
        (93, 9, 99 * day, "clicks"),
    )
    rows = frame(
        *((7, aid, day, "clicks") for aid in range(20, 31)),
        (7, 20, day + 1, "orders"),
        (3, 5, 0, "clicks"),
        (3, 1, day - 1, "carts"),
        (3, 1, day, "orders"),
        (3, 1, 7 * day - 1, "clicks"),
        (3, 1, 7 * day, "clicks"),
        (3, 2, day * 31, "clicks"),
        (3, 2, day * 31 + 1, "clicks"),
        (3, 9, day * 98, "clicks"),
        (5, 4, 0, "clicks"),
    )
    by = slices(rows.sample(fraction=1, shuffle=True, seed=1), history)
    assert by.columns == ["session_length", "article_age_days", "repeat", "event_type"]
    assert by.rows() == [
        ("1", "<1", "new", "carts"),
        ("2", "1-7", "repeat", "orders"),
        ("3-5", "1-7", "repeat", "clicks"),
        ("3-5", "7-30", "repeat", "clicks"),
        ("3-5", "7-30", "new", "clicks"),
        ("6-10", ">=30", "repeat", "clicks"),
        ("6-10", "unseen", "new", "clicks"),
        *((n, "unseen", "new", "clicks") for n in ("1", "2", "3-5", "3-5", "3-5", *["6-10"] * 5)),
        (">10", "unseen", "repeat", "orders"),
    ]


def slow_slices(rows: list[tuple], first: dict[int, int]) -> list[tuple]:
    """`first` has the time of each known article's first event in training."""
    result = []
    seen: dict[int, list[int]] = {}
    for session, aid, ts, kind in sorted(
        rows, key=lambda row: (row[0], row[2], row[1], EVENT_TYPES.index(row[3]))
    ):
        before = seen.setdefault(session, [])
        if before:
            n, days = len(before), (ts - first.get(aid, math.inf)) / DAY_MS
            length = (
                "1"
                if n == 1
                else "2"
                if n == 2
                else "3-5"
                if n < 6
                else "6-10"
                if n < 11
                else ">10"
            )
            late = "<1" if days < 1 else "1-7" if days < 7 else "7-30" if days < 30 else ">=30"
            result.append(
                (length, "unseen" if days < 0 else late, "repeat" if aid in before else "new", kind)
            )
        before.append(aid)
    return result


def first_seen(history: pl.DataFrame) -> dict[int, int]:
    result: dict[int, int] = {}
    for _, aid, ts, _ in history.rows():
        result[aid] = min(ts, result.get(aid, ts))
    return result


steps = st.sampled_from(
    [0, 1, DAY_MS - 1, DAY_MS, DAY_MS + 1, 7 * DAY_MS, 29 * DAY_MS, 30 * DAY_MS]
)
events = st.tuples(st.integers(0, 1), st.integers(0, 5), steps, st.sampled_from(EVENT_TYPES))


@given(st.lists(events, max_size=30), st.lists(events, max_size=5), st.booleans())
@settings(max_examples=200, deadline=None, database=None)
def test_slices_equal_a_slow_loop_in_the_order_of_the_examples(rows, history, text):
    kind = pl.String if text else pl.Enum(EVENT_TYPES)
    made, trained_on = (frame(*events).cast({"type": kind}) for events in (rows, history))
    by, examples = slices(made, trained_on), SPEC.examples(made)
    assert by.rows() == slow_slices(made.rows(), first_seen(trained_on))
    assert by.height == len(examples)
    # A short prefix is in the inputs as a whole, and there the label is looked for once more.
    again = (examples.inputs["article_ids"] == examples.labels[:, None]).any(1)
    short = (examples.inputs["article_ids"] == PADDING).any(1)
    assert ((by["repeat"] == "repeat").to_numpy() == again)[short].all()


def test_a_repeat_may_be_older_than_what_the_model_looks_at():
    rows = frame(*((0, aid, aid, "clicks") for aid in range(LENGTH + 1)), (0, 0, 99, "clicks"))
    assert 0 not in SPEC.examples(rows).inputs["article_ids"][-1]
    assert slices(rows, rows)["repeat"].to_list() == [*["new"] * LENGTH, "repeat"]


def lines_run(call) -> int:
    """Lines of Python, of ours and of libraries, that a call runs."""
    count = 0

    def trace(_frame, event, _argument):
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def test_200_000_examples_take_no_loop_and_equal_one_on_a_sample():
    rng = np.random.default_rng(0)
    n = 250_000
    times = T0 + rng.integers(0, 60 * DAY_MS, n)
    kinds = pl.Series(rng.choice(EVENT_TYPES, n), dtype=pl.Enum(EVENT_TYPES))
    columns = {
        "session": rng.integers(0, 40_000, n),
        "aid": rng.integers(0, 900, n),
        "ts": times,
        "type": kinds,
    }
    rows = pl.DataFrame(columns).with_columns(pl.col("aid") + 100 * (pl.col("session") % 3))
    history = rows.filter(pl.col("ts") < T0 + 20 * DAY_MS, pl.col("aid") < 1000)
    labels = SPEC.examples(rows).labels
    answers = rng.integers(-1, 1000, (len(labels), LENGTH))
    assert len(labels) >= 200_000

    results = []
    lines = lines_run(
        lambda: results.extend(
            [slices(rows, history), recall(answers, labels), mrr(answers, labels)]
        )
    )
    assert lines < len(labels) / 20, "a loop over the examples runs a line for each of them"

    by, hits, gains = results
    sample = rng.choice(len(labels), 2000, replace=False)
    ranks = [slow_rank(answers[i].tolist(), labels[i], 20) for i in sample]
    assert hits[sample].tolist() == [float(rank is not None) for rank in ranks]
    assert gains[sample].tolist() == [1 / rank if rank else 0 for rank in ranks]
    some = slow_slices(rows.filter(pl.col("session") < 1000).rows(), first_seen(history))
    assert len(some) > 4000
    assert by.head(len(some)).rows() == some
    assert {len(set(values)) for values in zip(*some, strict=True)} == {2, 3, 5}, (
        "every bucket occurs"
    )


@pytest.fixture(scope="module")
def real() -> dict[str, pl.DataFrame]:
    """OTTO's sample, and its pieces, in which test sessions have carts and orders."""
    if not SAMPLE.exists():
        pytest.skip(f"needs OTTO's sample at {SAMPLE} (KREISLAUF_DATA)")
    rows = (
        pl.read_ndjson(SAMPLE)
        .explode("events")
        .unnest("events")
        .select("session", "aid", "ts", "type")
    )
    return {"sample": rows, "pieces": pieces(rows)}


def newest_first(prefixes: list[list[int]]) -> np.ndarray:
    """The different articles of each prefix, newest first: int64 (n, 20), then padding."""
    lists = [[*dict.fromkeys(reversed(prefix))][:LENGTH] for prefix in prefixes]
    return np.array([answers + [PADDING] * (LENGTH - len(answers)) for answers in lists])


def predictions(keys: pl.DataFrame, answers: np.ndarray) -> pl.DataFrame:
    """The same answers for clicks, carts and orders, as `otto_protocol.recall` takes them."""
    lists = pl.Series(
        [[aid for aid in each if aid != PADDING] for each in answers.tolist()],
        dtype=pl.List(pl.Int64),
    )
    return keys.select(*otto_protocol.PREFIX, **dict.fromkeys(EVENT_TYPES, lists))


@pytest.mark.parametrize("name", WHOLE)
def test_recall_of_clicks_is_what_otto_s_evaluation_says(real, name):
    """Of the newest articles of each cut session."""
    cut, labels = cut_sessions(real[name], SEED)
    sessions = cut.group_by("session").agg("aid")
    prefixes = labels.join(sessions, on="session", maintain_order="left")["aid"]
    answers = newest_first(prefixes.to_list())
    published = WHOLE[name][2]["clicks"]
    hits = recall(answers, labels["clicks"].to_numpy())
    assert hits.mean() == pytest.approx(published, rel=1e-12)
    theirs = otto_protocol.recall(labels, predictions(labels, answers))
    assert theirs["clicks"] == pytest.approx(published)


@pytest.mark.parametrize("name", WHOLE)
def test_clicks_after_every_prefix_agree_with_otto_s_protocol(real, name):
    """In the lake's order. Some prefixes have no next click; where the next event is one, it is the
    examples' label."""
    rows = real[name].cast({"type": pl.Enum(EVENT_TYPES)}).sort("session", "ts", "aid", "type")
    rows = rows.filter(pl.col("aid") != 0)  # which OTTO's code takes for no label
    examples, theirs, by = SPEC.examples(rows), otto_protocol.labels(rows), slices(rows, rows)
    answers = newest_first(
        [[aid for aid in ids if aid != PADDING] for ids in examples.inputs["article_ids"].tolist()]
    )
    given = predictions(theirs, answers)

    clicks = theirs["clicks"].fill_null(PADDING).to_numpy()
    has_click = clicks != PADDING
    hits = recall(answers, clicks)
    assert 0 < has_click.sum() < len(has_click)
    assert (answers[~has_click] == PADDING).any()
    assert not hits[~has_click].any()
    assert hits[has_click].mean() == pytest.approx(
        otto_protocol.recall(theirs, given)["clicks"], rel=1e-12
    )

    follows = (by["event_type"] == "clicks").to_numpy()
    assert clicks[follows].tolist() == examples.labels[follows].tolist()
    own = recall(answers, examples.labels)[follows].mean()
    theirs_of_these = otto_protocol.recall(theirs.filter(follows), given)
    assert own == pytest.approx(theirs_of_these["clicks"], rel=1e-12)
    ranks = [
        slow_rank(a, label, 20)
        for a, label in zip(answers[follows].tolist(), clicks[follows], strict=True)
    ]
    own_mrr = mrr(answers, examples.labels)[follows].mean()
    assert own_mrr == pytest.approx(sum(1 / rank for rank in ranks if rank) / len(ranks), rel=1e-12)
    assert 0 < own_mrr < own < 1
