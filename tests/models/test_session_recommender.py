"""Sessions are generated: articles come in families, and a session stays in its family and walks
along it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import polars as pl
import pytest
from onnx import TensorProto, numpy_helper
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from models.session_recommender import SPEC, Params, features
from models.session_recommender.covisitation import ARTICLES, NEIGHBOURS, PAIRS, covisit, pairs
from models.session_recommender.features import DAY_MS, INPUTS, LENGTH, Catalogue, events
from models.session_recommender.metrics import mrr, recall
from models.session_recommender.schema import EVENT_TYPES
from models.spec import Tensors, TrainingContext, TrainingResult

SAMPLE = (
    Path(os.environ.get("KREISLAUF_DATA", Path(__file__).parents[3] / "shared/data"))
    / "otto-sample/sessions.jsonl"
)
START = 1_700_000_000_000
FAMILY = 10


def sessions(n: int, articles: int = 300, seed: int = 0, first: int = 0) -> pl.DataFrame:
    """Rows of `n` sessions, a minute apart; article ids are scrambled so that their numbers mean
    nothing."""
    draw = np.random.default_rng(seed)
    ids = np.random.default_rng(99).permutation(10 * articles)[:articles]
    lengths = draw.integers(1, 9, n)
    session = np.repeat(np.arange(n), lengths)
    step = np.concatenate([np.arange(k) for k in lengths])
    family = draw.integers(0, articles // FAMILY, n)[session]
    member = (draw.integers(0, FAMILY, n)[session] + step + draw.integers(0, 2, len(step))) % FAMILY
    kind = np.where(draw.random(len(step)) < 0.1, "carts", "clicks")
    ts = START + (session + first) * 60_000 + step * 1000
    return pl.DataFrame(
        {"session": session + first, "aid": ids[family * FAMILY + member], "ts": ts, "type": kind}
    )


def answer(path: Path, inputs: Tensors) -> Tensors:
    session = onnxruntime.InferenceSession(path)
    return dict(zip(["answers", "scores"], session.run(["answers", "scores"], inputs), strict=True))


def asked(*requests: list[int], **more: object) -> Tensors:
    """A request for each list of articles, `more` in each event."""
    return SPEC.tensors(
        [{"events": [{"aid": int(aid), **more} for aid in aids]} for aids in requests]
    )


@pytest.fixture(scope="module")
def rows():
    return sessions(600)


def train_whole(rows: pl.DataFrame, folder: Path) -> TrainingResult:
    """With the ranker in the file, which so few sessions would not earn a place in it."""
    from models.session_recommender import selection

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "choose", lambda hits: "ranker")
        return SPEC.train(rows, Params.tiny(), TrainingContext(folder))


@pytest.fixture(scope="module")
def trained(rows, tmp_path_factory):
    return train_whole(rows, tmp_path_factory.mktemp("cold"))


@pytest.fixture(scope="module")
def baseline(rows, tmp_path_factory):
    return SPEC.baseline(rows, tmp_path_factory.mktemp("baseline"))


@pytest.fixture(scope="module")
def later():
    return SPEC.examples(sessions(200, seed=1, first=600))


@pytest.fixture(params=["model", "baseline"])
def contract(request, trained, baseline):
    return trained.onnx if request.param == "model" else baseline


def test_examples_equal_a_slow_loop(rows):
    expected = []
    long = pl.DataFrame(
        {
            "session": [700] * 30,
            "aid": range(30),
            "ts": range(START, START + 30),
            "type": ["orders"] * 30,
        }
    )
    rows = pl.concat([rows, long])
    for (session,), group in rows.sort("session", "ts").group_by("session", maintain_order=True):
        columns = [
            group["aid"].to_list(),
            [EVENT_TYPES.index(t) for t in group["type"]],
            group["ts"].to_list(),
        ]
        for i in range(1, len(group)):
            seen = [column[max(0, i - LENGTH) : i] for column in columns]
            expected.append(([s + [-1] * (LENGTH - len(s)) for s in seen], columns[0][i], session))
    examples = SPEC.examples(rows.sample(fraction=1, shuffle=True, seed=3))
    for i, name in enumerate(("article_ids", "types", "times")):
        assert examples.inputs[name].tolist() == [e[0][i] for e in expected]
        assert examples.inputs[name].dtype == np.int64
    assert examples.labels.tolist() == [e[1] for e in expected]
    assert examples.groups.tolist() == [e[2] for e in expected]


def test_of_a_bot_s_session_only_the_first_events_count(rows):
    count = 2_000
    bot = pl.DataFrame(
        {
            "session": [701] * count,
            "aid": [number % 50 for number in range(count)],
            "ts": range(START, START + count),
            "type": ["clicks"] * count,
        }
    )
    with_bot = pl.concat([rows, bot.cast(rows.schema)])
    people = SPEC.examples(rows)
    examples = SPEC.examples(with_bot)
    of_bot = examples.groups == 701
    assert of_bot.sum() == features.MAX_EVENTS - 1
    assert examples.take(~of_bot).digest() == people.digest()
    assert examples.labels[of_bot].tolist() == [number % 50 for number in range(1, 500)]
    profile = SPEC.training_profile(rows.lazy()).collect()
    slices = SPEC.slices(with_bot, profile)
    assert slices.height == len(examples)
    assert slices.filter(~of_bot).equals(SPEC.slices(rows, profile))


def test_no_rows_hold_no_examples(rows):
    assert {name: a.shape for name, a in SPEC.examples(rows.clear()).inputs.items()} == {
        n: (0, LENGTH) for n in INPUTS
    }


def test_metrics_by_hand():
    answers, labels = np.array([[5, 6, 7], [5, 6, 7], [5, 6, 7]]), np.array([5, 7, 8])
    assert recall(answers, labels).tolist() == [1, 1, 0]
    assert mrr(answers, labels) == pytest.approx([1, 1 / 3, 0])


def tiny_shop() -> pl.DataFrame:
    """Clicks, as (session, article, time before the newest event in ms)."""
    day = [(0, 10, 9), (0, 20, 8), (0, 30, 7), (1, 10, 6), (1, 10, 5), (1, 20, 4), (2, 40, 0)]
    old = [(3, 20, 7 * DAY_MS + 1), (3, 30, 7 * DAY_MS)]
    frame = pl.DataFrame([*day, *old], ["session", "aid", "before"], orient="row")
    return frame.select("session", "aid", ts=START - pl.col("before"), type=pl.lit("clicks"))


def test_pairs_by_hand():
    e = events(tiny_shop())
    summed = pairs(e, Catalogue(np.array([10, 20, 30, 40])).rows(e.aid), 21)
    slow, fast = np.exp(-7 / 60), np.exp(-1)
    expected = {
        # w, recent, next, before, together; 10, 10, 20 has 10 > 20 twice, once with an event in
        # between
        (0, 1): (1 + 1.7, 1 + 1.7, 2, 0, 3),
        (0, 2): (0.7, 0.7, 0, 0, 1),
        (1, 0): (0.7 * 2.7, 2.7, 0, 2, 3),
        (1, 2): (1 + slow, 1 + fast, 2, 0, 2),
        (2, 0): (0.49, 0.7, 0, 0, 1),
        (2, 1): (0.7 * (1 + slow), 1 + fast, 0, 2, 2),
    }
    assert [*zip(summed["a"], summed["b"], strict=True)] == [*expected]
    values = summed.select("w", "recent", "next", "before", "together").to_numpy()
    assert values == pytest.approx(np.array([*expected.values()]), rel=1e-6)


def test_events_further_apart_than_ten_are_not_together():
    aids = range(12)
    e = events(
        pl.DataFrame(
            {
                "session": [0] * 12,
                "aid": aids,
                "ts": range(START, START + 12),
                "type": ["clicks"] * 12,
            }
        )
    )
    summed = pairs(e, e.aid, 21).filter(pl.col("a") == 0)
    assert summed["b"].to_list() == [*range(1, 11)]
    assert summed["w"].to_numpy() == pytest.approx(0.7 ** np.arange(10), rel=1e-6)


def test_covisitation_by_hand():
    table = covisit(events(tiny_shop()), Catalogue(np.array([10, 20, 30, 40, 50])))
    slow, fast = np.exp(-7 / 60), np.exp(-1)
    popularity = np.array([3, 2 + slow, 1 + slow, 1, 0])
    assert table.popularity[:5] == pytest.approx(popularity)

    def weight(a: int, b: int, w: float) -> float:
        return w / popularity[a] ** 0.6 / popularity[b] ** 0.1

    of_20 = {0: weight(1, 0, 0.7 * 2.7), 2: weight(1, 2, 1 + slow)}
    best = sorted(of_20, key=of_20.__getitem__, reverse=True)
    assert table.neighbours[1, :3].tolist() == [*best, 21 - 1]
    assert table.weights[1, :3] == pytest.approx([of_20[best[0]], of_20[best[1]], 0])
    assert (table.neighbours[3:] == 20).all()
    assert not table.weights[3:].any()

    assert table.pairs.shape == (21, NEIGHBOURS, PAIRS)
    place = table.neighbours[1].tolist().index(2)
    w, recent, after, before, together, seen_20, seen_30 = of_20[2], 1 + fast, 2, 0, 2, 3, 2
    numbers = [np.log1p(50 * w), np.log1p(recent), np.log1p(after), np.log1p(before)]
    numbers += [10 * after / (seen_20 + 1), 5 * together / np.sqrt((seen_20 + 1) * (seen_30 + 1))]
    assert table.pairs[1, place] == pytest.approx(np.array(numbers), rel=2e-3)
    assert not table.pairs[1, 2:].any()
    assert not table.pairs[3:].any()

    assert table.articles.shape == (21, ARTICLES)
    counts, since_first, since_last = [3, 2, 2, 3], 7 + 1 / DAY_MS, 4 / DAY_MS
    logs = np.log1p([*counts, since_first, since_last, 0])
    assert table.articles[1] == pytest.approx([*logs, 1 / 23], abs=1e-6)
    assert table.articles[0, -2:] == pytest.approx([np.log1p(1), 2 / 23]), (
        "seen again once, in session 1"
    )
    assert not table.articles[4:, :-1].any(), "never seen"


def test_a_simpler_model_is_trusted_unless_a_better_one_is_better_by_more_than_chance():
    from models.session_recommender.selection import choose

    rng = np.random.default_rng(0)
    table = (rng.random(4000) < 0.50).astype(float)
    by_chance = np.where(rng.random(4000) < 0.02, 1 - table, table)
    better = np.where(rng.random(4000) < 0.05, 1.0, table)
    best = np.where(rng.random(4000) < 0.05, 1.0, better)
    assert choose({"table": table, "encoder": table, "ranker": by_chance}) == "table"
    assert choose({"table": table, "encoder": better, "ranker": by_chance}) == "encoder"
    assert choose({"table": table, "encoder": by_chance, "ranker": better}) == "ranker"
    assert choose({"table": table, "encoder": better, "ranker": best}) == "ranker"
    assert choose({"table": better, "encoder": table, "ranker": table}) == "table"
    assert choose({name: np.ones(1) for name in ("table", "encoder", "ranker")}) == "table"


def test_it_learns_and_is_exported_faithfully(rows, trained, baseline, later):
    popular = rows["aid"].value_counts().sort("count", descending=True)["aid"][:LENGTH].to_numpy()
    by_popularity = recall(np.tile(popular, (len(later), 1)), later.labels).mean()
    scores = [
        SPEC.score(later, answer(path, later.inputs)).mean() for path in (trained.onnx, baseline)
    ]
    assert min(scores) > by_popularity + 0.3
    assert scores[0] == pytest.approx(trained.validation, abs=0.1)
    assert trained.parity.passed
    assert trained.parity.inputs >= 500
    assert {name for name, _, _ in trained.curves} == {"train_loss", "validation_recall"}


@pytest.mark.slow
def test_same_seed_same_file(rows, trained, tmp_path):
    again = train_whole(rows, tmp_path)
    assert again.onnx.read_bytes() == trained.onnx.read_bytes()


def test_contract(contract, rows):
    model = onnx.load(contract)
    assert model.ir_version <= 10
    assert max(o.version for o in model.opset_import if o.domain == "") <= 20
    assert {i.name: i.type.tensor_type.elem_type for i in model.graph.input} == dict.fromkeys(
        INPUTS, TensorProto.INT64
    )
    out = answer(contract, asked([], [], []))
    assert out["answers"].shape == out["scores"].shape == (3, LENGTH)
    assert (out["answers"].dtype, out["scores"].dtype) == (np.int64, np.float32)
    assert [p.name for p in contract.parent.iterdir() if p.suffix == ".data"] == []


def test_nothing_known_gives_what_is_popular(contract, rows):
    out = answer(contract, asked([], [2**62], [2**62, 2**61]))["answers"]
    counts = dict(rows["aid"].value_counts().iter_rows())
    assert (out == out[0]).all()
    assert np.mean([counts[a] for a in out[0]]) > 1.2 * np.mean(list(counts.values()))


def test_unknown_articles_are_as_if_absent(contract, rows):
    a, b = rows["aid"][:2]
    out = answer(contract, asked([a, b], [2**62, a, 2**61, b, 2**60]))
    assert out["answers"][0].tolist() == out["answers"][1].tolist()
    assert out["scores"][0] == pytest.approx(out["scores"][1], rel=1e-5)


def test_only_the_newest_twenty_events_count(contract, rows):
    aids = (rows["aid"].to_list() * 5)[:500]
    inputs = asked(aids, aids[-LENGTH:])
    assert all((values[0] == values[1]).all() for values in inputs.values())
    assert (answer(contract, inputs)["answers"] >= 0).all()


def test_no_article_is_answered_twice(contract, rows):
    a, b = rows["aid"][:2]
    for ids in answer(contract, asked([a] * 20, [a, b] * 10, [a, b, b, a]))["answers"]:
        assert len(set(ids)) == LENGTH


def test_what_was_done_and_when_counts_for_the_model_alone(trained, baseline, rows):
    aids = rows["aid"][:3].to_list()
    hours = SPEC.tensors(
        [{"events": [{"aid": a, "ts": START + i * 3_600_000} for i, a in enumerate(aids)]}]
    )
    others = [asked(aids, type="orders"), hours]
    for path, same in ((trained.onnx, False), (baseline, True)):
        plain = answer(path, asked(aids))["scores"]
        assert [(answer(path, inputs)["scores"] == plain).all() for inputs in others] == [
            same,
            same,
        ]


def test_batch_size_does_not_matter(contract, later):
    inputs = later.take(np.arange(64)).inputs
    together = answer(contract, inputs)
    alone = [answer(contract, later.take(np.array([i])).inputs) for i in range(64)]
    assert np.allclose(together["scores"], np.concatenate([a["scores"] for a in alone]), atol=1e-4)
    assert (together["answers"] == np.concatenate([a["answers"] for a in alone])).mean() > 0.99


def test_small_catalogue_is_padded(tmp_path):
    rows = sessions(80, articles=10)
    for path in (
        SPEC.train(rows, Params.tiny(), TrainingContext(tmp_path)).onnx,
        SPEC.baseline(rows, tmp_path),
    ):
        out = answer(path, asked([], [rows["aid"][0]]))
        assert ((out["answers"] == -1).sum(1) == LENGTH - 10).all()
        assert (out["scores"][out["answers"] == -1] < -1e8).all()
        ids = SPEC.answers(out)[1]["article_ids"]
        assert sorted(ids) == sorted(rows["aid"].unique())


@pytest.fixture
def untaught(monkeypatch):
    """Trainings learn nothing and only list what they would have learnt."""
    from models.session_recommender import fit

    names = []
    monkeypatch.setattr(fit, "fit", lambda stage, work: names.append(stage.name))
    return names


def run(rows, work, params=None):
    """A training that has been run, and its encoder's weights before."""
    import torch

    from models.session_recommender import fit
    from models.session_recommender.history import History
    from models.session_recommender.training import PrequentialTraining

    e = events(rows)
    torch.manual_seed(0)
    history = History(e, Catalogue(np.unique(e.aid)))
    prequential = PrequentialTraining(history, params or Params.tiny(), work)
    before = {name: value.clone() for name, value in prequential.encoder.state_dict().items()}
    for stage in prequential.stages():
        fit.fit(stage, work)
        prequential.record(stage)
    prequential.select()
    return prequential, before


