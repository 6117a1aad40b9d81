"""The exploration runs on a small lake, as a script and cell by cell, and names what was planted
there."""

import ast
import json
import re
import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest
from matplotlib.image import imread

from demo import raw_files
from models.session_recommender.schema import EVENTS
from notebooks import suspects
from tasks.lake import load_file
from tests.conftest import ROOT

NOTEBOOK = ROOT / "notebooks" / "explore.py"
PICTURES = ("lake", "rejects", "popularity", "sessions", "suspects")
T0, DAY, HOUR = 1_767_225_600_000, 86_400_000, 3_600_000
"""2026-01-01."""
OUTAGE = T0 + 4 * DAY + 14 * HOUR
FAST, LONG, NOWHERE, AGAIN, JUMP = 777_001, 777_002, 777_003, 777_004, 424_242
DIRTY = [b"<b>$no$ JSON</b>"] + [
    json.dumps({"session": i, "events": [{"aid": 1, "ts": T0, "type": "views"}]}).encode()
    for i in range(5)
]


def clicks(
    session: int, start: int, articles: list[int], step: int
) -> list[tuple[int, int, int, str]]:
    return [(session, article, start + i * step, "clicks") for i, article in enumerate(articles)]


def frame(rows: list[tuple[int, int, int, str]]) -> pl.DataFrame:
    return pl.DataFrame(rows, ["session", "aid", "ts", "type"], orient="row").sort("session", "ts")


def calm(days: int = 8) -> list[tuple[int, int, int, str]]:
    """Fourteen visitors an hour, who click every 5 to 60 seconds, put something into a cart, and
    order it."""
    rng, rows = np.random.default_rng(0), []
    for session in range(days * 24 * 14):
        start = T0 + session // 14 * HOUR + int(rng.integers(2_400_000))
        times = (start + rng.integers(5_000, 60_000, rng.integers(3, 15)).cumsum()).tolist()
        types = ["clicks"] * (len(times) - 2) + ["carts", "orders"]
        rows += [
            (session, int(rng.integers(300)), t, event_type)
            for t, event_type in zip(times, types, strict=True)
        ]
    return rows


def disturbed() -> list[tuple[int, int, int, str]]:
    """The same with an hour without events, and with visitors that no shop has."""
    rows = [row for row in calm() if row[2] // HOUR != OUTAGE // HOUR]
    rows += clicks(FAST, T0 + 2 * DAY, list(range(1000, 1060)), step=1100)
    rows += clicks(LONG, T0 + 3 * DAY, list(range(1000, 1250)), step=10_000)
    rows += [
        (NOWHERE, 5, T0 + 3 * DAY + HOUR, "orders"),
        (NOWHERE, 5, T0 + 3 * DAY + 2 * HOUR, "clicks"),
    ]
    rows += clicks(AGAIN, T0 + 6 * DAY, [7, 7, 7, 7, 8], step=300)
    return rows + [
        (800_000 + i, JUMP, T0 + 5 * DAY + 9 * HOUR + i * 1000, "clicks") for i in range(60)
    ]


def ingest(
    rows: list[tuple[int, int, int, str]], folder: Path, dirty: Sequence[bytes] = ()
) -> None:
    """Fill the lake as the flow does, with two files; the second one ends with dirty lines."""
    events = frame(rows)
    is_second = pl.col("session") > events["session"].median()
    for name, batch, lines in (
        ("first", events.filter(~is_second), ()),
        ("second", events.filter(is_second), dirty),
    ):
        if batch.height:
            path = raw_files.write(batch, folder / f"{name} $^$.jsonl")
            path.write_bytes(path.read_bytes() + b"\n".join(lines))
            load_file.fn(str(path), EVENTS, 1.0)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


def run_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same in this process, which has imported everything already."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", ["explore", str(folder)])
    runpy.run_path(str(NOTEBOOK), run_name="__main__")
    return check(folder)


