"""Ids of requests and answers: whole numbers, text, and numbers that int64 does not hold."""

import numpy as np
import polars as pl
import pytest

from kreislauf.evaluation import scoring
from models import spec
from models.fields import LONGEST_ID
from models.spec import ModelSpec, TrainingContext
from tests.models.test_every_model import small_shop, with_text_ids

NUMBERS = spec.load("session_recommender")
TEXT = spec.load("session_recommender_text")
LARGE = 2**53 + 1


def asked(model_type: ModelSpec, *aids: object, **more: object) -> tuple[list, list]:
    """Articles that the model is asked with, and how those of its answer are written."""
    request = {"events": [{"aid": aid} for aid in aids], **more}
    inputs = model_type.tensors([request])["article_ids"][0]
    article_ids = inputs[inputs != model_type.ids.padding]
    shown = {"article_ids": article_ids.tolist(), "scores": [0.5] * len(article_ids)}
    written = model_type.answer_form(request)(shown)
    assert written["scores"] == shown["scores"]
    return article_ids.tolist(), written["article_ids"]


def test_large_numbers_leave_as_they_came():
    assert asked(NUMBERS, LARGE, 7) == ([LARGE, 7], [LARGE, 7])
    assert asked(NUMBERS, str(LARGE), "7") == ([LARGE, 7], [str(LARGE), "7"])
    assert asked(NUMBERS, LARGE, ids="text") == ([LARGE], [str(LARGE)])
    assert asked(NUMBERS, str(LARGE), ids="number") == ([LARGE], [LARGE])


def test_what_int64_does_not_hold_is_text():
    ids = [2**64 - 1, -5, 0]
    assert asked(TEXT, *ids) == ([str(each) for each in ids], ids)
    assert asked(TEXT, *map(str, ids)) == ([str(each) for each in ids], [str(each) for each in ids])
    assert asked(TEXT, "SKU ö", "007", ids="number") == (["SKU ö", "007"], ["SKU ö", "007"])


@pytest.mark.parametrize("aid", ["07", "+7", " 7", "", "x", "٣", -1, 2**63, str(2**63), 1.0, True])
def test_what_is_no_whole_number_is_refused(aid: object):
    with pytest.raises(ValueError, match=r'events\[0\]\["aid"\] is .*an integer from 0 to 2\^63'):
        asked(NUMBERS, aid)


@pytest.mark.parametrize("aid", ["", "x" * (LONGEST_ID + 1), 1.5, True, None, ["a"]])
def test_what_is_no_text_is_refused(aid: object):
    with pytest.raises(ValueError, match=r"Send an article id, text of 1 to 100 characters"):
        asked(TEXT, aid)


def test_another_word_for_the_form_of_ids_is_refused():
    for word in ("texts", 5, None, ["text"]):
        if word is None:
            assert asked(TEXT, "a", ids=word) == (["a"], ["a"])
            continue
        with pytest.raises(ValueError, match='Send "number" or "text"'):
            asked(TEXT, "a", ids=word)


def test_the_item_of_a_feedback_is_the_same_as_number_and_as_text():
    assert [NUMBERS.item(value) for value in (7, "7", "x", None)] == [7, 7, "x", None]
    assert [TEXT.item(value) for value in (7, "7", "x", None)] == ["7", "7", "x", None]


def test_padding_is_no_article():
    for model_type in (NUMBERS, TEXT):
        inputs = model_type.tensors([{"events": []}])["article_ids"]
        assert (inputs == model_type.ids.padding).all()
        assert inputs.dtype == model_type.ids.dtype
        outputs = {"answers": inputs, "scores": np.zeros(inputs.shape, np.float32)}
        assert model_type.answers(outputs) == [{"article_ids": [], "scores": []}]


@pytest.mark.slow
def test_text_has_the_ranks_and_scores_of_numbers(tmp_path):
    rows = small_shop()
    answers = {}
    for model_type, own in ((NUMBERS, rows), (TEXT, with_text_ids(rows))):
        folder = tmp_path / model_type.name
        folder.mkdir()
        trained = model_type.train(own, model_type.Params.tiny(), TrainingContext(folder))
        again = model_type.train(
            own,
            model_type.Params.tiny(),
            TrainingContext(folder / "warm", trained.weights, own["session"].unique().sort()[-50:]),
        )
        assert again.is_warm
        examples = model_type.examples(own)
        files = (trained.onnx, again.onnx, model_type.baseline(own, folder))
        outputs = [scoring.answer(file, examples.inputs) for file in files]
        answers[model_type.name] = outputs, [model_type.score(examples, each) for each in outputs]
    (numbers, recalls), (names, text_recalls) = answers.values()
    for by_number, by_text in zip(numbers, names, strict=True):
        ids = by_number["answers"].ravel()
        assert (ids >= 0).all()
        as_text = with_text_ids(pl.DataFrame({"aid": ids, "session": ids}))["aid"]
        assert by_text["answers"].ravel().tolist() == as_text.to_list()
        assert by_text["scores"].tolist() == by_number["scores"].tolist()
    assert np.array_equal(recalls, text_recalls)
    assert np.mean(recalls) > 0.3