def test_warm_start_keeps_what_is_known(rows, trained, untaught, tmp_path):
    more = pl.concat([rows, sessions(60, articles=400, seed=2, first=600)])
    prequential, _ = run(more, TrainingContext(tmp_path, trained.weights))
    assert "older" not in untaught
    assert len([name for name in untaught if name.startswith("block-")]) == 5
    assert (
        min(int(name.removeprefix("block-")) for name in untaught if name != "ranker")
        >= START + 600 * 60_000
    )
    before = load_file(trained.weights)
    row = prequential.history.catalogue.rows(before["catalogue"])
    assert len(row) < len(prequential.history.catalogue.ids)
    state = {name: value.numpy() for name, value in prequential.encoder.state_dict().items()}
    assert np.array_equal(state.pop("articles")[row], before["encoder.articles"][: len(row)])
    assert all(np.array_equal(value, before[f"encoder.{name}"]) for name, value in state.items())
    assert {name for name in before if name.startswith("ranker.")} == {
        f"ranker.{n}" for n in prequential.parent_ranker
    }


def test_a_new_article_starts_near_those_it_was_seen_with(rows, trained, untaught, tmp_path):
    new, old = 10**6, rows["aid"].mode()[0]
    session = pl.DataFrame(
        {"session": 700, "aid": [old, new], "ts": [START + 10**8] * 2, "type": "clicks"}
    )
    prequential, before = run(
        pl.concat([rows, session.cast(rows.schema), sessions(20, seed=2, first=710)]),
        TrainingContext(tmp_path, trained.weights),
    )
    vectors = prequential.encoder.articles.detach().numpy()
    a, b = vectors[prequential.history.catalogue.rows(np.array([old, new]))]
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.9
    drawn = before["articles"][prequential.history.catalogue.rows(np.array([new]))[0]].numpy()
    assert b @ drawn / np.linalg.norm(b) / np.linalg.norm(drawn) < 0.9


