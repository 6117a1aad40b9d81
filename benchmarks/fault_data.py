"""Orders of a shop that changes again and again, for `faults.py`."""

import json

import numpy as np

from kreislauf.clock import DAY_MS

DAYS = 6
"""Days of orders that arrive at once."""
ORDERS = 200
"""Number of orders a day."""
ROWS = DAYS * ORDERS
"""Number of orders that arrive at once."""
THRESHOLDS = (30, 100, 170, 65, 135)
"""Prices above which orders are mostly sent back, in turn: so far apart that a new version is
better than those of the four arrivals before."""
FIRST_MS = 1_700_000_000_000
"""Time of the first order, ms since 1970."""
QUESTION = {"price": 100.0}
"""A request whose answer differs from one release to the next."""


def orders(arrival: int) -> str:
    """A raw file of `DAYS` days: orders above a price are mostly sent back."""
    chance = np.random.default_rng(arrival)
    threshold = THRESHOLDS[arrival % len(THRESHOLDS)]
    lines = []
    for number in range(arrival * ROWS, (arrival + 1) * ROWS):
        price = float(chance.integers(1, 200))
        is_returned = bool((price > threshold) ^ (chance.random() < 0.1))
        order = {"order": number, "ts": order_time(number), "price": price}
        lines.append(json.dumps(order | {"returned": is_returned}))
    return "\n".join(lines)


def order_time(number: int) -> int:
    """Time of an order, ms since 1970."""
    return FIRST_MS + number * DAY_MS // ORDERS
