"""Lists of different lengths out of padded arrays."""

import numpy as np

from models.answer_lists import real_values


def test_padding_is_left_out_wherever_it_stands():
    values = np.array([[3, -1, 4], [-1, -1, -1], [5, 6, 7]])
    assert real_values(values, values >= 0) == [[3, 4], [], [5, 6, 7]]


def test_no_rows_are_no_lists():
    assert real_values(np.empty((0, 20)), np.empty((0, 20), bool)) == []
