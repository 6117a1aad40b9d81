"""Requests and feedback in a shop's own words are those of the model type's."""

from pathlib import Path

import polars as pl
import pytest

from models import conversion, mapped_requests, spec
from models.mapped_requests import MappedRequests
from models.mapping import MappingError

TIME = 1_659_304_800_025
NUMBERS = """
columns:
  session: visitorid
  aid: itemid
  ts: {from: timestamp, unit: s}
  type: {from: event, values: {view: clicks, addtocart: carts, transaction: orders}}
ignored: [transactionid]
"""
TEXT = """
model: session_recommender_text
columns:
  session: user.visit
  aid: product.sku
  ts: {from: at, format: iso}
  type: {constant: clicks}
only: {name: [Product Viewed]}
"""


def requests_by(text: str, folder: Path) -> MappedRequests:
    (folder / "shop.yaml").write_text(text)
    requests = mapped_requests.requests_of(str(folder / "shop.yaml"))
    assert requests
    return requests


def test_whole_numbers_times_and_words_become_the_tables(tmp_path: Path):
    requests = requests_by(NUMBERS, tmp_path)
    body = {
        "visitorid": 7,
        "user": "anna",
        "ids": "text",
        "events": [
            {"itemid": 5, "timestamp": TIME / 1000, "event": "view"},
            {"itemid": "6", "event": "addtocart", "transactionid": None},
            {"itemid": 2**53 + 1},
        ],
    }
    before = repr(body)
    assert requests.request(body) == {
        "session": 7,
        "user": "anna",
        "ids": "text",
        "events": [
            {"aid": 5, "ts": TIME, "type": "clicks"},
            {"aid": "6", "type": "carts"},
            {"aid": 2**53 + 1},
        ],
    }
    assert repr(body) == before
    model_type = spec.load("session_recommender")
    tensors = model_type.tensors([requests.request(body)])
    assert tensors["article_ids"][0, :4].tolist() == [5, 6, 2**53 + 1, -1]


def test_nested_objects_are_read_and_unwanted_events_left_out(tmp_path: Path):
    requests = requests_by(TEXT, tmp_path)
    events = [
        {"name": "Product Viewed", "product": {"sku": "Ä-1"}, "at": "2022-07-31T22:00:00.025Z"},
        {"name": "Page Viewed", "at": "2022-07-31T22:00:01Z"},
        {"name": "Product Viewed", "product": {"sku": 12}},
    ]
    assert requests.request({"events": events, "session": "s"}) == {
        "session": "s",
        "events": [
            {"aid": "Ä-1", "ts": TIME, "type": "clicks"},
            {"aid": 12, "type": "clicks"},
        ],
    }
    assert requests.request({"events": []}) == {"events": []}
    assert requests.request({"events": 5}) == {"events": 5}, "the model type says what is wrong"


BY_GAP = """
model: session_recommender_text
columns:
  session: {user: visitor, gap_minutes: 30}
  aid: item
  ts: {from: time, unit: ms}
  type: {from: what, values: {view: clicks}}
"""
MINUTE = 60_000


def test_a_user_is_asked_about_with_the_events_of_the_last_session(tmp_path: Path):
    requests = requests_by(BY_GAP, tmp_path)
    minutes = [90, 0, 60, 91, 30]
    events = [{"item": f"a{m}", "time": TIME + m * MINUTE} for m in minutes]
    asked = requests.request({"visitor": "ada", "events": [*events, {**events[0], "item": "b"}]})
    kept = [(f"a{m}", TIME + m * MINUTE) for m in (90, 0, 60, 91, 30)]
    assert asked == {
        "user": "ada",
        "events": [{"aid": aid, "ts": ts} for aid, ts in [*kept, ("b", TIME + 90 * MINUTE)]],
    }, "30 minutes are no gap"
    events[1]["time"] -= 1
    events[2]["time"] -= 1
    events[4]["time"] -= 1
    asked = requests.request({"visitor": 7, "user": "ada", "events": events})
    assert [event["aid"] for event in asked["events"]] == ["a90", "a91"]
    assert asked.keys() == {"user", "events"}
    assert asked["user"] == "ada", "who is named is not overwritten"
    del events[0]["time"]
    asked = requests.request({"events": events})
    assert [event["aid"] for event in asked["events"]] == ["a90", "a0", "a60", "a91", "a30"]
    as_text = [{"item": "a", "time": str(TIME)}, {"item": "b", "time": str(TIME + 31 * MINUTE)}]
    assert requests.request({"events": as_text})["events"] == [
        {"aid": "b", "ts": TIME + 31 * MINUTE}
    ]
    assert requests.request({"visitor": "ada", "events": []}) == {"user": "ada", "events": []}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            {"events": [{"itemid": 1}, {"itemid": "x"}]},
            r"events\[1\]: Expected `itemid` to be a wh",
        ),
        ({"events": [{"itemid": 1, "event": "sold"}]}, r"`event` to be one of view, .* 'sold'"),
        ({"events": [{"itemid": 1, "timestamp": "noon"}]}, "`timestamp` to be a time in s, got 'n"),
        ({"events": [{"aid": 1}]}, r"events\[0\]: Object contains unknown field `aid`: use it in"),
        ({"events": [5]}, r"events\[0\] is no object"),
        ({"visitorid": "x", "events": []}, "Request 0: Expected `visitorid` to be a whole number"),
        ({"visitorid": [7], "events": []}, "Request 0: Expected `visitorid` to be a single value"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(tmp_path: Path, body: dict, message: str):
    with pytest.raises(ValueError, match=message):
        requests_by(NUMBERS, tmp_path).request(body)


@pytest.mark.parametrize(
    ("user", "name"),
    [("ada", "ada"), (" ada ", "ada"), ("7.0", "7"), (7.0, "7"), (7, 7), ("", None), (None, None)],
)
def test_a_user_is_named_as_in_a_load(tmp_path: Path, user: object, name: object):
    requests = requests_by(BY_GAP, tmp_path)
    asked = requests.request({"visitor": user, "events": []})
    assert asked.get("user") == name
    if name is not None:
        loaded = conversion.users(pl.Series([user])).to_list()
        assert [str(name)] == loaded


@pytest.mark.parametrize("user", ["a" * 76, " ", "\\N", {"a": 1}])
def test_a_user_that_no_load_would_take_is_refused(tmp_path: Path, user: object):
    with pytest.raises(ValueError, match="Request 0: Expected `visitor` to be"):
        requests_by(BY_GAP, tmp_path).request({"visitor": user, "events": []})


def test_kinds_of_feedback_are_the_shops_words_or_the_gateways(tmp_path: Path):
    requests = requests_by(NUMBERS, tmp_path)
    words = ["view", "addtocart", "transaction", "click", "sold", None, 5]
    kinds = [requests.reaction({"kind": word, "item": 3})["kind"] for word in words]
    assert kinds == ["click", "cart", "order", "click", "sold", None, 5]


def test_a_mapping_of_a_model_type_without_lists_is_refused(tiny, tmp_path: Path):
    text = "model: tiny\ncolumns: {order: a, price: b, returned: c, ts: {from: t, unit: s}}"
    (tmp_path / "shop.yaml").write_text(text)
    with pytest.raises(MappingError, match="KREISLAUF_MAPPING out"):
        mapped_requests.requests_of(str(tmp_path / "shop.yaml"))