def check(folder: Path) -> str:
    """All pictures are there and show something; returns the page."""
    page = (folder / "index.html").read_text()
    assert {path.stem for path in folder.glob("*.png")} == set(PICTURES)
    for name in PICTURES:
        pixels = (255 * imread(folder / f"{name}.png")[:, :, :3]).astype(int) @ (65_536, 256, 1)
        assert min(pixels.shape) > 300, name
        assert len(np.unique(pixels)) > 20, name
        assert 0.005 < (pixels != 0xFFFFFF).mean() < 0.9, name
    assert page.count("data:image/png;base64,") == len(PICTURES) == page.count("<p>")
    assert "http" not in page
    assert not re.search(r"\b(nan|None|inf)\b", re.sub('base64,[^"]*', "", page))
    return page


def tables(page: str) -> dict[str, list[list[str]]]:
    """Cells of the page's tables by their captions, without the names of the columns."""
    captioned = re.findall(r"<table><caption>(.*?)</caption>(.*?)</table>", page, re.S)
    return {
        caption: [re.findall("<td>(.*?)</td>", row, re.S) for row in rows.split("<tr>")[2:]]
        for caption, rows in captioned
    }


def test_it_names_what_was_planted(home: Path, tmp_path: Path):
    ingest(disturbed(), tmp_path, DIRTY)
    done = run("-m", "notebooks.explore")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{home / 'explore' / 'index.html'}\n"
    page = check(home / "explore")
    rejected, fast, long, jumps, outages, again, nowhere = tables(page).values()
    assert [row[1] for row in fast] == [str(FAST)]
    assert [row[1] for row in long] == [str(LONG), str(FAST)]
    assert [row[:3] for row in jumps] == [["2026-01-06 09:00:00", str(JUMP), "60"]]
    assert [row[:2] for row in outages] == [["2026-01-05 14:00:00", "1"]]
    assert [row[1:] for row in again] == [[str(AGAIN), "7", "3"]]
    assert nowhere == [["2026-01-04 01:00:00", str(NOWHERE), "1"]]
    assert [row[0] for row in rejected] == ["unknown-value"] * 3 + ["bad-json"]
    assert rejected[3][2:] == [
        str(tmp_path / "second $^$.jsonl"),
        rejected[3][3],
        "&lt;b&gt;$no$ JSON&lt;/b&gt;",
    ]
    assert "6 lines are in quarantine" in page
    assert "Most frequent is unknown-value (Invalid enum value &#x27;views&#x27;" in page
    assert "outages (hours without events): 1;" in page


def test_a_calm_shop_has_no_suspects_and_no_rejects(tmp_path: Path):
    ingest(calm(), tmp_path)
    done = run(str(NOTEBOOK.relative_to(ROOT)), str(tmp_path / "out"))
    assert (done.returncode, done.stderr) == (0, "")
    page = check(tmp_path / "out")
    assert tables(page) == {}
    assert "none is in quarantine" in page
    conversion = "100 % of the sessions with clicks have carts; "
    conversion += "100 % of the sessions with carts have orders."
    assert conversion in page


