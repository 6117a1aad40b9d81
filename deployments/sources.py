"""The sources of the lake's tables: the newest event of each, and its lag."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

from kreislauf.clock import span, when
from kreislauf.settings import settings

MAX_SOURCES = 20
"""Most sources of a table that are shown: those that were loaded last."""


def show() -> list[str]:
    """A line for each source of each table; a sentence if the lake does not answer."""
    lake = settings().lake
    if "://" not in lake and not os.path.isdir(lake):
        return []
    # These take a second, and most who ask have a lake only later.
    from kreislauf.lake import clocks, delta
    from kreislauf.lake.storage import LakeError

    try:
        names = delta.names()
        with ThreadPoolExecutor() as pool:
            sources = dict(zip(names, pool.map(clocks.sources, names), strict=True))
    except LakeError as error:
        return [f"{'sources':12} {error}"]
    now = int(time.time() * 1000)
    lines = []
    for name in names:
        newest_first = sorted(sources[name], key=lambda source: -source.clock.loaded)
        for source in newest_first[:MAX_SOURCES]:
            state = "stopped" if source.stopped else "lands"
            newest = source.clock.newest
            lines.append(
                f"{'source':12} {state:7}  {source.name}  into {name}, newest event "
                f"{when(newest)} (UTC), {span(now - newest)} ago"
            )
        if len(newest_first) > MAX_SOURCES:
            lines.append(f"{'':12} and {len(newest_first) - MAX_SOURCES} more into {name}")
    return lines
