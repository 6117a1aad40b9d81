"""Sessions are generated: articles come in families, and a session stays in its family and walks along it."""

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
from onnx import numpy_helper

from models.session_recommender import SPEC, Params
from models.session_recommender.features import LENGTH, Catalogue, covisit, events
from models.session_recommender.metrics import mrr, recall
from models.spec import Work

SAMPLE = (
    Path(os.environ.get("KREISLAUF_DATA", Path(__file__).parents[3] / "shared/data")) / "otto-sample/sessions.jsonl"
)
START = 1_700_000_000_000
FAMILY = 10


def sessions(n: int, articles: int = 300, seed: int = 0, first: int = 0) -> pl.DataFrame:
    """Rows of `n` sessions, a minute apart; article ids are scrambled so that their numbers mean nothing."""
    draw = np.random.default_rng(seed)
    ids = np.random.default_rng(99).permutation(10 * articles)[:articles]
    lengths = draw.integers(1, 9, n)
    session = np.repeat(np.arange(n), lengths)
    step = np.concatenate([np.arange(k) for k in lengths])
    family = draw.integers(0, articles // FAMILY, n)[session]
    member = (draw.integers(0, FAMILY, n)[session] + step + draw.integers(0, 2, len(step))) % FAMILY
    kind = np.where(draw.random(len(step)) < 0.1, "carts", "clicks")
    ts = START + (session + first) * 60_000 + step * 1000
    return pl.DataFrame({"session": session + first, "aid": ids[family * FAMILY + member], "ts": ts, "type": kind})


def answer(path: Path, ids: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(path)
    return dict(zip(["answers", "scores"], session.run(["answers", "scores"], {"article_ids": ids}), strict=True))


def request(*aids: int) -> np.ndarray:
    return SPEC.tensors([{"events": [{"aid": int(aid)} for aid in aids]}])["article_ids"]


@pytest.fixture(scope="module")
def rows():
    return sessions(600)


@pytest.fixture(scope="module")
def trained(rows, tmp_path_factory):
    return SPEC.train(rows, Params.tiny(), Work(tmp_path_factory.mktemp("cold")))


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
        {"session": [700] * 30, "aid": range(30), "ts": range(START, START + 30), "type": ["clicks"] * 30}
    )
    rows = pl.concat([rows, long])
    for (session,), group in rows.sort("session", "ts").group_by("session", maintain_order=True):
        aids = group["aid"].to_list()
        for i in range(1, len(aids)):
            seen = aids[max(0, i - LENGTH) : i]
            expected.append((seen + [-1] * (LENGTH - len(seen)), aids[i], session))
    examples = SPEC.examples(rows.sample(fraction=1, shuffle=True, seed=3))
    assert examples.inputs["article_ids"].tolist() == [e[0] for e in expected]
    assert examples.labels.tolist() == [e[1] for e in expected]
    assert examples.groups.tolist() == [e[2] for e in expected]
    assert examples.inputs["article_ids"].dtype == np.int64


def test_no_rows_hold_no_examples(rows):
    assert SPEC.examples(rows.clear()).inputs["article_ids"].shape == (0, LENGTH)


def test_metrics_by_hand():
    answers, labels = np.array([[5, 6, 7], [5, 6, 7], [5, 6, 7]]), np.array([5, 7, 8])
    assert recall(answers, labels).tolist() == [1, 1, 0]
    assert mrr(answers, labels) == pytest.approx([1, 1 / 3, 0])


def test_covisitation_by_hand():
    rows = pl.DataFrame(
        {"session": [0, 0, 1, 1, 2], "aid": [10, 20, 10, 20, 30], "ts": [START] * 5, "type": ["clicks"] * 5}
    )
    table = covisit(events(rows), Catalogue(np.array([10, 20, 30])))
    norm = 2**0.6 * 2**0.1
    assert table.popularity[:3].tolist() == [2, 2, 1]
    assert table.neighbours[:3, 0].tolist() == [1, 0, LENGTH]
    assert table.weights[:3, 0] == pytest.approx([2 / norm, 2 * 0.7 / norm, 0])


def test_the_table_is_trusted_unless_less_of_it_is_better_by_more_than_chance():
    from models.session_recommender.training import choose

    rng = np.random.default_rng(0)
    table = (rng.random(4000) < 0.50).astype(float)
    by_chance = np.where(rng.random(4000) < 0.02, 1 - table, table)
    better = np.where(rng.random(4000) < 0.05, 1.0, table)
    assert choose({8.0: table, 4.0: table, 1.0: by_chance}) == 8.0
    assert choose({8.0: table, 4.0: better, 1.0: by_chance}) == 4.0


def test_it_learns_and_is_exported_faithfully(rows, trained, baseline, later):
    popular = rows["aid"].value_counts().sort("count", descending=True)["aid"][:LENGTH].to_numpy()
    by_popularity = recall(np.tile(popular, (len(later), 1)), later.labels).mean()
    scores = [SPEC.score(later, answer(path, later.inputs["article_ids"])).mean() for path in (trained.onnx, baseline)]
    assert min(scores) > by_popularity + 0.3
    assert trained.parity.passed
    assert trained.parity.inputs >= 500
    assert {name for name, _, _ in trained.curves} == {"train_loss", "validation_recall"}


def test_same_seed_same_file(rows, trained, tmp_path):
    again = SPEC.train(rows, Params.tiny(), Work(tmp_path))
    assert again.onnx.read_bytes() == trained.onnx.read_bytes()


def test_contract(contract, rows):
    model = onnx.load(contract)
    assert model.ir_version <= 10
    assert max(o.version for o in model.opset_import if o.domain == "") <= 20
    out = answer(contract, np.repeat(request(), 3, 0))
    assert out["answers"].shape == out["scores"].shape == (3, LENGTH)
    assert (out["answers"].dtype, out["scores"].dtype) == (np.int64, np.float32)
    assert [p.name for p in contract.parent.iterdir() if p.suffix == ".data"] == []


def test_nothing_known_gives_what_is_popular(contract, rows):
    out = answer(contract, np.concatenate([request(), request(2**62), request(2**62, 2**61)]))["answers"]
    counts = dict(rows["aid"].value_counts().iter_rows())
    assert (out == out[0]).all()
    assert np.mean([counts[a] for a in out[0]]) > 1.5 * np.mean(list(counts.values()))


def test_unknown_articles_are_as_if_absent(contract, rows):
    a, b = rows["aid"][:2]
    plain, mixed = answer(contract, request(a, b)), answer(contract, request(2**62, a, 2**61, b, 2**60))
    assert plain["answers"].tolist() == mixed["answers"].tolist()


def test_only_the_newest_twenty_events_count(contract, rows):
    aids = rows["aid"][:60].to_list()
    assert request(*aids).tolist() == request(*aids[-LENGTH:]).tolist()
    assert (answer(contract, request(*aids))["answers"] >= 0).all()


def test_batch_size_does_not_matter(contract, later):
    ids = later.inputs["article_ids"][:64]
    together, alone = answer(contract, ids), [answer(contract, ids[i : i + 1]) for i in range(64)]
    assert np.allclose(together["scores"], np.concatenate([a["scores"] for a in alone]), atol=1e-4)
    assert (together["answers"] == np.concatenate([a["answers"] for a in alone])).mean() > 0.99


def test_small_catalogue_is_padded(tmp_path):
    rows = sessions(80, articles=10)
    for path in (SPEC.train(rows, Params.tiny(), Work(tmp_path)).onnx, SPEC.baseline(rows, tmp_path)):
        out = answer(path, np.concatenate([request(), request(rows["aid"][0])]))
        assert ((out["answers"] == -1).sum(1) == LENGTH - 10).all()
        assert (out["scores"][out["answers"] == -1] < -1e8).all()
        ids = SPEC.answers(out)[1]["article_ids"]
        assert sorted(ids) == sorted(rows["aid"].unique())


def test_warm_start_keeps_what_is_known(rows, trained, tmp_path):
    import torch
    from safetensors.numpy import load_file

    from models.session_recommender.module import Encoder
    from models.session_recommender.training import warm

    more = pl.concat([rows, sessions(60, articles=400, seed=2, first=600)])
    e = events(more)
    catalogue = Catalogue(np.unique(e.aid))
    encoder = Encoder(catalogue.size, Params.tiny().dim)
    assert warm(encoder, catalogue, covisit(e, catalogue), trained.weights) < START + 600 * 60_000
    before = load_file(trained.weights)
    row = catalogue.rows(before["catalogue"])
    assert len(before["catalogue"]) < len(catalogue.ids)
    assert np.array_equal(encoder.articles.detach().numpy()[row], before["encoder.articles"][: len(row)])
    assert torch.isfinite(encoder.articles).all()

    continued = SPEC.train(more, Params.tiny(), Work(tmp_path, trained.weights))
    assert continued.metrics["steps"] < trained.metrics["steps"]
    assert continued.parity.passed


def test_parent_of_another_shape_is_a_cold_start(rows, trained, tmp_path):
    other = Params.tiny().model_copy(update={"dim": 8})
    assert SPEC.train(rows, other, Work(tmp_path, trained.weights)).metrics["steps"] == trained.metrics["steps"]


def test_parity_notices_a_shuffled_vocabulary(rows, tmp_path):
    from models.session_recommender.export import export, parity
    from models.session_recommender.module import Scorer

    e = events(rows)
    catalogue = Catalogue(np.unique(e.aid))
    scorer, inputs = Scorer(covisit(e, catalogue)), SPEC.examples(rows).inputs["article_ids"][-500:]
    path = export(scorer, catalogue, tmp_path / "model.onnx")
    assert parity(scorer, catalogue, path, inputs).passed
    model = onnx.load(path)
    raw = next(i for i in model.graph.initializer if i.name == "raw")
    raw.CopyFrom(numpy_helper.from_array(np.random.default_rng(0).permutation(catalogue.raw()), "raw"))
    onnx.save(model, path)
    assert not parity(scorer, catalogue, path, inputs).passed


def test_golden_requests_are_answered(contract):
    golden = SPEC.golden()
    found = SPEC.answers(answer(contract, SPEC.tensors(golden)["article_ids"]))
    assert len(found) == len(golden)
    assert all(len(a["article_ids"]) == len(a["scores"]) == LENGTH for a in found)
    json.dumps(found)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({}, 'Request 1: "events" must be a list'),
        ([], 'Request 1: "events" must be a list'),
        ({"events": [7]}, r'Request 1: events\[0\]\["aid"\] is None'),
        ({"events": [{"aid": 1}, {"aid": -1}]}, r'events\[1\]\["aid"\] is -1'),
        ({"events": [{"aid": "7"}]}, "is '7'"),
        ({"events": [{"aid": True}]}, "is True"),
        ({"events": [{"aid": 2**63}]}, "is 9223372036854775808"),
    ],
)
def test_bad_requests_are_named(bad, says):
    with pytest.raises(ValueError, match=says):
        SPEC.tensors([{"events": []}, bad])


