"""Whole files or nothing, shown by force: a process that loads files is killed again and again, on
disk and on S3."""

import json
import os
import random

import pytest

from kreislauf import lake, sources
from kreislauf.lake import delta, quarantine
from kreislauf.lake import storage as lake_storage
from models.session_recommender.schema import EVENTS
from tests.long.lander import kill
from tests.stream_tools import T0

pytestmark = pytest.mark.slow

DAY = 86_400_000
FILES, LINES = 24, 400
BOUNDARIES = [
    "rejects1!",
    "spool1",
    "spool1!",
    "put1",
    "put1!",
    "put3!",
    "commit1",
    "commit1!",
    "commit2",
    "commit2!",
]


@pytest.fixture
def raw(tmp_path):
    """A folder of files, each with sessions over three days, some of which are in other files too,
    and bad lines."""
    folder, draw = tmp_path / "raw", random.Random(0)
    folder.mkdir()
    for number in range(FILES):
        lines = [b'{"bad": "%d-%d \xff' % (number, i) for i in range(3)]
        for session in [
            *range(number * LINES, (number + 1) * LINES),
            draw.randrange(number * LINES + 1),
        ]:
            events = [{"aid": a, "ts": T0 + DAY * a + session, "type": "clicks"} for a in range(3)]
            lines.append(json.dumps({"session": session, "events": events}).encode())
        draw.shuffle(lines)
        (folder / f"{number:02}.jsonl").write_bytes(b"\n".join(lines))
    return folder


def whole_files_only():
    """What is visible is whole: each load's rows and rejects, and nothing besides."""
    loads = lake.history(EVENTS) if delta.find("events") else []
    assert sum(a.rows_kept for a in loads) == (lake.read(EVENTS).height if loads else 0)
    assert all(a.lines_in == LINES + 4 for a in loads)


def check(raw):
    """All files, whole, once; and nothing is left that no table knows."""
    whole_files_only()
    for path in sources.find(str(raw)).raw_files:
        lake.load_file(EVENTS, sources.open_file(path, EVENTS))
    whole_files_only()
    assert len(lake.history(EVENTS)) == FILES
    rows = lake.read(EVENTS).rows()
    wanted = {(s, a, T0 + DAY * a + s, "clicks") for s in range(FILES * LINES) for a in range(3)}
    assert len(rows) == len(wanted)
    assert set(rows) == wanted
    bad = sorted(b'{"bad": "%d-%d \xff' % (n, i) for n in range(FILES) for i in range(3))
    assert sorted(lake.rejects(EVENTS)["raw"]) == bad
    left = sum(len(unknown(name)) for name in ("events", "rejects"))
    swept = sum(delta.vacuum(name, 0, []) for name in ("events", "rejects"))
    print(f"{left} orphans, {swept} swept")
    assert swept == left
    assert not unknown("events") | unknown("rejects")
    assert lake.read(EVENTS).height == len(wanted)


def unknown(name):
    """Data files in a table's folder that no version of it has named."""
    fs, root = lake_storage.filesystem(name)
    there = {
        path.removeprefix(root).strip("/")
        for path in fs.find(root, refresh=True)
        if path.endswith(".parquet")
    }
    return {path for path in there if "_delta_log" not in path} - set(
        delta.files(delta.find(name))["path"]
    )


@pytest.mark.parametrize("kills", [12, pytest.param(60, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "storage", ["disk", pytest.param("s3", marks=pytest.mark.long)], indirect=True
)
def test_random_kills_leave_whole_files_and_orphans_that_are_swept(
    storage, kills, raw, tmp_path, request
):
    # The first load of a child takes longest: it imports on its way.
    draw, longest = random.Random(kills), 1500 if storage == "disk" else 3000
    kill(str(raw), [str(draw.randint(300, longest)) for _ in range(kills)], tmp_path)
    check(raw)
    if storage == "s3":
        import boto3

        s3 = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
        assert "Uploads" not in s3.list_multipart_uploads(Bucket="shop")


@pytest.mark.parametrize(
    "storage", ["disk", pytest.param("s3", marks=pytest.mark.long)], indirect=True
)
def test_a_kill_at_any_step_leaves_whole_files(storage, raw, tmp_path):
    kill(str(raw), BOUNDARIES, tmp_path)
    check(raw)
    assert quarantine.sources(EVENTS).height == FILES
