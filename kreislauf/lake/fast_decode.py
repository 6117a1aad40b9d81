"""The compiled loop of `kreislauf.lake.decode`.

It is a module of its own, because importing numba takes most of a second.
"""

import numba
import numpy as np

MAX_DIGITS = 18
"""Maximum digits of an integer: so many surely fit into int64."""
# np.uintp tells the compiler that an index is not negative: that is a third of the time.
inlined = numba.njit(cache=True, nogil=True, forceinline=True)


@inlined
def _spaces(data, at, end):
    """Position after the spaces at `at`."""
    while at < end and (data[at] == 32 or data[at] == 9 or data[at] == 13):
        at += 1
    return at


@inlined
def _word(data, at, end, text, gaps, first, last):
    """Position after the word text[first:last] at `at`; -1 if something else is there.

    Spaces may stand where gaps allow.
    """
    n = last - first
    if at + n <= end:
        i = 0
        while i < n and data[np.uintp(at + i)] == text[np.uintp(first + i)]:
            i += 1
        if i == n:
            return at + n
    for i in range(first, last):
        if gaps[i]:
            at = _spaces(data, at, end)
        if at >= end or data[at] != text[i]:
            return -1
        at += 1
    return at


@inlined
def _integer(data, at, end):
    """Position after the JSON integer at `at`, and its value.

    The position is -1 if no integer is there, or one that is negative or long.
    """
    value = np.int64(0)
    start = at
    stop = min(end, start + MAX_DIGITS + 1)
    while at < stop:
        digit = np.int64(data[np.uintp(at)]) - 48
        if np.uint64(digit) > 9:
            break
        value = value * 10 + digit
        at += 1
    if at == start or at - start > MAX_DIGITS or (data[start] == 48 and at - start > 1):
        return -1, value
    return at, value


@inlined
def _rest(data, at, end, delimiter):
    """Position of the delimiter from `at` on, or the end; -1 if a byte is no printable ASCII."""
    while at < end and data[np.uintp(at)] != delimiter:
        if data[np.uintp(at)] == 13 and at == end - 1:
            return at
        if data[np.uintp(at)] < 32 or data[np.uintp(at)] > 126:
            return -1
        at += 1
    return at


@inlined
def _tokens(data, at, end, tokens, spans, text, gaps, first, last, out, row):
    """Position after the tokens first..last; -1 if something else is there.

    Their values go into out[:, row].
    """
    column = 0
    for k in range(first, last):
        token_type = tokens[k, 0]
        low = tokens[k, 1]
        high = tokens[k, 2]
        if token_type == 0:
            at = _word(data, at, end, text, gaps, spans[low, 0], spans[low, 1])
        elif token_type == 1:
            at, value = _integer(data, _spaces(data, at, end), end)
            if at >= 0 and not low <= value <= high:
                return -1
            out[column, row] = value
            column += 1
        elif token_type == 3:
            at = _rest(data, at, end, low)
        else:
            after = -1
            for choice in range(low, high):
                after = _word(data, at, end, text, gaps, spans[choice, 0], spans[choice, 1])
                if after >= 0:
                    out[column, row] = choice - low
                    break
            at = after
            column += 1
        if at < 0:
            return -1
    return at


@inlined
def _list(data, at, end, tokens, spans, text, gaps, head, items, row):
    """Position after the items, `]` and `}`, and the number of the row after the last one.

    The position is -1 if they do not fit.
    """
    while True:
        at = _tokens(data, at, end, tokens, spans, text, gaps, head, len(tokens), items, row)
        if at < 0:
            return -1, row
        row += 1
        at = _spaces(data, at, end)
        if at < end and data[at] == 44:  # a comma
            at += 1
            continue
        if at >= end or data[at] != 93:  # ]
            return -1, row
        at = _spaces(data, at + 1, end)
        if at >= end or data[at] != 125:  # }
            return -1, row
        return at + 1, row


@numba.njit(cache=True, nogil=True)
def read_lines(data, starts, ends, tokens, spans, text, gaps, head, own, items, counts):
    """Read the lines data[starts[i]:ends[i]] that fit the tokens.

    The first `head` tokens are outside the list. Fills own[:, i] with a line's own values and
    items[:, 0:total] with those of all items. Fills counts[i] with the number of rows of a line,
    -1 if it does not fit. Returns the total.
    """
    total = 0
    for i in range(len(starts)):
        end = ends[i]
        row = total
        at = _tokens(data, starts[i], end, tokens, spans, text, gaps, 0, head, own, i)
        if at >= 0 and head < len(tokens):
            at, row = _list(data, at, end, tokens, spans, text, gaps, head, items, total)
        elif at >= 0:
            row = total + 1
        if at < 0 or _spaces(data, at, end) != end:
            counts[i] = -1
            continue
        counts[i] = row - total
        total = row
    return total
