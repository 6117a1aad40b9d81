"""The search ranker's own numerics: gains, NDCG, the network, requests, resumption."""

import math

import msgspec
import numpy as np
import polars as pl
import pytest
import torch

from kreislauf.evaluation import scoring
from kreislauf.lake.reading import digest
from kreislauf.lake.validate import validate_lines
from models.search_ranker import SPEC, fit, metrics, training
from models.search_ranker.baseline import best_feature
from models.search_ranker.features import MAX_WEIGHT, NO_GAIN, RESULTS, lists
from models.search_ranker.network import Members, Scaling, Scorer, ranks
from models.spec import TrainingContext
from models.table import RawLines
from tests.models import searches


def one_list(*results: tuple[int, int | None, list[float | None]]) -> pl.DataFrame:
    """Rows of a search: grade, position and features of each result."""
    return pl.DataFrame(
        {
            "search": "s",
            "query": "shoes",
            "ts": searches.START,
            "item": [f"item {i}" for i in range(len(results))],
            "features": [values for _, _, values in results],
            "grade": [grade for grade, _, _ in results],
            "position": [position for _, position, _ in results],
            "categories": None,
        },
        schema=SPEC.table.dtypes,
    )


def test_a_click_counts_as_much_more_as_its_place_is_seen_less():
    rows = one_list((1, 1, [0]), (1, 4, [0]), (1, 40, [0]), (3, None, [0]), (0, 7, [0]))
    gains = lists(rows).gains[0]
    assert lists(rows).targets[0, :5].tolist() == [1, 4, MAX_WEIGHT, 3, 0]
    assert gains[:5].tolist() == [1, 4, MAX_WEIGHT, 7, 0]
    assert (gains[5:] == NO_GAIN).all()


def test_lists_without_a_right_answer_are_no_examples():
    assert len(SPEC.examples(one_list((0, None, [1.0]), (0, None, [2.0])))) == 0


def test_ndcg_is_that_of_the_definition():
    gains = np.array([[3.0, 0.0, 1.0, NO_GAIN]])
    ideal = 3 / math.log2(2) + 1 / math.log2(3)
    assert metrics.ndcg(gains, gains) == pytest.approx((3 + 1 / math.log2(4)) / ideal)
    assert metrics.ndcg(gains, gains, k=1) == pytest.approx(1.0)
    long = np.zeros((1, 12))
    long[0, 10] = 1
    assert metrics.ndcg(long, long) == 0, "the eleventh result counts no more"


def test_the_best_feature_is_chosen_with_its_direction():
    rows = one_list((0, None, [5, 9]), (2, None, [None, 1]), (1, None, [5, 4]))
    assert best_feature(lists(rows, 2)) == (1, -1.0)


def test_neither_order_nor_padding_of_a_list_changes_its_scores():
    torch.manual_seed(0)
    scorer = Scorer(Scaling(3), Members(2, 9, 8, 1.0)).eval()
    with torch.no_grad():
        scorer.members.attended.normal_()
    features = torch.randn(1, 5, 3)
    features[0, 1, 2] = math.nan
    order, scores = scorer(features, torch.ones(1, 5, dtype=torch.bool))
    turned = features.flip(1)
    padded = torch.cat([turned, torch.full((1, 2, 3), 7.0)], 1)
    present = torch.arange(7)[None] < 5
    padded_order, padded_scores = scorer(padded, present)
    torch.testing.assert_close(padded_scores[:, :5], scores)
    assert (4 - padded_order[0, :5]).tolist() == order[0].tolist()


def test_unseen_columns_and_huge_values_leave_scores_finite():
    scaling = Scaling.of(
        np.array([[[1.0, np.nan], [2.0, np.nan]]], np.float32), np.ones((1, 2), bool)
    )
    columns = scaling(torch.tensor([[[1e30, 3.0], [-1e30, math.nan]]]), torch.ones(1, 2) > 0)
    assert torch.isfinite(columns).all()
    assert columns.abs().max() <= 8


def test_ranks_are_of_the_results_that_have_the_feature():
    features = torch.tensor([[[7.0], [1e30], [math.nan], [7.0], [-1.0], [8.0]]])
    present = torch.tensor([[True, True, True, True, True, False]])
    shares = torch.tensor([0, 3 / 4, 0, 0, -3 / 4, 0]) * 3**0.5
    torch.testing.assert_close(ranks(features, present)[0, :, 0], shares)


