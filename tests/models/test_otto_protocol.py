"""OTTO's protocol: the results of OTTO's own code on real sessions, and a slow re-derivation from
its definition."""

from hashlib import sha256
from random import Random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import otto_protocol as protocol
from models.session_recommender.features import DAY_MS
from models.session_recommender.schema import EVENT_TYPES

T0 = 1_700_000_000_000
SEED = 42
KEY = {"session": pl.Int64, "seen": pl.Int64}
LABELS = {"clicks": pl.Int64, "carts": pl.List(pl.Int64), "orders": pl.List(pl.Int64)}
ANSWERS = dict.fromkeys(EVENT_TYPES, pl.List(pl.Int64))

# Obtained by running github.com/otto-de/recsys-dataset at f404284 (beartype 0.20.2, as locked
# there) on a copy of the sample, outside of this project:
#   python -m src.testset --train-set sessions.jsonl --days DAYS --output-path out --seed 42
# "pieces" are the sample with each session cut into sessions of 10 events and articles taken modulo
# 50 (see `pieces`): of the plain sample's test sessions none has a cart or an order. The columns:
# the sample; DAYS; sessions and events in train_sessions.jsonl; sessions and events in
# test_sessions_full.jsonl; events in test_sessions.jsonl; digests of train_sessions.jsonl, of
# test_sessions_full.jsonl, of src.labels.ground_truth for each session in it, of
# test_sessions.jsonl and of test_labels.jsonl. A digest is the first 16 hex digits of the SHA-256
# of text lines (ending with \n) in the file's order: for an event `session,aid,ts,type`, for labels
# `session;seen;click;carts;orders`, where `seen` is the number of events in the prefix, articles of
# a set are ascending with spaces in between, and what is missing is empty.
SPLITS = """
sample   1  10 806 8 19 8   4ac01d07b225c4fe 79619ac6be5301f4 \
    658a89fc43aa76e9 d71ee004b7631ffc f29f21278ae826c7
sample   7  10 639 8 18 8   0609f2b502478151 adaed4d1348864a9 \
    9bc990d7ca0de3e2 d71ee004b7631ffc f29f21278ae826c7
sample  14  10 540 8 18 8   e0dd7d8cb924a3c4 adaed4d1348864a9 \
    9bc990d7ca0de3e2 d71ee004b7631ffc f29f21278ae826c7
sample  27  10 197 7 14 7   fbef6e40475096e2 773198736cb3f4fe \
    415199ca24b349dc fc8c65fa98449700 415199ca24b349dc
pieces   1  85 806 14 44 16  aba0a909a8b7eb94 bb07e94df94e6452 \
    1c6f74a61eb0ce51 9c144b6a537253b1 b446ed4c3f86f204
pieces   7  69 639 30 197 105  0a520c93303a4769 8a97ccc324bf67a8 \
    d95e5c647b56c4c4 3c7744959a19b5a8 29f110cd4cdbc70e
pieces  14  59 540 40 293 154  473f14b218dea6b0 759a530921e125e9 \
    d0079fbedc14af42 a37f94b1ce1322e0 a9082aa5f108b087
pieces  27  24 197 75 582 280  5da90683f0752647 46bed58d60af5596 \
    65396cd422ad42ea 0c6fd997146dfbee 93c502a112528310
"""
# The same for everything as test: ground_truth on all sessions; random.seed(42) and
# create_kaggle_testset; and what src.evaluate says of the articles of the cut sessions, newest
# first, as the prediction of all three kinds.
WHOLE = {
    "sample": (
        (842, 352),
        "3ffa8fbdf2a33e11 5ae58937aa6a507a 4dd979e3295c2c27",
        {"clicks": 0.3, "carts": 0.0, "orders": 0.5, "total": 0.32999999999999996},
    ),
    "pieces": (
        (763, 460),
        "3ec13185ce4991fa 0f9533a678d4be50 cd1b64a986ecf12c",
        {
            "clicks": 0.32323232323232326,
            "carts": 0.25,
            "orders": 0.14285714285714285,
            "total": 0.193037518037518,
        },
    ),
}


