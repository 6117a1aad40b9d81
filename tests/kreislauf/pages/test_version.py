"""The page of a version begins with what follows, for people who run a shop."""

import polars as pl
import pytest

from kreislauf import registry
from kreislauf.evaluation import gate
from kreislauf.evaluation.gate import Decision
from kreislauf.pages import version as version_page

LINEAGE = registry.Lineage(
    key="k", table="events", table_version=3, start=1, holdout=5, watermark=9, digest="d" * 64
)
VERSION = registry.Version(
    model="m", number=3, run_id="r", digests={"model.onnx": "e" * 64}, lineage=LINEAGE
)


def test_rows_ahead_of_the_data_are_on_the_page():
    lineage = LINEAGE.model_copy(update={"ahead": 40})
    text = version_page.page(
        VERSION.model_copy(update={"lineage": lineage}),
        decision("promote", None),
        0.02,
        {},
        pl.DataFrame(),
    )
    assert "40 rows were later than that" in text


def decision(outcome: gate.Outcome, champion: int | None) -> Decision:
    return Decision(
        outcome=outcome, reasons=["So it is."], metric="recall@20", champion_version=champion
    )


@pytest.mark.parametrize(
    ("outcome", "champion", "sentence"),
    [
        ("promote", 1, "Version 3 has passed all tests and may replace version 1."),
        ("promote", None, "Version 3 has passed all tests and may go live, as the first."),
        ("refuse", 1, "Version 3 is not good enough to go live, so version 1 stays live."),
        ("refuse", None, "Version 3 is not good enough to go live, so nothing is live yet."),
        (
            "inconclusive",
            1,
            "It is not certain yet whether version 3 is good enough, so version 1 stays live.",
        ),
    ],
)
def test_the_first_sentence_says_what_follows_and_the_reasons_come_after(
    outcome, champion, sentence
):
    text = version_page.page(VERSION, decision(outcome, champion), 0.02, {}, pl.DataFrame())
    heading, first, reasons, *_ = text.split("\n\n")
    assert heading == f"# m version 3: {outcome}"
    assert first == sentence
    assert reasons == "So it is."


def test_a_parent_is_named_only_where_there_is_one():
    def text_of(parent: int | None) -> str:
        lineage = LINEAGE.model_copy(update={"parent": parent})
        version = VERSION.model_copy(update={"lineage": lineage})
        return version_page.page(version, decision("promote", 1), 0.02, {}, pl.DataFrame())

    assert "those whose weights it started from" in text_of(1)
    assert "started from no other one's weights" in text_of(None)
