"""Which right answers were taken from an answer that the gateway had shown."""

import json
import logging

import numpy as np
import pytest

from kreislauf import exposures, gateway_secret, lake
from kreislauf.exposures import PSEUDONYMS, pseudonym, unkeyed_pseudonym
from kreislauf.monitoring import feedback
from kreislauf.settings import settings
from models.spec import Examples
from tests.kreislauf.lake.test_lake import File

KEY = b"a key"
ADA = pseudonym("7", KEY)
NOON = 1_700_000_000_000


@pytest.mark.parametrize(
    ("labels", "items"),
    [
        ([12, 13, 12], ["12", "13"]),
        ([True, False, True], ["true", "false"]),
        (["a", "b", "a"], ['"a"', '"b"']),
    ],
)
@pytest.mark.parametrize("name", [ADA, unkeyed_pseudonym("7")], ids=["keyed", "unkeyed"])
def test_a_right_answer_was_taken_if_its_group_took_this_item(
    labels: list, items: list[str], name: str
):
    examples = Examples({}, np.array(labels), np.array([7, 7, 8]))

    def among(taken: set[tuple[str, str]]) -> np.ndarray | None:
        return feedback.among(examples, taken, KEY)

    assert among({(name, items[0])}).tolist() == [True, False, False]
    assert among({(name, items[1]), ("x", items[0])}).tolist() == [False, True, False]
    assert among({("x", items[0]), (name, '"z"')}) is None
    assert among({(pseudonym("7", b"another key"), items[0])}) is None
    assert among(set()) is None


def test_an_item_that_a_user_took_counts_in_the_sessions_that_are_made_of_the_user():
    groups = np.array(["7/2022-08-29T12:30:15.250Z", "7/not a time", "8"])
    examples = Examples({}, np.array(["a", "a", "a"]), groups)
    assert feedback.among(examples, {(ADA, '"a"')}, KEY).tolist() == [True, False, False]
    whole = pseudonym(str(groups[0]), KEY)
    assert feedback.among(examples, {(whole, '"a"')}, KEY).tolist() == [True, False, False]


def test_users_of_another_secret_are_nobody_and_are_named(caplog: pytest.LogCaptureFixture):
    key = gateway_secret.key(settings(), PSEUDONYMS)
    land(
        {
            "r1": pseudonym("1", key),
            "r2": unkeyed_pseudonym("2"),
            "r3": pseudonym("3", b"another"),
            "r4": "",
        }
    )
    examples = Examples({}, np.array([5, 5, 5, 5]), np.array([1, 2, 3, 4]))
    with caplog.at_level(logging.WARNING):
        taken = feedback.clicked("tiny", examples, NOON, NOON)
    assert taken.tolist() == [True, True, False, False]
    assert "1 of 4 items were taken by users whose pseudonyms another secret" in caplog.text


def land(users: dict[str, str]) -> None:
    """Load an answer to each user, by request id, and a click on its item 5."""
    shown = []
    clicks = []
    for request_id, user in users.items():
        about = {"request_id": request_id, "ts": NOON, "model": "tiny", "version": 1}
        about |= {"variant": "champion"}
        shown.append(about | {"user": user, "items": "[5]", "latency_ms": 1.0})
        clicks.append(about | {"kind": "click", "item": "5"})
    for table, lines in ((exposures.EXPOSURES, shown), (exposures.FEEDBACK, clicks)):
        raws = [json.dumps(line).encode() for line in lines]
        assert lake.load_file(table, File(f"{table.name}.jsonl", raws)).rows_kept == len(users)
