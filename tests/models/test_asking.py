"""Many requests, asked a batch at a time."""

import numpy as np
import pytest

from models import asking

PADDED = np.array([[7, -1, -1], [7, 8, 9], [-1, -1, -1], [7, 8, -1]])
"""Rows of one, three, no and two columns."""


def test_requests_of_the_same_length_are_asked_together_and_answers_keep_their_order():
    sizes = []

    def ask(request):
        sizes.append((request["rows"] >= 0).sum(1).tolist())
        return {"sum": request["rows"].sum(1)}

    outputs = asking.in_batches(ask, {"rows": PADDED}, 2)
    assert sizes == [[0, 1], [2, 3]]
    np.testing.assert_array_equal(outputs["sum"], PADDED.sum(1))


def test_no_requests_are_one_batch_without_rows():
    outputs = asking.in_batches(lambda request: request, {"rows": PADDED[:0]}, 2)
    assert outputs["rows"].shape == (0, 3)


@pytest.mark.parametrize("rows", [PADDED, PADDED[:0]], ids=["some", "none"])
def test_an_output_with_more_rows_than_requests_is_refused(rows):
    def ask(request):
        return {"answers": np.r_[request["rows"], PADDED[:1]]}

    with pytest.raises(ValueError, match=r"Output 'answers' has \d rows for a batch"):
        asking.in_batches(ask, {"rows": rows}, 2)


def test_an_output_with_fewer_rows_than_requests_is_refused():
    with pytest.raises(ValueError, match="Output 'rows' has 1 rows for a batch of 2 requests"):
        asking.in_batches(lambda request: {"rows": request["rows"][1:]}, {"rows": PADDED}, 2)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (PADDED, [1, 3, 0, 2]),
        (PADDED.astype("f4"), [1, 3, 0, 2]),
        (np.where(PADDED < 0, "", "x").astype(object), [1, 3, 0, 2]),
        (np.stack([PADDED, PADDED], 2), [0, 0, 0, 0]),
        (np.array(["Wo ist mein Paket?", ""], object), [18, 0]),
        (np.array([["Wo ist mein Paket?"], [""]], object), [18, 0]),
        (np.array([3.0, 4.0]), [0, 0]),
        (np.empty((0, 3)), []),
    ],
)
def test_a_row_ends_where_only_padding_follows(values, expected):
    assert asking.lengths({"values": values}).tolist() == expected


def test_the_lengths_of_several_inputs_are_added():
    words = np.array(["a", "", "abc", "ab"], object)
    assert asking.lengths({"rows": PADDED, "words": words}).tolist() == [2, 3, 3, 4]


def test_missing_numbers_at_the_end_are_columns_like_any_other():
    """NaN is never equal to itself: no order is worse than another."""
    numbers = np.array([[1.0, np.nan], [np.nan, np.nan]])
    assert asking.lengths({"numbers": numbers}).tolist() == [2, 2]