SMALL = {
    "one event": [(1, 10, T0, "clicks")],
    "one session": clicks(1, T0, [10, 11, 10], 30_000),
    "one day": [row for row in calm(1) if row[2] < T0 + DAY],
    "clicks only": [row for row in calm(2) if row[3] == "clicks"],
    "orders only": [(1, 10, T0, "orders"), (2, 11, T0 + 9 * DAY, "orders")],
    "clicks later": [(1, 10, T0, "orders"), (2, 11, T0 + 9 * DAY, "clicks")],
    "far apart": [*clicks(1, T0, [10, 11], 1000), *clicks(2, 1_000_000_000_000, [10, 12], 1000)],
    "one instant": [(session, 10, T0, "clicks") for session in range(30)],
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rows", SMALL.values(), ids=SMALL)
def test_little_data_is_enough(rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ingest(rows, tmp_path)
    page = run_here(tmp_path / "out", monkeypatch)
    assert f"{len(rows):,} events" in page
    assert not {caption.split()[0] for caption in tables(page)} & {"outages", "hours"}


def test_a_clock_that_was_made_up_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ingest(
        [row for session in range(9) for row in clicks(session, T0, [1, 2, 3, 4], 20_000)], tmp_path
    )
    assert "100 % of the steps take exactly 20 s" in run_here(tmp_path / "out", monkeypatch)


def test_it_says_what_to_do_without_a_lake(home: Path, tmp_path: Path):
    done = run("-m", "notebooks.explore")
    assert done.returncode == 1
    assert re.fullmatch(
        r"There is no table events in .*lake yet. Ingest raw files first.*\n", done.stderr
    )
    assert not (home / "explore").exists()


def test_it_says_so_if_every_line_was_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "bad.jsonl").write_bytes(b"\n".join(DIRTY))
    load_file.fn(str(tmp_path / "bad.jsonl"), EVENTS, 1.0)
    with pytest.raises(
        SystemExit, match=r"no rows: all lines were rejected. Invalid enum value 'views'"
    ):
        run_here(tmp_path / "out", monkeypatch)


def cells() -> list[tuple[str, str]]:
    """Markers and texts of the notebook's cells."""
    begin, *texts = re.split(r"^# %%(.*)\n", NOTEBOOK.read_text(), flags=re.M)
    assert begin == ""
    return list(zip(texts[::2], texts[1::2], strict=True))


def test_it_is_a_notebook_whose_cells_show_their_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What Jupyter does: it starts in the folder of the notebook, has no `__file__`, and shows a
    cell's last value."""
    ingest(disturbed()[-500:], tmp_path, DIRTY)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    monkeypatch.chdir(NOTEBOOK.parent)
    names: dict = {"__name__": "__main__"}
    shown = []
    for marker, text in cells():
        if marker == " [markdown]":
            assert all(line.startswith("#") for line in text.strip().splitlines())
            continue
        assert marker == ""
        *body, last = ast.parse(text).body
        exec(compile(ast.Module(body, []), str(NOTEBOOK), "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), names)
            shown += [value._repr_html_()] if hasattr(value, "_repr_html_") else []
        else:
            exec(compile(ast.Module([last], []), str(NOTEBOOK), "exec"), names)
    assert Path.cwd() == ROOT
    assert [re.search('alt="(.*?)"', picture)[1] for picture in shown] == list(PICTURES)


def test_limits_follow_the_data():
    assert suspects.limit(pl.Series([], dtype=pl.Float64)) == suspects.DEFAULT_LIMIT
    assert suspects.limit(pl.Series([3.0])) == pytest.approx(6)
    assert suspects.limit(pl.Series([3.0]), times=5) == pytest.approx(15)
    assert suspects.limit(pl.Series([2] * 60 + [9] * 40)) == pytest.approx(28, rel=0.05)
    values = pl.Series(np.random.default_rng(0).lognormal(1, 0.5, 10_000))
    assert np.log(suspects.limit(values)) == pytest.approx(1 + 3.5 * 0.5, abs=0.05)
    assert suspects.limit(values * 60) == pytest.approx(60 * suspects.limit(values))
    assert suspects.limit(pl.concat([values, pl.Series([1e9] * 500)])) == pytest.approx(
        suspects.limit(values), rel=0.3
    )


def test_a_quiet_night_is_no_outage_and_hours_in_a_row_are_one():
    rows = [
        row
        for row in calm()
        if row[2] // HOUR % 24 > 4 and row[2] // HOUR - T0 // HOUR not in (30, 31, 32, 80)
    ]
    outages = suspects.outages(suspects.hours(frame(rows)))
    hours = outages.select((pl.col("when").dt.epoch("ms") - T0) // HOUR, "hours").rows()
    assert hours == [(30, 3), (80, 1)]


def test_an_order_needs_an_earlier_click_or_cart_in_its_session():
    rows = [
        (1, 5, 100, "clicks"),
        (1, 6, 100, "orders"),
        (2, 5, 99, "orders"),
        (2, 5, 100, "carts"),
        (3, 5, 9, "orders"),
    ]
    assert suspects.orders_from_nowhere(frame(rows))["session"].to_list() == [3, 2]


def test_a_repeated_click_is_the_same_article_in_the_same_session_within_a_second():
    rows = [
        (1, 5, 0, "clicks"),
        (1, 6, 500, "clicks"),
        (1, 5, 999, "clicks"),
        (1, 5, 1999, "clicks"),
        (2, 5, 2000, "clicks"),
    ]
    rows += [(3, 5, 0, "clicks"), (3, 5, 10, "carts")]
    assert suspects.repeated_clicks(frame(rows)).drop("when").rows() == [(1, 5, 1)]