def test_warm_start_keeps_an_article_that_was_away_for_a_while(rows, trained, untaught, tmp_path):
    """The parent knows it, but of the rows only the newest have it."""
    away = rows["aid"].mode()[0]
    back = pl.DataFrame(
        {"session": 700, "aid": [away, rows["aid"][0]], "ts": [START + 10**8] * 2, "type": "clicks"}
    )
    rest = rows.filter((pl.col("aid") == away).any().over("session").not_())
    more = pl.concat(
        [
            rest,
            back.cast(rows.schema),
            sessions(20, seed=2, first=710).filter(pl.col("aid") != away),
        ]
    )
    prequential, _ = run(more, TrainingContext(tmp_path, trained.weights))
    before = load_file(trained.weights)
    expected = before["encoder.articles"][Catalogue(before["catalogue"]).rows(np.array([away]))]
    assert np.array_equal(
        prequential.encoder.articles.detach().numpy()[
            prequential.history.catalogue.rows(np.array([away]))
        ],
        expected,
    )


def backfill(rows: pl.DataFrame) -> pl.DataFrame:
    """Sessions among the parent's, in time, whose articles it never had: one is seen with an old
    article, a second with the first only, and a family only with each other."""
    old = rows["aid"].mode()[0]
    walks = [[old, 10**6], [10**6, 10**6 + 1], [10**6 + 2, 10**6 + 3], [10**6 + 3, 10**6 + 4]]
    late = [
        {"session": 5000 + number, "aid": aid, "ts": START + 10**6 + number + step}
        for number, walk in enumerate(walks * 3)
        for step, aid in enumerate(walk)
    ]
    return pl.DataFrame(late).with_columns(type=pl.lit("clicks")).cast(rows.schema)


