"""The support answers: what is read of a text, what is handed over, and what a kill leaves."""

import os
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import polars as pl
import pytest
import torch
from pandera.errors import SchemaError
from polars.testing import assert_series_equal

from benchmarks import support
from kreislauf.evaluation import scoring
from models.spec import TrainingContext, TrainingResult, ignore
from models.support_answers import (
    SPEC,
    Params,
    calibration,
    export,
    features,
    fit,
    reader,
    training,
    warm_start,
)
from models.support_answers.bags import Bags
from models.support_answers.network import Network, rarity
from models.support_answers.ngrams import Ngrams
from models.support_answers.schema import LONGEST_TEXT, OUT_OF_SCOPE, Question
from tests.conftest import ROOT
from tests.models.support_questions import questions

TINY = Params.tiny()


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    return questions(400)


@pytest.fixture(scope="module")
def trained(rows, tmp_path_factory) -> TrainingResult:
    return SPEC.train(rows, TINY, TrainingContext(tmp_path_factory.mktemp("trained")))


def bag(text: str) -> list[int]:
    """Rows of the n-grams of a text, ascending."""
    graph = export.ngrams_graph(TINY.buckets)
    return sorted(export.bags(graph, np.array([[text]], object))[0].tolist())


def letters(text: str) -> list[list[int]]:
    """What `reader.graph` should make of a text, slowly."""
    numbers = reader.numbers()
    words = text.split(" ")[: reader.WORDS]
    return [[numbers.get(letter, 0) for letter in word[: reader.LETTERS]] for word in words if word]


def test_the_graph_has_plain_operators_only(trained):
    assert {node.domain for node in onnx.load(trained.onnx).graph.node} == {""}


@pytest.mark.parametrize(
    "text", ["Größe 38 kostet 5 €?", "a\tb\nc", "日本 é\0x", "ö" * 50, "", " "]
)
def test_the_reader_reads_letter_by_letter(text: str):
    session = export.session_of(reader.graph())
    (read,) = session.run(["letters"], {"text": np.array([[text]], object)})
    expected = np.zeros(read.shape[1:], int)
    for row, word in zip(expected, letters(text), strict=False):
        row[: len(word)] = word
    assert read[0].tolist() == expected.tolist()
    assert not read[0, -1].any()


def test_spellings_of_a_word_are_one_word():
    assert bag("Rückgabe der STRASSE, bitte!") == bag("rueckgabe der Straße bitte")
    assert bag("Päckchen") == bag(unicodedata.normalize("NFD", "PÄCKCHEN"))
    assert bag("Rückgabe") != bag("Rückgabé e")
    assert bag("where is it") != bag("is it where"), "the order counts"


def test_a_compound_shares_ngrams_with_its_parts():
    compound = set(bag("Päckchenverfolgung"))
    part = set(bag("Päckchen"))
    assert len(part & compound) > len(part) / 2
    assert len(set(bag("Gutschein")) & compound) < len(part) / 4


def test_hashes_do_not_depend_on_the_longest_question_of_the_batch():
    draw = torch.Generator().manual_seed(0)
    words = torch.randint(0, 37, (4, 6, reader.LETTERS), generator=draw)
    # The reader puts an empty word at the end.
    words = torch.nn.functional.pad(words, (0, 0, 0, 1))
    together = Ngrams()(torch.nn.functional.pad(words, (0, 0, 0, 3)))
    for question, wider in zip(words, together, strict=True):
        alone = Ngrams()(question[None])
        assert sorted(alone[alone > 0].tolist()) == sorted(wider[wider > 0].tolist())
    assert not Ngrams()(torch.zeros_like(words)).any()


def test_what_cannot_be_read_is_handed_over(trained):
    strange = ["", " \n", "?!", "日本語", "👩‍👩‍👧"]
    outputs = scoring.answer(trained.onnx, SPEC.tensors([{"text": text} for text in strange]))
    assert outputs["hand_over"].all()
    (fallback,) = SPEC.answers(scoring.answer(trained.onnx, SPEC.tensors([SPEC.fallback])))
    assert SPEC.items(fallback) == []


