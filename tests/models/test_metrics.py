"""The evaluation: by hand, against slow loops, and against OTTO's published evaluation on OTTO's
sample."""

import math
import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import otto_protocol
from models.session_recommender import SPEC
from models.session_recommender.features import DAY_MS, LENGTH, PADDING
from models.session_recommender.metrics import (
    coverage,
    evaluate,
    mrr,
    popularity_bias,
    recall,
    slices,
)
from models.session_recommender.schema import EVENT_TYPES
from tests.models.test_otto_protocol import SEED, WHOLE, pieces

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
    assert popularity_bias(answers, labels, trained({19: 3, 20: 5, 25: 7})) == pytest.approx(
        (3 / 20) / 4
    )


def test_padding_hits_nothing():
    answers = np.array([[1, PADDING], [PADDING, PADDING]])
    labels = np.array([PADDING, PADDING])
    assert recall(answers, labels).tolist() == mrr(answers, labels).tolist() == [0, 0]
    assert coverage(answers, 4) == 1 / 4
    assert coverage(answers[1:], 4) == 0
    assert math.isnan(popularity_bias(answers, labels, trained({1: 5})))


def test_popularity_bias_by_hand():
    rows = trained({1: 6, 2: 3, 3: 1})
    answers = np.array([[1, 2], [1, PADDING]])
    assert popularity_bias(answers, np.array([2, 2]), rows) == pytest.approx(5 / 3)
    assert popularity_bias(answers, np.array([2, PADDING]), rows) == pytest.approx(5 / 3)
    assert popularity_bias(answers, np.array([2, 99]), rows) == pytest.approx(5 / 1.5)
    assert popularity_bias(answers, np.array([2, 2]), rows, k=1) == pytest.approx(6 / 3)
    assert popularity_bias(np.array([[1], [2]]), np.array([2, 1]), rows) == 1
    assert popularity_bias(np.array([[99], [98]]), np.array([2, 1]), rows) == 0
    assert math.isnan(popularity_bias(answers, np.array([98, 99]), rows)), "training saw no label"
    assert math.isnan(popularity_bias(answers[:, :0], np.array([2, 2]), rows)), "no answer"
    assert math.isnan(popularity_bias(answers, np.array([2, 2]), rows.clear()))


def slow_rank(answers: list[int], label: int, k: int) -> int | None:
    for rank, answer in enumerate(answers[:k], 1):
        if answer == label != -1:
            return rank
    return None


def slow_bias(answers: list[list[int]], labels: list[int], counts: dict[int, int], k: int) -> float:
    shown = [counts.get(answer, 0) for each in answers for answer in each[:k] if answer != -1]
    chosen = [counts.get(label, 0) for label in labels if label != -1]
    return (
        (sum(shown) / len(shown)) / (sum(chosen) / len(chosen))
        if shown and any(chosen)
        else math.nan
    )


aids = st.integers(-1, 8)
counts = st.dictionaries(st.integers(0, 8), st.integers(1, 5))
examples = st.lists(st.tuples(st.lists(aids, min_size=5, max_size=5), aids), max_size=8)


@given(examples, counts, st.integers(1, 6))
@settings(max_examples=200, deadline=None, database=None)
def test_numbers_equal_a_slow_loop(examples, counts, k):
    answers = np.array([answer for answer, _ in examples], np.int64).reshape(-1, 5)
    labels = np.array([label for _, label in examples], np.int64)
    ranks = [slow_rank(answer, label, k) for answer, label in examples]
    assert recall(answers, labels, k).tolist() == [float(rank is not None) for rank in ranks]
    assert mrr(answers, labels, k).tolist() == [1 / rank if rank else 0 for rank in ranks]
    shown = {a for answer, _ in examples for a in answer[:k]} - {-1}
    assert coverage(answers, 9, k) == len(shown) / 9
    expected = slow_bias(answers.tolist(), labels.tolist(), counts, k)
    assert popularity_bias(answers, labels, trained(counts), k) == pytest.approx(
        expected, nan_ok=True
    )


def test_no_examples():
    rows = trained({1: 2})
    assert recall(*NOTHING).shape == mrr(*NOTHING).shape == (0,)
    assert coverage(NOTHING[0], 3) == 0
    assert math.isnan(popularity_bias(*NOTHING, rows))
    kinds = slices(rows.clear(), rows)
    assert kinds.shape == (0, 4)
    assert slices(rows, rows.clear()).shape == (1, 4), (
        "an article twice in a session, so one example"
    )
    assert slices(rows.head(1), rows).shape == (0, 4)
    assert kinds.schema == slices(rows, rows).schema
    assert evaluate(*NOTHING, kinds, rows).rows() == [("all", "all", 0, None, None, 0.0, None)]


