"""Categories of the search ranker: lines and requests, the vocabulary, what is learnt of them."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pandera.polars as pa
import polars as pl
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from kreislauf import lake, sources
from kreislauf.evaluation import scoring
from kreislauf.lake.validate import validate_lines
from kreislauf.release import golden
from kreislauf.release import triton as server
from kreislauf.settings import settings
from models.search_ranker import SPEC, vocabulary
from models.search_ranker.features import INPUTS, NO_CATEGORY, RESULTS, lists
from models.search_ranker.schema import CATEGORIES, RawSearch
from models.search_ranker.vocabulary import MISSING, UNSEEN, Vocabulary
from models.spec import TrainingContext, TrainingResult
from models.table import RawLines, Table
from serving.ask import Triton
from tests.models import searches

TINY = SPEC.Params.tiny()
BRANDS = 12


def by_brand(first: int, last: int, brands: range = range(BRANDS)) -> pl.DataFrame:
    """Searches in which only the second category tells what is right; one in ten lacks it."""
    worth = np.random.default_rng(0).normal(size=100)
    lines = searches.lines(first, last, a_day=60)
    for number, line in enumerate(lines):
        rng = np.random.default_rng([first, number])
        for result in line["results"]:
            brand = int(rng.choice(brands))
            noisy = worth[brand] + rng.normal(scale=0.3)
            result["grade"] = int(np.clip(np.floor(noisy + 1), 0, 4))
            result["position"] = None
            result["categories"] = ["shoes", f"brand ö{brand}"]
            if rng.random() < 0.1:
                result["categories"][1] = None
    return rows_of(lines)


def rows_of(lines: list[dict]) -> pl.DataFrame:
    """Lines as rows of the table."""
    return SPEC.table.unfold(msgspec.convert(lines, list[RawSearch])).drop("line")


@pytest.fixture(scope="module")
def learnt() -> pl.DataFrame:
    return by_brand(0, 4)


@pytest.fixture(scope="module")
def trained(learnt: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    return SPEC.train(learnt, TINY, TrainingContext(tmp_path_factory.mktemp("trained")))


def quality(file: Path, rows: pl.DataFrame) -> float:
    """Mean NDCG@10 of a file."""
    examples = SPEC.examples(rows)
    return float(SPEC.score(examples, scoring.answer(file, examples.inputs)).mean())


def test_what_only_a_category_tells_is_learnt(trained, learnt, tmp_path):
    asked = by_brand(4, 6)
    assert trained.parity.passed
    ours, trivial = (
        quality(file, asked) for file in (trained.onnx, SPEC.baseline(learnt, tmp_path))
    )
    assert ours > trivial + 0.2
    assert abs(trained.validation - ours) < 0.05


def test_unseen_and_missing_categories_are_answered_and_lie_between(trained):
    order = ordered(trained.onnx, {f"b{i}": ["shoes", f"brand ö{i}"] for i in range(BRANDS)})
    best, worst = order[0][1:], order[-1][1:]
    request = {
        "best": ["shoes", f"brand ö{best}"],
        "unseen": ["shoes", "no such brand"],
        "null": ["shoes", None],
        "short": ["shoes"],
        "none": None,
        "worst": ["shoes", f"brand ö{worst}"],
    }
    answer = ordered(trained.onnx, request)
    assert (answer[0], answer[-1]) == ("best", "worst")
    assert set(answer) == set(request)


def ordered(file: Path, categories: dict[str, list | None]) -> list[str]:
    """Items in the order of a file, all of whose features are the same."""
    results = [
        {"item": item, "features": [1, 0, 0, 0, 0], "categories": values}
        for item, values in categories.items()
    ]
    outputs = scoring.answer(file, SPEC.tensors([{"results": results}]))
    (answer,) = SPEC.answers(outputs)
    return answer["items"]


def test_a_request_without_categories_is_one_whose_categories_are_missing(trained):
    old = {"results": [{"item": i, "features": [i]} for i in range(3)]}
    new = {"results": [result | {"categories": [None] * 10} for result in old["results"]]}
    for tensors in zip(*(SPEC.tensors([request]).values() for request in (old, new)), strict=True):
        np.testing.assert_array_equal(*tensors)


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ("shoes", r"\"categories\"\] is 'shoes'. Send a list"),
        (["a"] * 11, r"results\[0\] has 11 categories. Send 10 at most"),
        (["a", True], r'\["categories"\]\[1\] is True'),
        ([""], r'\["categories"\]\[0\] is \'\''),
        (["x" * 101], r'\["categories"\]\[0\] is \'xxx'),
        ([1.5], r'\["categories"\]\[0\] is 1.5'),
    ],
)
def test_what_is_wrong_with_categories_is_said(categories, message: str):
    result = {"item": "a", "features": [1], "categories": categories}
    with pytest.raises(ValueError, match=f"Request 0: .*{message}"):
        SPEC.tensors([{"results": [result]}])


def test_numbers_are_their_digits_and_short_lists_lack_the_rest():
    rows = rows_with([[7, "7", None, -(2**63)]])
    assert rows["categories"][0].to_list() == ["7", "7", None, str(-(2**63))]
    categories = lists(rows).categories
    assert categories.shape == (1, RESULTS, CATEGORIES)
    assert categories[0, 0].tolist() == ["7", "7", NO_CATEGORY, str(-(2**63)), *[NO_CATEGORY] * 6]
    request = {"results": [{"item": "a", "features": [], "categories": [7, "7", None]}]}
    assert SPEC.tensors([request])[INPUTS[2]][0, 0, :4].tolist() == ["7", "7", "", ""]


@pytest.mark.parametrize("shape", ["line", "row"])
@pytest.mark.parametrize(
    "categories", [[""], ["x" * 101], ["a"] * 11, [True], [2**63], [[]], "a", {}]
)
def test_corrupt_categories_are_refused_and_their_absence_is_not(categories, shape: str):
    (good,) = earlier_lines(0, 1, a_day=1)
    result = good["results"][0]
    head = {name: value for name, value in good.items() if name != "results"}
    whole = [
        head | {"results": [result | more]} if shape == "line" else head | result | more
        for more in ({}, {"categories": None}, {"categories": []}, {"categories": categories})
    ]
    whole[1] |= {"search": "s1"}
    whole[2] |= {"search": "s2"}
    raw = RawLines.of("shop", [msgspec.json.encode(line) for line in whole])
    validated = validate_lines(SPEC.table, [raw])
    assert validated.rejected["line"].to_list() == [4]
    assert validated.rows["categories"].to_list() == [None, None, []]


class EarlierResult(msgspec.Struct, forbid_unknown_fields=True):
    """A result as it was before there were categories."""

    item: str
    features: list[float | None]
    grade: int
    position: int | None


class EarlierSearch(msgspec.Struct, forbid_unknown_fields=True):
    search: str
    query: str
    ts: int
    results: list[EarlierResult]


class EarlierRow(pa.DataFrameModel):
    search: str
    query: str
    ts: pl.Int64
    item: str
    features: pl.List = pa.Field(dtype_kwargs={"inner": pl.Float32})
    grade: pl.Int64
    position: pl.Int64 = pa.Field(nullable=True)


EARLIER = replace(SPEC.table, line=EarlierSearch, schema=EarlierRow)


def test_a_table_of_earlier_gains_the_column_and_stays_what_it_was(home, tmp_path):
    old, new = earlier_lines(0, 1, a_day=4), earlier_lines(1, 2, a_day=4)
    for line in new:
        line["results"][0]["categories"] = ["shoes", None]
    first = load(EARLIER, old, tmp_path / "old.jsonl")
    digest = lake.digest(lake.read(EARLIER))
    assert lake.digest(lake.read(SPEC.table)) == digest
    load(SPEC.table, new, tmp_path / "new.jsonl")
    rows = lake.read(SPEC.table)
    assert rows["categories"].drop_nulls().to_list() == [["shoes", None]] * 4
    assert rows.height == sum(len(line["results"]) for line in (*old, *new))
    assert lake.digest(lake.read(SPEC.table, first.version)) == digest
    assert lake.digest(rows) != lake.digest(rows.with_columns(categories=None))
    assert len(SPEC.examples(rows)) > 0


def earlier_lines(first: int, last: int, a_day: int) -> list[dict]:
    """Searches without categories."""
    lines = searches.lines(first, last, a_day)
    for line in lines:
        for result in line["results"]:
            del result["categories"]
    return lines


def load(table: Table, lines: list[dict], path: Path) -> lake.Accounts:
    """The accounts of lines that become a file and are loaded."""
    path.write_bytes(b"\n".join(map(msgspec.json.encode, lines)))
    return lake.load_file(table, sources.open_file(str(path), table, None), 0.0)


def test_a_field_that_is_there_twice_is_refused_where_another_is_left_out():
    (line,) = earlier_lines(0, 1, a_day=1)
    raw = msgspec.json.encode(line | {"results": line["results"][:1]})
    twice = raw.replace(b'"grade":', b'"grade":0,"grade":')
    validated = validate_lines(SPEC.table, [RawLines.of("shop", [raw, twice])])
    assert validated.rejected.select("line", "reason").rows() == [(2, "duplicate-field")]


def test_the_vocabulary_has_what_is_frequent_enough(monkeypatch):
    monkeypatch.setattr(vocabulary, "MOST", 2)
    counts = {("a", "x"): 9, ("b", None): 6, ("c", None): 7, ("d", None): 4}
    results = [list(pair) for pair, count in counts.items() for _ in range(count)]
    learnt = lists(rows_with(results), 1, 3)
    words = Vocabulary.of(learnt)
    assert words.columns == (("a", "c"), ("x",)), "b is one too many, d too few, a third is empty"
    assert words.sizes == [4, 3]
    asked = np.array([["a", "x", "y"], ["c", "", ""], ["", "a", ""], ["b", "x", ""]], object)
    first = MISSING + 1
    assert words.numbers(asked).tolist() == [
        [first, first],
        [first + 1, MISSING],
        [MISSING, UNSEEN],
        [UNSEEN, first],
    ]
    assert words.numbers(asked[:, :1])[:, 1].tolist() == [MISSING] * 4


def rows_with(results: list[list]) -> pl.DataFrame:
    """Rows of a search with the categories of each result."""
    listed = [
        {"item": i, "features": [1.0], "grade": 1, "position": None, "categories": categories}
        for i, categories in enumerate(results)
    ]
    return rows_of([{"search": 1, "query": "", "ts": searches.START, "results": listed}])


def test_a_warm_training_keeps_what_was_learnt_of_categories_that_stay(trained, tmp_path):
    """Of twelve brands, six stay, and six are new."""
    rows = by_brand(10, 12, range(BRANDS // 2, BRANDS + BRANDS // 2))
    params = TINY.model_copy(update={"steps": 1, "lr": 1e-9})
    warm = SPEC.train(rows, params, TrainingContext(tmp_path, trained.weights))
    assert warm.is_warm
    assert warm.parity.passed
    before, after = load_file(trained.weights), load_file(warm.weights)
    name = "members.categories.vectors"
    origin, target = (words_of(weights)[1] for weights in (trained.weights, warm.weights))
    assert set(origin) & set(target) == {f"brand ö{i}" for i in range(BRANDS // 2, BRANDS)}
    first = 3 + 2  # The only shoes, and what is unseen and missing, are before them.
    for place, brand in enumerate(target):
        expected = np.zeros_like(before[name][0])
        if brand in origin:
            expected = before[name][first + origin.index(brand)]
            assert np.abs(expected).max() > 0.01
        np.testing.assert_allclose(after[name][first + place], expected, atol=1e-6)


def words_of(weights: Path) -> list[list[str]]:
    """The categories that a file of weights says it knows, by column."""
    with safe_open(str(weights), "np") as file:
        return json.loads(file.metadata()["categories"])


@pytest.mark.slow
def test_a_version_without_categories_is_a_warm_start_for_one_with_them(learnt, tmp_path):
    folders = [tmp_path / name for name in ("none", "some", "again")]
    for folder in folders:
        folder.mkdir()
    without = learnt.with_columns(categories=pl.lit(None, pl.List(pl.String)))
    parent = SPEC.train(without, TINY, TrainingContext(folders[0]))
    assert not [name for name in load_file(parent.weights) if "categories" in name]
    # So were they written before there were categories.
    save_file(load_file(parent.weights), tmp_path / "weights.safetensors")
    warm = SPEC.train(learnt, TINY, TrainingContext(folders[1], tmp_path / "weights.safetensors"))
    assert warm.is_warm
    assert warm.validation > parent.validation + 0.1
    assert SPEC.train(without, TINY, TrainingContext(folders[2], warm.weights)).is_warm


def test_columns_of_categories_are_watched():
    rows = rows_with([["shoes", "a"], ["shoes", None], ["shirts", "b"], None, []])
    profile = SPEC.training_profile(rows[:2].lazy()).collect()
    watched = SPEC.monitored(rows.lazy(), profile).collect()
    assert watched["missing_categories"].to_list() == [0, 0.5, 0, 1, 1]
    assert watched["unseen_categories"].to_list() == [0, 0, 1, 0, 0]
    earlier = profile.drop("column", "category").filter(pl.col("query").is_null().not_())
    assert SPEC.monitored(rows.lazy(), earlier).collect()["unseen_categories"].sum() == 0


@pytest.mark.usefixtures("triton")
def test_triton_serves_a_version_without_categories_beside_one_with_them(trained, learnt, tmp_path):
    earlier = without_categories(learnt, tmp_path)
    inputs = SPEC.tensors(SPEC.golden())
    for version, file in ((1, earlier), (2, trained.onnx)):
        server.add_version(SPEC.name, version, file)
    server.keep_warm_up(SPEC.name, 2, inputs)
    server.load(SPEC.name, [1, 2])
    for version, file in ((1, earlier), (2, trained.onnx)):
        assert (
            golden.compare(server.ask(SPEC.name, version, inputs), scoring.answer(file, inputs))
            == ""
        )


@pytest.mark.usefixtures("triton")
def test_a_version_without_categories_answers_alone_and_beside_a_newer_one(
    trained, learnt, tmp_path
):
    earlier = without_categories(learnt, tmp_path)
    inputs = SPEC.tensors(SPEC.golden())
    server.add_version(SPEC.name, 1, earlier)
    server.load(SPEC.name, [1])
    expected = scoring.answer(earlier, inputs)
    assert golden.compare(server.ask(SPEC.name, 1, inputs), expected) == ""

    async def ask_twice() -> list[str]:
        """As the gateway does, before and after a newer version comes."""
        gateway = Triton(settings().triton_url)
        differences = []
        for resident in ([1], [1, 2]):
            server.load(SPEC.name, resident)
            for _ in range(2):
                answers = await gateway.ask(SPEC.name, 1, inputs, 20.0)
                differences.append(golden.compare(answers, expected))
            server.add_version(SPEC.name, 2, trained.onnx)
            server.keep_warm_up(SPEC.name, 2, inputs)
        await gateway.close()
        return differences

    assert asyncio.run(ask_twice()) == [""] * 4


def without_categories(learnt, folder):
    """The file of the trivial model as it was before there were categories."""
    model = onnx.load(SPEC.baseline(learnt, folder))
    (unused,) = (tensor for tensor in model.graph.input if tensor.name == INPUTS[2])
    model.graph.input.remove(unused)
    path = folder / "earlier.onnx"
    onnx.save(model, path)
    return path