def test_both_languages_are_learnt_and_nothing_is_learnt_of_what_is_out_of_scope(rows, trained):
    later = questions(200, seed=1, first=400)
    examples = SPEC.examples(later)
    outputs = scoring.answer(trained.onnx, examples.inputs)
    assert SPEC.score(examples, outputs).mean() > 0.9
    assert OUT_OF_SCOPE not in set(outputs["intent"][:, 0])
    assert len(examples) == (later["intent"] != OUT_OF_SCOPE).sum()
    assert set(warm_start.read_parent(trained.weights).intents) == set(rows["intent"]) - {"oos"}


def test_the_threshold_answers_as_many_as_the_error_allows():
    confidence = np.array([0.9, 0.8, 0.8, 0.6, 0.5, 0.2])
    is_right = np.array([True, True, False, True, True, False])
    answered = {
        error: int((confidence >= calibration.threshold(confidence, is_right, error)).sum())
        for error in (0.1, 0.2, 0.25, 0.34)
    }
    assert answered == {0.1: 1, 0.2: 5, 0.25: 5, 0.34: 6}
    assert calibration.threshold(confidence, ~is_right, 0.1) == calibration.NEVER


def test_the_temperature_makes_scores_as_sure_as_they_are_right():
    draw = np.random.default_rng(0)
    scores = draw.normal(size=(4_000, 5))
    shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    labels = np.array([draw.choice(5, p=share) for share in shares])
    assert calibration.temperature(3 * scores, labels) == pytest.approx(3, rel=0.1)


def test_a_parent_lends_what_it_knows_of_each_intent(rows, trained, tmp_path):
    renamed = rows.with_columns(pl.col("intent").replace("size", "a new intent"))
    result = SPEC.train(renamed, TINY, TrainingContext(tmp_path, trained.weights))
    assert result.is_warm
    parent, child = map(warm_start.read_parent, (trained.weights, result.weights))
    assert "a new intent" in child.intents
    assert parent.tensors["vectors"].shape == child.tensors["vectors"].shape


@pytest.mark.parametrize("change", [{"buckets": 512}, {"dim": 8}])
def test_a_parent_of_another_shape_or_that_saw_what_is_held_out_is_not_used(rows, trained, change):
    def starts_warm(shown: pl.DataFrame, params: Params) -> bool:
        data = training.Questions.of(features.with_answer(shown).sort("ts"), params)
        weights = rarity(data.learnt.rows, params.buckets)
        network = Network(weights, params.dim, params.members, len(data.intents))
        return training.start_warm(network, data, trained.weights)

    assert starts_warm(rows, TINY)
    assert not starts_warm(rows, TINY.model_copy(update=change))
    assert not starts_warm(rows.head(300), TINY), "the parent learnt from the newest of these"


def test_too_few_questions_are_refused(rows, tmp_path):
    with pytest.raises(ValueError, match="have 0 questions that a known answer fits"):
        SPEC.train(rows.filter(pl.col("intent") == "oos"), TINY, TrainingContext(tmp_path))


def short_fit(folder: Path, report: Callable[[float, dict[str, float]], None] = ignore) -> dict:
    """A fit on noise: its curves and weights."""
    draw = np.random.default_rng(0)
    noise = Bags([draw.integers(1, 50, 9) for _ in range(100)], draw.integers(0, 3, 100))
    torch.manual_seed(0)
    network = Network(torch.ones(51), TINY.dim, TINY.members, 3, TINY.dropout)
    work = TrainingContext(folder, report=report)
    stage = fit.Stage("noise", noise, noise, TINY.epochs, (0.0, 1.0))
    curves = fit.fit(network, stage, TINY, work)
    return {"curves": curves, "sum": network.vectors.abs().sum().item()}