def test_monitored_columns_by_hand():
    new = pl.DataFrame(
        {"session": [5, 5, 9], "aid": [1, 2, 1], "ts": [START] * 3, "type": ["clicks", "carts", "orders"]}
    )
    old = pl.DataFrame({"session": [1, 2], "aid": [1, 1], "ts": [START] * 2, "type": ["clicks"] * 2})
    found = SPEC.monitored(new, old).to_dict(as_series=False)
    assert "session" not in found
    assert found["length"] == [2, 1]
    assert found["unseen_share"] == [0.5, 0]
    assert found["popularity"] == pytest.approx([np.log(3) / 2, np.log(3)])
    assert (found["carts_share"], found["orders_share"]) == ([0.5, 0], [0, 1])


def test_nothing_to_learn_is_refused(rows, tmp_path):
    with pytest.raises(ValueError, match="widen the window"):
        SPEC.train(rows.unique("session"), Params.tiny(), Work(tmp_path))
    with pytest.raises(ValueError, match="widen the window"):
        SPEC.baseline(rows.clear(), tmp_path)


def test_few_sessions_train(tmp_path):
    assert SPEC.train(sessions(3), Params.tiny(), Work(tmp_path)).parity.passed


@pytest.mark.skipif(not SAMPLE.exists(), reason=f"needs OTTO's sample at {SAMPLE} (KREISLAUF_DATA)")
def test_real_otto_sessions(tmp_path):
    import msgspec

    decoder = msgspec.json.Decoder(SPEC.table.line)
    rows = SPEC.table.unfold([decoder.decode(line) for line in SAMPLE.read_bytes().splitlines()]).drop("line")
    result = SPEC.train(rows, Params.tiny(), Work(tmp_path))
    examples = SPEC.examples(rows)
    assert result.parity.passed
    assert SPEC.score(examples, answer(result.onnx, examples.inputs["article_ids"])).mean() > 0.3


def test_importing_the_spec_stays_light():
    heavy = "{'torch', 'lightning', 'onnx', 'onnxruntime', 'prefect', 'mlflow'} & set(sys.modules)"
    code = f"import sys, models.session_recommender; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