@pytest.mark.parametrize("is_told", [True, False])
def test_articles_of_late_sessions_start_near_those_they_were_seen_with(
    is_told, rows, trained, untaught, tmp_path
):
    late = backfill(rows)
    more = sessions(60, seed=2, first=600)
    new = None
    if is_told:
        new = pl.concat([late["session"], more["session"]])
    prequential, _ = run(
        pl.concat([rows, late, more]), TrainingContext(tmp_path, trained.weights, new)
    )
    vectors = prequential.encoder.articles.detach().numpy()
    names = np.array([rows["aid"].mode()[0], *range(10**6, 10**6 + 5)])
    near = vectors[prequential.history.catalogue.rows(names)]
    near = near / np.linalg.norm(near, axis=1, keepdims=True)
    assert near[0] @ near[1] > 0.8, "an old neighbour"
    assert near[1] @ near[2] > 0.8, "a neighbour that was new itself"
    assert near[3] @ near[4] > 0.8, "among new ones"
    assert near[4] @ near[5] > 0.8
    assert abs(near[0] @ near[4]) < 0.6, "and not all at one place"


def test_late_sessions_are_learnt_from(rows, trained, untaught, tmp_path, monkeypatch):
    from models.session_recommender.training import PrequentialTraining

    late = backfill(rows)
    more = sessions(60, seed=2, first=600)
    asked = []
    answer_block = PrequentialTraining.answer_block

    def watch(self, index, mask):
        asked.append(set(self.history.events.session[mask]))
        return answer_block(self, index, mask)

    monkeypatch.setattr(PrequentialTraining, "answer_block", watch)
    new = pl.concat([late["session"], more["session"]])
    run(pl.concat([rows, late, more]), TrainingContext(tmp_path, trained.weights, new))
    lengths = more.group_by("session").len().filter(pl.col("len") > 1)
    expected = {*late["session"], *lengths["session"]}
    assert expected <= set().union(*asked) <= {*late["session"], *more["session"]}
    assert {*late["session"]} <= asked[0]


