"""`make status` shows each source of the lake, quickly, and a lake that does not answer as one."""

import os
import subprocess
import sys
import time

from deployments import sources, stack, status
from kreislauf import lake
from kreislauf.clock import DAY_MS, HOUR_MS, MINUTE_MS, span
from kreislauf.lake import journal
from models.session_recommender.schema import EVENTS
from tests.kreislauf.lake.test_lake import File, line


def land(source: str, age: int, number: int) -> None:
    """Two sessions of a source, the newest of which is `age` ms old."""
    newest = int(time.time() * 1000) - age
    seconds = [(newest - 1_700_000_000_000) // 1000 - back for back in (60, 0)]
    lines = [line(10 * number + n, (n, second)) for n, second in enumerate(seconds)]
    lake.load_file(EVENTS, File(f"{number}.jsonl", lines), source_name=source)


def test_each_source_is_shown_with_its_newest_event_and_its_lag(monkeypatch, capsys):
    for number, days in enumerate((9, 8, 7)):
        land("kafka://clicks", days * DAY_MS, 2 * number)
        land("/data/shop", days * DAY_MS + HOUR_MS, 2 * number + 1)
    land("kafka://clicks", 65 * MINUTE_MS, 9)
    journal.append_once("other", "key", lake.read(EVENTS).head(1))
    stream, folder = sources.show()
    assert stream.startswith("source       lands    kafka://clicks  into events, newest event 20")
    assert stream.endswith(" (UTC), 1 h 5 min ago")
    assert folder.startswith("source       stopped  /data/shop  into events, newest event 20")
    assert folder.endswith(" (UTC), 7 d 1 h ago")
    assert status.show({}, [stream]) == stream
    monkeypatch.setattr(sys, "argv", ["stack", "status"])
    stack.main()
    nothing, *shown = capsys.readouterr().out.splitlines()
    assert nothing.startswith("Nothing of ")
    assert shown == [stream, folder]


def test_of_many_sources_those_are_shown_that_were_loaded_last(monkeypatch):
    monkeypatch.setattr(sources, "MAX_SOURCES", 2)
    for number in range(4):
        land(f"/data/{number}", DAY_MS, number)
    *shown, more = sources.show()
    assert [text.split()[2] for text in shown] == ["/data/3", "/data/2"]
    assert more.strip() == "and 2 more into events"


def test_a_lake_that_does_not_answer_is_a_sentence(monkeypatch):
    monkeypatch.setenv("KREISLAUF_LAKE", "s3://nobody/lake")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    # In a process of its own: this one may have asked another server, and fsspec keeps that.
    code = "from deployments import sources; print(*sources.show(), sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (sentence,) = done.stdout.splitlines()
    assert sentence.startswith("sources      The lake at s3://nobody/lake/ does not answer (")
    monkeypatch.setenv("KREISLAUF_LAKE", "/nowhere/lake")
    assert sources.show() == [], "there is none yet"


def test_the_status_loads_neither_rules_nor_models():
    land("/data/shop", DAY_MS, 1)
    heavy = "pandera", "pandas", "torch", "prefect", "mlflow", "onnx"
    code = (
        "import sys; from deployments import sources; assert sources.show(); "
        f"sys.exit(', '.join(set({heavy}) & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ
    )
    assert done.stderr.strip() == ""


def test_a_length_of_time_is_said_in_two_units():
    lengths = [0, 59_999, 5 * MINUTE_MS, 65 * MINUTE_MS, 2 * HOUR_MS, DAY_MS + 61 * MINUTE_MS]
    words = ["0 min", "0 min", "5 min", "1 h 5 min", "2 h", "1 d 1 h"]
    assert [span(length) for length in lengths] == words
