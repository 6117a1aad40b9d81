"""How much a load reads, counted in requests to S3: it must not grow with what is loaded before."""

from pathlib import Path

import pytest
from s3fs import S3FileSystem

from kreislauf import lake, sources
from kreislauf.lake import loading, open_tables
from models.session_recommender.schema import EVENTS
from tests.conftest import moto, shop_on
from tests.kreislauf.lake.test_lake import line

pytestmark = pytest.mark.slow

HOUR = 3_600


class Requests:
    """What an S3 server was asked for, by its own log."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._read = 0

    def new(self) -> list[str]:
        """Method and path of each request since the last call."""
        lines = [text for text in self._log.read_text().splitlines() if '"' in text]
        fresh = lines[self._read :]
        self._read = len(lines)
        return [text.split('"')[1].removesuffix(" HTTP/1.1") for text in fresh]


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """s3fs and the requests of an S3 server with a bucket `shop`, and the lake in another one."""
    with moto(tmp_path) as (url, record):
        S3FileSystem.clear_instance_cache()
        fs = shop_on(url, monkeypatch)
        # Polars keeps the server of a bucket, and other tests have `shop` on another one.
        fs.mkdir("work")
        monkeypatch.setenv("KREISLAUF_LAKE", "s3://work/lake/")
        yield fs, Requests(Path(record["log"]))
    S3FileSystem.clear_instance_cache()


def deliver(fs, number):
    """A raw file with a session of an hour of its own, and a line that is rejected."""
    lines = [line(number, (number, number * HOUR)), b"bad %d" % number]
    fs.pipe_file(f"shop/raw/{number:03}.jsonl", b"\n".join(lines))


def load_new():
    """Load what the bucket has and the lake lacks; the number of files that were there before."""
    listing = sources.find("s3://shop/raw/")
    with open_tables.kept_open():
        loads = loading.find_loaded(EVENTS, listing.stamps.values())
        for path in listing.raw_files:
            if listing.stamps[path] not in loads:
                lake.load_file(EVENTS, sources.open_file(path, EVENTS))
    return len(loads)


def test_a_load_reads_no_more_after_many_others(shop):
    """It was 36 requests, then 44, 58, 72 and so on: each commit was read a dozen times."""
    fs, requests = shop
    costs = []
    with open_tables.kept_open():
        for number in range(30):
            deliver(fs, number)
            requests.new()
            file = sources.open_file(f"s3://shop/raw/{number:03}.jsonl", EVENTS)
            lake.load_file(EVENTS, file)
            costs.append(len(requests.new()))
    # The log has a request a moment after its answer, so that it may count for the next load.
    assert sum(costs[20:]) <= 1.1 * sum(costs[3:13])
    assert lake.read(EVENTS).height == 30
    assert lake.rejects(EVENTS).height == 30


def test_a_look_at_nothing_new_lists_the_files_and_reads_each_commit_a_few_times(shop):
    fs, requests = shop
    for number in range(8):
        deliver(fs, number)
    assert load_new() == 0
    requests.new()
    assert load_new() == 8
    asked = requests.new()
    assert [request for request in asked if "/shop/raw" in request] == [], "no file is asked for"
    commits = [request for request in asked if "/lake/events/_delta_log/0" in request]
    assert len(commits) <= 5 * 9
    deliver(fs, 8)
    assert load_new() == 8
    assert lake.read(EVENTS).height == 9