def test_a_training_says_whether_it_was_warm(rows, trained, untaught, tmp_path):
    for name, dim, is_warm in (("same", 16, True), ("narrow", 8, False)):
        (tmp_path / name).mkdir()
        params = Params.tiny().model_copy(update={"dim": dim})
        prequential, _ = run(rows, TrainingContext(tmp_path / name, trained.weights), params)
        assert (prequential.parent_ranker is not None) == is_warm
    assert not trained.is_warm


@pytest.mark.slow
def test_a_warm_training_is_shorter(rows, trained, tmp_path):
    more = pl.concat([rows, sessions(60, articles=400, seed=2, first=600)])
    warm_result = SPEC.train(more, Params.tiny(), TrainingContext(tmp_path, trained.weights))
    assert warm_result.is_warm
    assert warm_result.metrics["steps"] < trained.metrics["steps"]
    assert warm_result.parity.passed


def test_parent_of_another_shape_is_a_cold_start(rows, trained, untaught, tmp_path):
    narrow_params = Params.tiny().model_copy(update={"dim": 8})
    prequential, before = run(rows, TrainingContext(tmp_path, trained.weights), narrow_params)
    assert untaught[0] == "older"
    assert all(
        (prequential.encoder.state_dict()[name] == value).all()
        for name, value in before.items()
        if name != "articles"
    )
    assert prequential.parent_ranker is None


