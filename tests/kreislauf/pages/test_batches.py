"""The lifecycle page has the batches that were answered last, where a model type has any."""

import re

import polars as pl
import pytest

from kreislauf.batch import answers, history
from kreislauf.lake import compaction
from kreislauf.pages import life
from models.session_recommender import SPEC
from tests.kreislauf.pages import story
from tests.kreislauf.pages.story import FIRST, MODEL, WEEK
from tests.kreislauf.pages.test_lifecycle import cells, page, section


def test_the_batches_are_shown_with_what_was_asked_answered_refused_and_clicked():
    story.write_batches()
    rows = cells(section(page(), "Batches"))
    assert rows[0] == [
        "window or file",
        "version",
        "answered",
        "refused",
        "clicks per answer",
        "batch",
    ]
    file = "s3://shop/requests/2026-10-05.jsonl.gz"
    assert rows[1] == [file, "1", "10", "2", "-", f"{MODEL}-1-file-0"]
    window = "2026-10-04 00:00 to 2026-10-05 00:00"
    assert rows[2] == [window, "1", "1,200", "0", "0.2500", f"{MODEL}-1-window-3"]
    assert "Prefect: batches" in page()


def test_no_batches_are_shown_where_there_are_none():
    story.write_batch("a", 3, model="session_recommender_text")
    html = page()
    assert "Batches" not in html
    assert "Prefect: batches" not in html
    of_texts = history.newest("session_recommender_text", 5)
    assert [answered.answered for answered in of_texts] == [3], "names begin with the model type's"


def test_young_answers_have_no_clicks_yet():
    batch = story.write_batch("young", 4, ts=FIRST + WEEK)
    story.write_batch("old", 4, clicked=1)
    assert page().count(">0.2500<") == 1
    story.react(batch, 2)
    assert page().count(">0.5000<") == 1


def test_a_page_has_the_newest_batches_among_those_of_others(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(history, "COMMITS_AT_ONCE", 3)
    for number in range(life.MAX_BATCHES + 2):
        story.write_batch(f"n{number:02}", 1)
        story.write_batch(f"{number:02}", 1, model="other")
    shown = history.newest(MODEL, life.MAX_BATCHES)
    assert [answered.batch.place[-3:] for answered in shown] == [
        f"n{number:02}" for number in range(life.MAX_BATCHES + 1, 1, -1)
    ]
    assert len(cells(section(page(), "Batches"))) == 1 + life.MAX_BATCHES
    monkeypatch.setattr(history, "MAX_COMMITS", 5)
    assert len(history.newest(MODEL, life.MAX_BATCHES)) == 3, "older commits are not looked at"


def test_a_batch_that_another_has_replaced_is_gone_and_merged_files_are_one_batch():
    window = {"start": FIRST, "end": FIRST + WEEK}
    story.write_batch("w", 5, table_version=1, **window)
    batch, first = story.put_batch("w", 4, table_version=2, **window)
    _, second = story.put_batch("w", 3, 1, table_version=2, **window)
    answers.commit(batch, [first, second])
    assert compaction.compact(answers.ANSWERS) == 1
    (shown,) = history.newest(MODEL, 5)
    assert shown.batch == batch
    assert (shown.answered, shown.refused) == (7, 1)


def test_counting_reads_no_answer(monkeypatch: pytest.MonkeyPatch):
    batch = story.write_batch("a", 50, refused=2)
    plans = []
    collect = pl.LazyFrame.collect

    def collect_planned(lazy: pl.LazyFrame) -> pl.DataFrame:
        plans.append(lazy.explain())
        return collect(lazy)

    monkeypatch.setattr(pl.LazyFrame, "collect", collect_planned)
    assert answers.counts(batch) == {"answered": 50, "refused": 2}
    (plan,) = plans
    assert re.findall(r"PROJECT (\d+)/9 COLUMNS", plan) == ["2"], "the batch, and the refusal"


def test_a_model_type_without_a_server_has_neither_tests_nor_a_dashboard_of_live_answers(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(type(SPEC), "is_served", False)
    story.write_release(1, 1, FIRST)
    html = page()
    assert "Nothing was answered in batches yet." in section(html, "Batches")
    assert "only asked in batches, so there are no A/B tests." in section(html, "A/B tests")
    assert "Grafana" not in html
    assert "Version 1 is live since" in html
    story.write_batches()
    assert len(cells(section(page(), "Batches"))) == 3
