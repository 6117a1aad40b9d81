import pytest

from kreislauf.evaluation.intervals import Interval
from kreislauf.monitoring.finding import Finding
from kreislauf.monitoring.policy import Action
from kreislauf.pages.monitor import clicks, summary

WHEN = "(2026-01-23 00:04 to 2026-01-27 00:04, UTC)"


@pytest.mark.parametrize(
    ("verdict", "action", "sentence"),
    [
        ("stable", {}, f"Visitors and answers are as usual {WHEN}, so nothing has to be done."),
        (
            "concept drift",
            {"event": "decay"},
            f"Visitors want other things than the model has learnt {WHEN}, "
            "so the model is trained again.",
        ),
        (
            "concept drift",
            {},
            f"Visitors want other things than the model has learnt {WHEN}, "
            "but it is too early to train the model again.",
        ),
        (
            "data fault",
            {"event": "fault", "exclude": (1, 2)},
            f"The shop's data looks wrong {WHEN}, "
            "so the model will not learn from these days' faulty part.",
        ),
        (
            "data fault",
            {"event": "fault"},
            f"The shop's data looks wrong {WHEN}, and somebody should look at it.",
        ),
        (
            "covariate shift",
            {},
            f"Other visitors came than usual, and the model still suits them {WHEN}, "
            "so nothing has to be done.",
        ),
    ],
)
def test_the_page_begins_with_a_sentence_for_the_shop_s_manager(verdict, action, sentence):
    finding = Finding(
        model="tiny",
        version=1,
        start=1_769_126_663_003,
        end=1_769_472_263_002,
        groups=9,
        verdict=verdict,
        reason="Evidence.",
    )
    assert summary(finding, Action(**action)) == sentence


def test_who_got_no_model_is_not_called_a_version():
    rate = Interval(mean=0.2, low=0.1, high=0.3)
    table = clicks([(0, "challenger", 40, rate), (2, "champion", 60, rate)])
    assert "| no model | challenger | 40 | +0.2000" in table
    assert "| version 2 | champion | 60 | +0.2000" in table