def test_parent_of_another_structure_is_a_cold_start(rows, trained, untaught, tmp_path):
    """Such as the champion that an earlier version of this code trained: its encoder had other
    layers, it no ranker."""
    with safe_open(trained.weights, "np") as file:
        metadata = file.metadata()
    state = {
        name: value
        for name, value in load_file(trained.weights).items()
        if not name.startswith("ranker.")
    }
    state["encoder.event.weight"] = state.pop("encoder.attention.join.weight")
    save_file(state, tmp_path / "earlier.safetensors", metadata)
    prequential, before = run(rows, TrainingContext(tmp_path, tmp_path / "earlier.safetensors"))
    assert untaught[0] == "older"
    assert all(
        (prequential.encoder.state_dict()[name] == value).all()
        for name, value in before.items()
        if name != "articles"
    )


def test_parent_s_ranker_of_another_shape_is_left_out(rows, trained, untaught, tmp_path):
    """Such as one that an earlier version of this code trained, with fewer numbers of each
    article."""
    with safe_open(trained.weights, "np") as file:
        metadata = file.metadata()
    state = load_file(trained.weights)
    state["ranker.mean"] = state["ranker.mean"][:-1]
    save_file(state, tmp_path / "earlier.safetensors", metadata)
    run(rows, TrainingContext(tmp_path, tmp_path / "earlier.safetensors"))
    assert untaught[-1] == "ranker"


