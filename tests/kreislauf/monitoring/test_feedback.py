"""Which right answers were taken from an answer that the gateway had shown."""

import numpy as np
import pytest

from kreislauf.exposures import pseudonym
from kreislauf.monitoring import feedback
from models.spec import Examples

ADA = pseudonym("7")


@pytest.mark.parametrize(
    ("labels", "items"),
    [
        ([12, 13, 12], ["12", "13"]),
        ([True, False, True], ["true", "false"]),
        (["a", "b", "a"], ['"a"', '"b"']),
    ],
)
def test_a_right_answer_was_taken_if_its_group_took_this_item(labels: list, items: list[str]):
    examples = Examples({}, np.array(labels), np.array([7, 7, 8]))
    among = feedback.among
    assert among(examples, {(ADA, items[0])}).tolist() == [True, False, False]
    assert among(examples, {(ADA, items[1]), ("x", items[0])}).tolist() == [False, True, False]
    assert among(examples, {("x", items[0]), (ADA, '"z"')}) is None
    assert among(examples, set()) is None