@pytest.mark.parametrize(
    ("results", "message"),
    [
        (None, '"results" must be a list'),
        ([{"item": "a"}], r'results\[0\]\["features"\] is None'),
        ([{"item": True, "features": []}], r'results\[0\]\["item"\] is True'),
        ([{"item": "a", "features": [math.nan]}], r'\["features"\]\[0\] is nan'),
        ([{"item": 1, "features": []}, {"item": "1", "features": []}], "item '1' is there twice"),
        ([{"item": i, "features": []} for i in range(RESULTS + 1)], "it has 51 results"),
    ],
)
def test_what_is_wrong_in_a_request_is_said(results, message: str):
    with pytest.raises(ValueError, match=f"Request 0: .*{message}"):
        SPEC.tensors([{"results": results}])


def test_an_answer_has_the_ids_of_its_request():
    request = {"results": [{"item": 7, "features": [1]}, {"item": "7a", "features": [2]}]}
    answer = SPEC.answer_form(request)({"items": ["7a", "7"], "scores": [2.0, 1.0]})
    assert answer == {"items": ["7a", 7], "scores": [2.0, 1.0]}
    assert SPEC.item(7) == "7"


def test_a_changed_feature_changes_the_digest_of_the_rows():
    rows = one_list((1, None, [0.5, None]), (0, None, [2.0, 1.0]))
    changed = one_list((1, None, [0.5, 0.0]), (0, None, [2.0, 1.0]))
    assert digest(rows) == digest(rows.clone()) != digest(changed)


CORRUPTIONS = {
    "grade": 5,
    "position": 0,
    "features": [],
    "item": "",
}


@pytest.mark.parametrize("field", CORRUPTIONS)
def test_the_schema_refuses_a_corrupt_result(field: str):
    (good,) = searches.lines(0, 1, a_day=1)
    bad = good | {"results": [good["results"][0] | {field: CORRUPTIONS[field]}]}
    raw = RawLines.of("shop", [msgspec.json.encode(good), msgspec.json.encode(bad)])
    validated = validate_lines(SPEC.table, [raw])
    assert validated.rows.height == len(good["results"])
    assert validated.rejected["line"].to_list() == [2]


def test_a_killed_training_goes_on_where_it_stopped(tmp_path, monkeypatch):
    rows = searches.rows(0, 3, a_day=40)
    params = SPEC.Params.tiny()
    learnt = lists(rows, 5)

    class Killed(Exception):
        pass

    def die_late(share: float, metrics: dict) -> None:
        if share > 0.6:
            raise Killed

    monkeypatch.setattr(fit, "CHECKPOINT_STEPS", 10)
    monkeypatch.setattr(fit, "LOG_EVERY", 5)
    folders = [tmp_path / "whole", tmp_path / "killed"]
    for folder in folders:
        folder.mkdir()
    whole = training.fit_lists(learnt, params, TrainingContext(folders[0]))
    with pytest.raises(Killed):
        training.fit_lists(learnt, params, TrainingContext(folders[1], report=die_late))
    assert (folders[1] / "last.ckpt").exists()
    shares: list[float] = []
    context = TrainingContext(folders[1], report=lambda share, _: shares.append(share))
    again = training.fit_lists(learnt, params, context)
    assert min(shares) > 0.4, "what was learnt before the kill is not learnt again"
    assert again.curves == whole.curves
    for name, tensor in whole.scorer.state_dict().items():
        assert torch.equal(again.scorer.state_dict()[name], tensor), name


def test_what_is_learnt_beats_the_best_single_feature(tmp_path):
    rows = searches.rows(0, 6, a_day=60)
    learnt, asked = rows.filter(pl.col("ts") < searches.START + 4 * searches.DAY), rows
    asked = asked.filter(pl.col("ts") >= searches.START + 4 * searches.DAY)
    examples = SPEC.examples(asked)
    trained = SPEC.train(learnt, SPEC.Params.tiny(), TrainingContext(tmp_path))
    ours, trivial = (
        SPEC.score(examples, scoring.answer(onnx, examples.inputs)).mean()
        for onnx in (trained.onnx, SPEC.baseline(learnt, tmp_path))
    )
    assert ours > trivial + 0.05
    assert abs(trained.validation - ours) < 0.1