def test_names_in_stored_files_are_those_of_earlier_versions(trained):
    """Whatever the code calls its modules: the next training reads the weights by these names."""
    layers = (
        "encoder.articles encoder.fade encoder.again_age encoder.kind.weight encoder.age.weight "
        "encoder.pause.weight encoder.attention.distance encoder.attention.join.weight "
        "encoder.weight.weight encoder.query.bias encoder.key.bias encoder.again.bias "
        "ranker.mean ranker.deviation ranker.mix ranker.pair.weight ranker.age.weight "
        "ranker.kind.weight ranker.pause.weight ranker.length.weight ranker.event.weight "
        "ranker.first.weight ranker.second.weight ranker.last.weight catalogue"
    )
    assert set(layers.split()) <= set(load_file(trained.weights))
    with safe_open(trained.weights, "np") as file:
        assert file.metadata().keys() == {"trained_until"}
    tensors = {tensor.name for tensor in onnx.load(trained.onnx).graph.initializer}
    assert {"known.prior", "known.articles", "vectors"} <= tensors


def test_parity_notices_a_shuffled_vocabulary(rows, baseline, tmp_path):
    from models.session_recommender.covisitation_index import CovisitationIndex
    from models.session_recommender.export import parity
    from models.session_recommender.scorer import Scorer
    from models.session_recommender.training import inputs

    e = events(rows)
    catalogue = Catalogue(np.unique(e.aid))
    scorer = Scorer(CovisitationIndex(covisit(e, catalogue)))
    newest = [values[-500:] for values in inputs(e)]
    assert parity(scorer, catalogue, baseline, newest).passed
    model = onnx.load(baseline)
    raw = next(i for i in model.graph.initializer if i.name == "raw")
    raw.CopyFrom(
        numpy_helper.from_array(np.random.default_rng(0).permutation(catalogue.raw()), "raw")
    )
    onnx.save(model, tmp_path / "shuffled.onnx")
    assert not parity(scorer, catalogue, tmp_path / "shuffled.onnx", newest).passed