def digest(frame: pl.DataFrame) -> str:
    if "aid" in frame.columns:
        text = frame.select("session", "aid", "ts", "type").write_csv(include_header=False)
    else:
        sets = [
            pl.col(kind).cast(pl.List(pl.String)).list.join(" ") for kind in ("carts", "orders")
        ]
        frame = frame.select("session", "seen", "clicks", *sets)
        text = frame.write_csv(include_header=False, separator=";", quote_style="never")
    return sha256(text.encode()).hexdigest()[:16]


def pieces(rows: pl.DataFrame) -> pl.DataFrame:
    piece = pl.int_range(pl.len()).over("session") // 10
    return rows.with_columns(pl.col("session") * 1000 + piece, pl.col("aid") % 50)


def cut_sessions(rows: pl.DataFrame, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The beginning of each session of two events or more, and the labels of this prefix.

    The draws are those of OTTO's script with the same --seed, if the sessions come in the order of
    its file.
    """
    random = Random(seed)
    drawn = []
    lengths = rows.group_by("session", maintain_order=True).len().filter(pl.col("len") > 1)
    for length in lengths["len"]:
        # Two calls per session are type checked in the script, and beartype draws 32 bits for each
        # from its generator.
        random.getrandbits(64)
        drawn.append(random.randint(1, length - 1))
    at = lengths.select("session", seen=pl.Series(drawn, dtype=pl.Int64))
    limit = rows.select("session").join(at, on="session", how="left", maintain_order="left")["seen"]
    labels = protocol.labels(rows).join(at, on=protocol.PREFIX, how="semi", maintain_order="left")
    return rows.filter(limit >= protocol.POSITION), labels


@pytest.fixture(scope="module")
def real(shared) -> dict[str, pl.DataFrame]:
    sessions = pl.read_ndjson(shared / "otto-sample" / "sessions.jsonl")
    rows = sessions.explode("events").unnest("events").select("session", "aid", "ts", "type")
    return {"sample": rows, "pieces": pieces(rows)}


@pytest.mark.parametrize("kind", [pl.String, pl.Enum(EVENT_TYPES)], ids=["String", "Enum"])
@pytest.mark.parametrize(
    "line", SPLITS.strip().splitlines(), ids=lambda line: "-".join(line.split()[:2])
)
def test_split_and_cut_are_those_of_otto_s_code(real, line, kind):
    name, days, *expected = line.split()
    halves = protocol.split(real[name].with_columns(pl.col("type").cast(kind)), int(days))
    cut, cut_labels = cut_sessions(halves.test, SEED)
    frames = (halves.train, halves.test, protocol.labels(halves.test), cut, cut_labels)
    counts = [n for half in frames[:2] for n in (half["session"].n_unique(), half.height)]
    assert [*map(str, (*counts, cut.height)), *map(digest, frames)] == expected
    assert_no_leak(halves)


@pytest.mark.parametrize("name", WHOLE)
def test_labels_and_recall_are_those_of_otto_s_code(real, name):
    labels = protocol.labels(real[name])
    cut, cut_labels = cut_sessions(real[name], SEED)
    newest_first = pl.col("aid").reverse().unique(maintain_order=True)
    predictions = cut.group_by("session").agg(
        seen=pl.len().cast(pl.Int64), **dict.fromkeys(EVENT_TYPES, newest_first)
    )
    counts, digests, recall = WHOLE[name]
    assert (labels.height, cut.height) == counts
    assert [digest(frame) for frame in (labels, cut, cut_labels)] == digests.split()
    assert protocol.recall(cut_labels, predictions) == pytest.approx(recall, rel=1e-12)


def test_the_lake_s_order_changes_labels_only_between_events_of_one_time(real):
    """On the sample: no split, and 2 of 842 prefixes."""
    rows = real["sample"].with_columns(pl.col("type").cast(pl.Enum(EVENT_TYPES)))
    lake = rows.sort("session", "ts", "aid", "type")
    for days in (1, 7, 27):
        theirs, ours = protocol.split(rows, days), protocol.split(lake, days)
        assert theirs.train.sort(rows.columns).equals(ours.train.sort(rows.columns))
        assert theirs.test.sort(rows.columns).equals(ours.test.sort(rows.columns))
    times = {s: [ts for _, ts, _ in events] for s, events in unframe(rows).items()}
    pairs = zip(protocol.labels(rows).rows(), protocol.labels(lake).rows(), strict=True)
    differ = [(session, seen) for (session, seen, *a), (_, _, *b) in pairs if a != b]
    assert len(differ) == 2
    assert all(times[session][seen - 1] == times[session][seen] for session, seen in differ)


def assert_no_leak(halves: protocol.Split):
    train, test = halves.train, halves.test
    assert (train["ts"] < halves.boundary).all()
    assert (test["ts"] > halves.boundary).all()
    assert not set(train["session"]) & set(test["session"])
    assert set(test["aid"]) <= set(train["aid"])
    for half in (train, test):
        assert (half.group_by("session").len()["len"] >= 2).all()


Sessions = dict[int, list[tuple[int, int, str]]]
"""Events (aid, ts, type) of each session."""
# Half days and single ms, so that events often fall on the boundary, just before it, just after it,
# or on each other.
steps = st.sampled_from([0, 0, 1, DAY_MS // 2, DAY_MS // 2 - 1, DAY_MS])


@st.composite
def shops(draw) -> Sessions:
    result = {}
    for session in draw(st.lists(st.integers(0, 99), min_size=1, max_size=6, unique=True)):
        ts, result[session] = T0 + draw(st.integers(0, 6)) * DAY_MS // 2, []
        for _ in range(draw(st.integers(1, 6))):
            ts += draw(steps)
            result[session].append(
                (draw(st.integers(0, 4)), ts, draw(st.sampled_from(EVENT_TYPES)))
            )
    return result


def frame(shop: Sessions, by_time: bool = False) -> pl.DataFrame:
    """Rows, session after session or all by time; the order within a session is the same."""
    rows = [(session, *event) for session, events in shop.items() for event in events]
    schema = {"session": pl.Int64, "aid": pl.Int64, "ts": pl.Int64, "type": pl.String}
    made = pl.DataFrame(rows, schema, orient="row")
    return made.sort("ts", maintain_order=True) if by_time else made


def unframe(rows: pl.DataFrame) -> Sessions:
    result: Sessions = {}
    for session, *event in rows.select("session", "aid", "ts", "type").rows():
        result.setdefault(session, []).append(tuple(event))
    return result


def slow_split(shop: Sessions, days: int) -> tuple[Sessions, Sessions]:
    boundary = (
        max(ts for events in shop.values() for _, ts, _ in events) - days * 24 * 60 * 60 * 1000
    )
    train, test = {}, {}
    for session, events in shop.items():
        past = [event for event in events if event[1] < boundary]
        if len(past) > 1:
            train[session] = past
    train_aids = {aid for events in train.values() for aid, _, _ in events}
    for session, events in shop.items():
        kept = [event for event in events if event[0] in train_aids]
        if events[0][1] > boundary and len(kept) > 1:
            test[session] = kept
    return train, test


def slow_labels(shop: Sessions) -> list[tuple]:
    result = []
    for session, events in shop.items():
        for seen in range(1, len(events)):
            clicks, carts, orders = (
                [aid for aid, _, kind in events[seen:] if kind == k] for k in EVENT_TYPES
            )
            # OTTO's code has no label where the next click is on article 0, even if another click
            # follows.
            click = clicks[0] if clicks and clicks[0] != 0 else None
            result.append((session, seen, click, sorted(set(carts)), sorted(set(orders))))
    return result


@given(shops(), st.integers(1, 3), st.booleans())
@settings(max_examples=200, deadline=None, database=None)
def test_split_equals_a_slow_loop_and_leaks_nothing(shop, days, by_time):
    rows = frame(shop, by_time)
    if rows["ts"].min() >= rows["ts"].max() - days * DAY_MS:
        with pytest.raises(ValueError, match="fewer days"):
            protocol.split(rows, days)
        return
    halves = protocol.split(rows, days)
    assert (unframe(halves.train), unframe(halves.test)) == slow_split(shop, days)
    assert halves.boundary == rows["ts"].max() - days * DAY_MS
    assert_no_leak(halves)


@given(shops(), st.booleans())
@settings(max_examples=200, deadline=None, database=None)
def test_labels_equal_a_slow_loop(shop, by_time):
    labels = protocol.labels(frame(shop, by_time))
    assert sorted(labels.rows()) == sorted(slow_labels(shop))
    assert labels.schema == KEY | LABELS


def judged(*prefixes: tuple, kinds: dict) -> pl.DataFrame:
    rows = [(i, 1, *prefix) for i, prefix in enumerate(prefixes)]
    return pl.DataFrame(rows, KEY | kinds, orient="row")


wanted = st.sets(st.integers(0, 30), max_size=30).map(list)
answers = st.one_of(st.none(), st.lists(st.integers(0, 30), max_size=30))


@given(st.data())
@settings(max_examples=200, deadline=None, database=None)
def test_recall_equals_a_slow_loop(data):
    prefixes = data.draw(
        st.lists(st.tuples(st.one_of(st.none(), st.integers(1, 30)), wanted, wanted), max_size=5)
    )
    predictions = data.draw(st.lists(st.tuples(answers, answers, answers), max_size=7))
    labels, predicted = judged(*prefixes, kinds=LABELS), judged(*predictions, kinds=ANSWERS)
    expected = {}
    for i, kind in enumerate(EVENT_TYPES):
        hits = most = 0
        for n, prefix in enumerate(prefixes):
            truth = {prefix[i]} - {None} if kind == "clicks" else set(prefix[i])
            hits += len(truth & set((predictions[n][i] or [])[:20] if n < len(predictions) else []))
            most += min(20, len(truth))
        if not most:
            with pytest.raises(ValueError, match=f"no {kind}"):
                protocol.recall(labels, predicted)
            return
        expected[kind] = hits / most
    expected["total"] = (
        0.1 * expected["clicks"] + 0.3 * expected["carts"] + 0.6 * expected["orders"]
    )
    assert protocol.recall(labels, predicted) == pytest.approx(expected, rel=1e-12)


def test_recall_by_hand():
    labels = judged((7, list(range(25)), [1, 2]), (8, [3], []), kinds=LABELS)
    predictions = judged(
        ([*range(20, 40), 7], list(range(30)), [1, 1, 9]), ([8], None, [3]), kinds=ANSWERS
    )
    expected = {
        "clicks": 1 / 2,
        "carts": 20 / 21,
        "orders": 1 / 2,
        "total": 0.05 + 0.3 * 20 / 21 + 0.3,
    }
    assert protocol.recall(labels, predictions) == pytest.approx(expected)
    assert protocol.recall(labels, predictions.clear())["total"] == 0
    with pytest.raises(ValueError, match="predictions have a prefix"):
        protocol.recall(labels, pl.concat([predictions, predictions]))


def test_labels_of_a_session_like_the_one_that_otto_documents():
    """Here the two orders at the end have the same time."""
    kinds = ("clicks", "clicks", "clicks", "carts", "clicks", "carts", "clicks", "orders", "orders")
    session = list(
        zip((5, 1, 2, 2, 3, 3, 4, 2, 3), [*range(T0, T0 + 8), T0 + 7], kinds, strict=True)
    )
    assert protocol.labels(frame({42: session})).drop(KEY).rows() == [
        (1, [2, 3], [2, 3]),
        (2, [2, 3], [2, 3]),
        (3, [2, 3], [2, 3]),
        (3, [3], [2, 3]),
        (4, [3], [2, 3]),
        (4, [], [2, 3]),
        (None, [], [2, 3]),
        (None, [], [3]),
    ]


ROWS = frame({1: [(1, T0, "clicks"), (2, T0 + 3 * DAY_MS, "clicks")]})


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: protocol.split(ROWS.clear(), 1), "no rows: widen the window"),
        (lambda: protocol.labels(ROWS.clear()), "no rows: widen the window"),
        (lambda: protocol.split(ROWS, 0), "0 days: give it at least 1"),
        (lambda: protocol.split(ROWS, -1), "-1 days"),
        (lambda: protocol.split(ROWS, 3), "span 3.0 days, .* test of 3 days: give fewer"),
        (lambda: protocol.split(ROWS.reverse(), 1), "Session 1 has an event that is older .* sort"),
        (lambda: protocol.labels(ROWS.reverse()), "Session 1 has an event that is older .* sort"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