def kill(share: float, metrics: dict[str, float]) -> None:
    """Kill this process after the second epoch, before its checkpoint."""
    if share > 0.5:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_training_that_was_killed_goes_on_and_ends_the_same(tmp_path):
    folders = [tmp_path / name for name in ("killed", "whole")]
    for folder in folders:
        folder.mkdir()
    code = (
        "import sys; from pathlib import Path; from tests.models import test_support_answers as t; "
        "t.short_fit(Path(sys.argv[1]), t.kill)"
    )
    killed = subprocess.run([sys.executable, "-c", code, folders[0]], cwd=ROOT, timeout=300)
    assert killed.returncode == -signal.SIGKILL
    assert (folders[0] / "noise.ckpt").exists()
    shares: list[float] = []
    again = short_fit(folders[0], lambda share, metrics: shares.append(share))
    assert shares == [pytest.approx(2 / 3), 1], "the first epoch is not repeated"
    assert again == short_fit(folders[1])
    assert short_fit(folders[0], kill) == again, "what was finished is not repeated"


def test_the_schema_refuses_what_was_corrupted(rows):
    Question.validate(rows)
    for wrong in (
        {"text": pl.lit("")},
        {"text": pl.lit("x" * (LONGEST_TEXT + 1))},
        {"intent": pl.lit("")},
        {"question": pl.lit("")},
        {"ts": pl.col("ts") // 1_000},
        {"text": pl.lit(None, pl.String)},
        {"more": pl.lit(1)},
    ):
        with pytest.raises(SchemaError):
            Question.validate(rows.with_columns(**wrong))


@pytest.mark.parametrize("request_", [{}, {"text": 5}, {"text": None}, [], {"text": "x" * 10_001}])
def test_a_wrong_request_is_named(request_):
    with pytest.raises(ValueError, match=r'Request 1: "text"'):
        SPEC.tensors([{"text": "where"}, request_])


def test_drift_of_text_is_seen(rows):
    profile = SPEC.training_profile(rows.lazy()).collect()
    signals = SPEC.monitored(rows.lazy(), profile).mean().collect()
    changed = rows.with_columns(text=pl.lit("Доставка zzz qqq"), intent=pl.lit("something new"))
    odd = SPEC.monitored(changed.lazy(), profile).mean().collect()
    assert (signals["unseen_words"].item(), signals["unseen_intent"].item()) == (0, 0)
    assert signals["other_script"].item() == 0
    assert 0 < signals["out_of_scope"].item() < 0.2
    assert odd.row(0, named=True) == {
        "log_words": pytest.approx(np.log(4)),
        "unseen_words": 1,
        "other_script": 1,
        "unseen_intent": 1,
        "out_of_scope": 0,
    }


def test_slices_and_coverage(rows):
    profile = SPEC.training_profile(rows.head(100).lazy()).collect()
    new = rows.tail(50).with_columns(
        intent=pl.when(pl.col("intent") == "size").then(pl.lit("new")).otherwise("intent")
    )
    slices = SPEC.slices(new, profile)
    answered = features.with_answer(new)
    assert len(slices) == len(SPEC.examples(new))
    assert_series_equal(
        slices["intent_seen"] == "unseen", answered["intent"] == "new", check_names=False
    )
    outputs = {
        "intent": np.array([["size"], ["size"], ["return"]], object),
        "hand_over": np.array([[False], [False], [True]]),
    }
    assert SPEC.coverage(outputs, profile) == pytest.approx(1 / 5)


def test_the_support_benchmark_ends_with_its_figures(tmp_path):
    for seed, (name, count) in enumerate({"train": 300, "val": 60, "test": 100}.items()):
        lines = questions(count, seed).select("text", "intent").write_ndjson()
        (tmp_path / f"{name}.jsonl").write_text(lines)
    measured = support.run(tmp_path, TINY)
    assert measured["accuracy"] > 0.8
    assert measured["accuracy_after_hand_over"] <= measured["accuracy"]
    assert measured["svm_accuracy"] > 0.8
    assert 0 <= measured["ece"] <= 1
    assert 0 <= measured["oos_recall"] <= 1
    assert measured["p50_ms"] > 0
    assert measured["train_seconds"] > 0