def test_golden_requests_are_answered(contract):
    golden = SPEC.golden()
    answers = SPEC.answers(answer(contract, SPEC.tensors(golden)))
    assert len(answers) == len(golden)
    assert all(len(a["article_ids"]) == len(a["scores"]) == LENGTH for a in answers)
    json.dumps(answers)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({}, 'Request 1: "events" must be a list'),
        ([], 'Request 1: "events" must be a list'),
        ({"events": [7]}, r'Request 1: events\[0\]\["aid"\] is None'),
        ({"events": [{"aid": 1}, {"aid": -1}]}, r'events\[1\]\["aid"\] is -1'),
        ({"events": [{"aid": "seven"}]}, "is 'seven'"),
        ({"events": [{"aid": True}]}, "is True"),
        ({"events": [{"aid": 2**63}]}, "is 9223372036854775808"),
        (
            {"events": [{"aid": 1, "type": "click"}]},
            r'events\[0\]\["type"\] is \'click\'. Send one of clicks, carts, orders',
        ),
        (
            {"events": [{"aid": 1}, {"aid": 1, "type": None}]},
            r'Request 1: events\[1\]\["type"\] is None',
        ),
        ({"events": [{"aid": 1, "type": ["clicks"]}]}, r"\['clicks'\]"),
        ({"events": [{"aid": 1, "ts": -1}]}, r'events\[0\]\["ts"\] is -1. Send ms since 1970'),
        ({"events": [{"aid": 1, "ts": 1.7e12}]}, "is 1700000000000.0"),
        ({"events": [{"aid": 1, "ts": START // 1000}]}, "is 1700000000, not .* not seconds"),
        ({"events": [{"aid": 1, "ts": START * 1000}]}, "not seconds or microseconds"),
        ({"events": [{"aid": 1, "ts": "2026-11-23"}]}, "is '2026-11-23'"),
    ],
)
def test_bad_requests_are_named(bad, says):
    with pytest.raises(ValueError, match=says):
        SPEC.tensors([{"events": []}, bad])


def test_requests_by_hand():
    events = [
        {"aid": 7, "type": "carts", "ts": START},
        {"aid": 8, "ts": None},
        {"aid": 9, "type": "orders"},
    ]
    inputs = SPEC.tensors([{"events": events}, {"events": []}])
    nothing = [-1] * (LENGTH - 3)
    assert inputs["article_ids"].tolist() == [[7, 8, 9, *nothing], [-1] * LENGTH]
    assert inputs["types"].tolist() == [[1, 0, 2, *nothing], [-1] * LENGTH]
    assert inputs["times"].tolist() == [[START, -1, -1, *nothing], [-1] * LENGTH]


def test_a_session_that_comes_newest_first_is_asked_as_it_is_learnt():
    times = range(START, START + 30)
    events = [{"aid": 100 + number, "ts": ts} for number, ts in enumerate(times)]
    right = SPEC.tensors([{"events": events}])
    for name, array in SPEC.tensors([{"events": events[::-1]}]).items():
        assert array.tolist() == right[name].tolist()
    assert right["article_ids"][0].tolist() == list(range(110, 130)), "the newest 20"
    some = [{"aid": 2, "ts": START + 1}, {"aid": 1}, {"aid": 3, "ts": START}]
    given = SPEC.tensors([{"events": some}])["article_ids"][0, :3]
    assert given.tolist() == [2, 1, 3], "without all times, the order is the sender's"


def test_monitored_columns_by_hand():
    new = pl.DataFrame(
        {
            "session": [5, 5, 9],
            "aid": [1, 2, 1],
            "ts": [START] * 3,
            "type": ["clicks", "carts", "orders"],
        }
    )
    old = pl.DataFrame(
        {"session": [1, 2], "aid": [1, 1], "ts": [START] * 2, "type": ["clicks"] * 2}
    )
    profile = SPEC.training_profile(old.lazy()).collect()
    assert profile.to_dict(as_series=False) == {"aid": [1], "ts": [START], "seen": [2]}
    monitored = SPEC.monitored(new.lazy(), profile).collect().to_dict(as_series=False)
    assert set(monitored) == {"unseen", "popularity", "carts", "orders"}
    assert monitored["unseen"] == [False, True, False]
    assert monitored["popularity"] == pytest.approx([np.log(3), 0, np.log(3)])
    assert (monitored["carts"], monitored["orders"]) == ([False, True, False], [False, False, True])


@pytest.mark.parametrize("scale", [1, 2**40], ids=["dense", "sparse"])
def test_what_is_known_of_an_article_is_found_however_ids_are_given(scale):
    profile = pl.DataFrame(
        {"aid": np.array([0, 1, 3]) * scale, "seen": pl.Series([1, 2, 9], dtype=pl.UInt32)}
    )
    asked = [0, scale, 2 * scale, 3 * scale, 4 * scale, 2**63 - 1]
    monitored = SPEC.monitored(
        pl.LazyFrame({"aid": asked, "type": ["clicks"] * 6}), profile
    ).collect()
    assert monitored["unseen"].to_list() == [False, False, True, False, True, True]
    assert monitored["popularity"].to_list() == pytest.approx(
        [np.log(2), np.log(3), 0, np.log(10), 0, 0]
    )


def test_what_is_known_is_enough_for_slices_and_coverage(rows):
    profile = SPEC.training_profile(rows.lazy()).collect()
    assert SPEC.slices(rows, profile).equals(SPEC.slices(rows, rows))
    assert profile.height == rows["aid"].n_unique()


def test_nothing_to_learn_is_refused(rows, tmp_path):
    with pytest.raises(ValueError, match="widen the window"):
        SPEC.train(rows.unique("session"), Params.tiny(), TrainingContext(tmp_path))
    with pytest.raises(ValueError, match="widen the window"):
        SPEC.baseline(rows.clear(), tmp_path)


def test_few_sessions_train(tmp_path):
    assert SPEC.train(sessions(3), Params.tiny(), TrainingContext(tmp_path)).parity.passed


@pytest.mark.skipif(not SAMPLE.exists(), reason=f"needs OTTO's sample at {SAMPLE} (KREISLAUF_DATA)")
def test_real_otto_sessions(tmp_path):
    import msgspec

    decoder = msgspec.json.Decoder(SPEC.table.line)
    rows = SPEC.table.unfold(
        [decoder.decode(line) for line in SAMPLE.read_bytes().splitlines()]
    ).drop("line")
    result = SPEC.train(rows, Params.tiny(), TrainingContext(tmp_path))
    examples = SPEC.examples(rows)
    assert result.parity.passed
    assert SPEC.score(examples, answer(result.onnx, examples.inputs)).mean() > 0.3


def test_importing_the_spec_stays_light():
    heavy = "{'torch', 'lightning', 'onnx', 'onnxruntime', 'prefect', 'mlflow'} & set(sys.modules)"
    code = f"import sys, models.session_recommender; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