ONE = np.array([[1, 2]]), np.array([1])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: recall(*ONE, k=0), "k is 0: at least one"),
        (lambda: mrr(*ONE, k=-1), "k is -1"),
        (lambda: coverage(ONE[0], 5, k=0), "k is 0"),
        (lambda: popularity_bias(*ONE, trained({1: 1}), k=0), "k is 0"),
        (lambda: recall(ONE[0], np.array([1, 2])), "1 rows of answers for 2 labels"),
        (lambda: mrr(ONE[0], np.array([1, 2])), "1 rows of answers for 2 labels"),
        (lambda: coverage(ONE[0], 1), "answers hold 2 articles and the catalogue 1: count"),
        (lambda: coverage(NOTHING[0], 0), "answers hold 0 articles and the catalogue 0"),
        (
            lambda: evaluate(*ONE, pl.DataFrame({"a": [1, 2]}), trained({1: 1})),
            "1 labels and 2 rows of slices",
        ),
        (
            lambda: evaluate(*ONE, pl.DataFrame({"a": [1]}), trained({1: 1})),
            "hold 2 articles and the catalogue 1",
        ),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_slices_by_hand():
    day = DAY_MS
    known = frame(
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
    found = slices(rows.sample(fraction=1, shuffle=True, seed=1), known)
    assert found.columns == ["session_length", "article_age_days", "repeat", "event_type"]
    assert found.rows() == [
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


def first_seen(known: pl.DataFrame) -> dict[int, int]:
    result: dict[int, int] = {}
    for _, aid, ts, _ in known.rows():
        result[aid] = min(ts, result.get(aid, ts))
    return result


steps = st.sampled_from(
    [0, 1, DAY_MS - 1, DAY_MS, DAY_MS + 1, 7 * DAY_MS, 29 * DAY_MS, 30 * DAY_MS]
)
events = st.tuples(st.integers(0, 1), st.integers(0, 5), steps, st.sampled_from(EVENT_TYPES))


@given(st.lists(events, max_size=30), st.lists(events, max_size=5), st.booleans())
@settings(max_examples=200, deadline=None, database=None)
def test_slices_equal_a_slow_loop_in_the_order_of_the_examples(rows, known, text):
    kind = pl.String if text else pl.Enum(EVENT_TYPES)
    made, trained_on = (frame(*part).cast({"type": kind}) for part in (rows, known))
    found, examples = slices(made, trained_on), SPEC.examples(made)
    assert found.rows() == slow_slices(made.rows(), first_seen(trained_on))
    assert found.height == len(examples)
    # A short prefix is in the inputs as a whole, and there the label is looked for once more.
    again = (examples.inputs["article_ids"] == examples.labels[:, None]).any(1)
    short = (examples.inputs["article_ids"] == PADDING).any(1)
    assert ((found["repeat"] == "repeat").to_numpy() == again)[short].all()


def test_a_repeat_may_be_older_than_what_the_model_looks_at():
    rows = frame(*((0, aid, aid, "clicks") for aid in range(LENGTH + 1)), (0, 0, 99, "clicks"))
    assert 0 not in SPEC.examples(rows).inputs["article_ids"][-1]
    assert slices(rows, rows)["repeat"].to_list() == [*["new"] * LENGTH, "repeat"]


def test_evaluate_by_hand():
    known = trained({1: 4, 2: 2, 3: 2})
    rows = frame(
        (0, 1, 1, "clicks"),
        (0, 2, DAY_MS, "clicks"),
        (0, 2, DAY_MS + 1, "carts"),
        (1, 3, 2, "clicks"),
    )
    rows = pl.concat([rows, frame((1, 8, 3, "orders"))])
    examples = SPEC.examples(rows)
    assert examples.labels.tolist() == [2, 2, 8]
    answers = np.array([[1, 2, 3], [2, 1, 3], [1, 2, PADDING]])
    found = evaluate(answers, examples.labels, slices(rows, known), known)
    assert found.columns == [
        "slice",
        "value",
        "examples",
        "recall@20",
        "mrr@20",
        "coverage@20",
        "popularity_bias@20",
    ]
    shown, chosen = (4 + 2 + 2 + 2 + 4 + 2 + 4 + 2) / 8, (2 + 2 + 0) / 3
    assert found.row(0) == ("all", "all", 3, 2 / 3, 0.5, 1.0, pytest.approx(shown / chosen))
    assert found[1:].rows() == [
        ("session_length", "1", 2, 0.5, 0.25, None, None),
        ("session_length", "2", 1, 1, 1, None, None),
        ("article_age_days", "unseen", 1, 0, 0, None, None),
        ("article_age_days", "1-7", 2, 1, 0.75, None, None),
        ("repeat", "new", 2, 0.5, 0.25, None, None),
        ("repeat", "repeat", 1, 1, 1, None, None),
        ("event_type", "clicks", 1, 1, 0.5, None, None),
        ("event_type", "carts", 1, 1, 1, None, None),
        ("event_type", "orders", 1, 0, 0, None, None),
    ]
    best = evaluate(answers, examples.labels, pl.DataFrame({"half": [1, 1, 2]}), known, k=1)
    assert best.columns[3:] == ["recall@1", "mrr@1", "coverage@1", "popularity_bias@1"]
    assert best.rows() == [
        ("all", "all", 3, 1 / 3, 1 / 3, 2 / 3, pytest.approx((10 / 3) / chosen)),
        ("half", "1", 2, 0.5, 0.5, None, None),
        ("half", "2", 1, 0, 0, None, None),
    ]


def test_unseen_labels_leave_the_bias_undefined():
    rows = frame((0, 8, 0, "clicks"), (0, 9, 1, "clicks"))
    known = trained({1: 1})
    found = evaluate(np.array([[1]]), np.array([9]), slices(rows, known), known)
    assert found.row(0) == ("all", "all", 1, 0, 0, 1, None)
    assert found.filter(slice="article_age_days")["value"].to_list() == ["unseen"]


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
    known = rows.filter(pl.col("ts") < T0 + 20 * DAY_MS, pl.col("aid") < 1000)
    labels = SPEC.examples(rows).labels
    answers = rng.integers(-1, 1000, (len(labels), LENGTH))
    assert len(labels) >= 200_000

    frames = []
    lines = lines_run(
        lambda: frames.extend([by := slices(rows, known), evaluate(answers, labels, by, known)])
    )
    assert lines < len(labels) / 20, "a loop over the examples runs a line for each of them"

    by, found = frames
    sample = rng.choice(len(labels), 2000, replace=False)
    ranks = [slow_rank(answers[i].tolist(), labels[i], 20) for i in sample]
    assert recall(answers, labels)[sample].tolist() == [float(rank is not None) for rank in ranks]
    assert mrr(answers, labels)[sample].tolist() == [1 / rank if rank else 0 for rank in ranks]
    some = slow_slices(rows.filter(pl.col("session") < 1000).rows(), first_seen(known))
    assert len(some) > 4000
    assert by.head(len(some)).rows() == some
    assert {len(set(values)) for values in zip(*some, strict=True)} == {2, 3, 5}, (
        "every bucket occurs"
    )

    scores = by.with_columns(hit=recall(answers, labels), gain=mrr(answers, labels))
    for name, value, count, hits, gains, *_ in found[1:].rows():
        part = scores.filter(pl.col(name).cast(pl.String) == value)
        assert (part.height, part["hit"].mean(), part["gain"].mean()) == (
            count,
            pytest.approx(hits),
            pytest.approx(gains),
        )
    assert found.row(0)[:5] == (
        "all",
        "all",
        len(labels),
        *map(pytest.approx, scores.select("hit", "gain").mean().row(0)),
    )
    first = [answers[:1000].tolist(), labels[:1000].tolist()]
    counts = Counter(known["aid"].to_list())
    assert popularity_bias(answers[:1000], labels[:1000], known) == pytest.approx(
        slow_bias(*first, counts, 20)
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
    found = [[*dict.fromkeys(reversed(prefix))][:LENGTH] for prefix in prefixes]
    return np.array([answers + [PADDING] * (LENGTH - len(answers)) for answers in found])


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
    cut = otto_protocol.truncate(real[name], otto_protocol.positions(real[name], SEED))
    sessions = cut.prefixes.group_by("session").agg("aid")
    prefixes = cut.labels.join(sessions, on="session", maintain_order="left")["aid"]
    answers = newest_first(prefixes.to_list())
    published = WHOLE[name][2]["clicks"]
    assert recall(answers, cut.labels["clicks"].to_numpy()).mean() == pytest.approx(
        published, rel=1e-12
    )
    assert otto_protocol.recall(cut.labels, predictions(cut.labels, answers))[
        "clicks"
    ] == pytest.approx(published)


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
    known = clicks != PADDING
    hits = recall(answers, clicks)
    assert 0 < known.sum() < len(known)
    assert (answers[~known] == PADDING).any()
    assert not hits[~known].any()
    assert hits[known].mean() == pytest.approx(
        otto_protocol.recall(theirs, given)["clicks"], rel=1e-12
    )

    follows = (by["event_type"] == "clicks").to_numpy()
    assert clicks[follows].tolist() == examples.labels[follows].tolist()
    found = evaluate(answers, examples.labels, by, rows)
    [row] = found.filter(slice="event_type", value="clicks").rows(named=True)
    assert row["examples"] == follows.sum()
    assert row["recall@20"] == pytest.approx(
        otto_protocol.recall(theirs.filter(follows), given)["clicks"], rel=1e-12
    )
    ranks = [
        slow_rank(a, label, 20)
        for a, label in zip(answers[follows].tolist(), clicks[follows], strict=True)
    ]
    assert row["mrr@20"] == pytest.approx(
        sum(1 / rank for rank in ranks if rank) / len(ranks), rel=1e-12
    )
    assert 0 < row["mrr@20"] < row["recall@20"] < 1
