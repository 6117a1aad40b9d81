"""Each check of `test_every_model.py` fails: the model type of docs/add_your_model.md passes all of
them, until it is broken in one point."""

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kreislauf.release.triton import TritonError
from models import spec
from tests.models import test_every_model as checks

BROKEN: list[tuple[Callable, str, str, str]] = [
    (checks.test_importing_the_spec_stays_light, "model_type", "import torch", "{'torch'}"),
    (
        checks.test_nothing_on_the_path_of_a_model_can_unpickle,
        "training",
        "import pickle; pickle",
        "'pickle'",
    ),
    (
        checks.test_parameters_have_defaults_and_descriptions,
        "model_type",
        "class Params(Bestseller.Params):\n    depth: int = 1\nBestseller.Params = Params",
        r"all\(",
    ),
    (
        checks.test_the_api_describes_requests_and_answers_field_by_field,
        "model_type",
        "class Product(BaseModel):\n    product: str\nBestseller.Answer = Product",
        r"all\(",
    ),
    (
        checks.test_the_preset_for_small_shops_trains_a_file_like_any,
        "training",
        "def expected(products, rows):\n    return rows['category']",
        "passed=False",
    ),
    (
        checks.test_parity_was_measured_on_hundreds_of_inputs_and_passed,
        "training",
        "def expected(products, rows):\n    return rows['category']",
        "passed=False",
    ),
    (
        checks.test_the_onnx_file_answers_examples_and_golden_requests,
        "model_type",
        "Bestseller.answers = lambda self, outputs: [{'product': 1} for _ in range(4)]",
        "1 validation error|valid string|len\\(answers\\)",
    ),
    (
        checks.test_the_onnx_file_answers_examples_and_golden_requests,
        "model_type",
        "Bestseller.score = lambda self, examples, outputs: np.zeros(3)",
        r"\(3,\)",
    ),
    (
        checks.test_answers_do_not_depend_on_the_batch,
        "training",
        """
def export(products, path, single=export):
    model = onnx.load(single(products, path))
    model.graph.initializer.append(helper.make_tensor("first", TensorProto.INT64, [1], [0]))
    model.graph.node[0].input[0] = "asked"
    model.graph.node.insert(0, helper.make_node("Shape", ["category"], ["shape"]))
    model.graph.node.insert(1, helper.make_node("Gather", ["category", "first"], ["leader"]))
    model.graph.node.insert(2, helper.make_node("Expand", ["leader", "shape"], ["asked"]))
    onnx.save(model, path)
    return path
""",
        "only ties may swap",
    ),
    (
        checks.test_what_is_marked_for_the_search_can_be_searched,
        "model_type",
        """
from typing import Annotated
from models.search import Search
class Params(Bestseller.Params):
    depth: Annotated[int, Search(1, 10)] = Field(5, le=7)
Bestseller.Params = Params
""",
        "less than or equal to 7",
    ),
    (
        checks.test_the_file_stands_alone_and_its_batch_is_free,
        "training",
        """
def export(products, path, flexible=export):
    model = onnx.load(flexible(products, path))
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, path)
    return path
""",
        "fixed batch",
    ),
    (
        checks.test_the_file_stands_alone_and_its_batch_is_free,
        "model_type",
        "Bestseller.tensors = lambda self, requests: {'more': np.zeros((len(requests), 1))}",
        "more",
    ),
    (
        checks.test_requests_become_tensors_without_anything_that_was_learnt,
        "model_type",
        """
def train(self, rows, params, work, sound=Bestseller.train):
    self.places = {name: str(i) for i, name in enumerate(sorted(set(rows["category"])))}
    return sound(self, rows, params, work)
def tensors(self, requests):
    places = getattr(self, "places", {})
    asked = [[places.get(request["category"], "")] for request in requests]
    return {"category": np.array(asked, object)}
Bestseller.train, Bestseller.tensors = train, tensors
""",
        "not equal",
    ),
    (
        checks.test_a_wrong_request_is_named,
        "model_type",
        "Bestseller.tensors = lambda self, requests: {}",
        "DID NOT RAISE",
    ),
    (
        checks.test_the_fallback_is_answered_by_file_and_baseline,
        "model_type",
        "Bestseller.items = lambda self, answer: (answer['product'],)",
        "product 1",
    ),
    (
        checks.test_the_baseline_takes_the_same_requests_and_gives_the_same_kind_of_answers,
        "training",
        """
def export(products, path, same=export):
    model = onnx.load(same(products, path))
    if path.name == "baseline.onnx":
        model.graph.output[0].name = model.graph.node[0].output[0] = "item"
    onnx.save(model, path)
    return path
""",
        "assert",
    ),
    (
        checks.test_a_killed_training_goes_on_in_another_process_and_ends_the_same,
        "training",
        "def save_file(tensors, path, write=save_file):\n"
        "    write({'chance': np.random.default_rng().random(3)}, path)",
        "chance",
    ),
    (
        checks.test_a_killed_training_goes_on_in_another_process_and_ends_the_same,
        "training",
        "def train(rows, work, begin=train):\n"
        "    work.report(0.5, {})\n"
        "    return begin(rows, work)",
        "it has begun again",
    ),
    (
        checks.test_a_killed_training_goes_on_in_another_process_and_ends_the_same,
        "training",
        "def train(rows, work, ask=train):\n    return ask(rows, TrainingContext(work.folder))",
        "asks before",
    ),
    (
        checks.test_a_training_starts_warm_from_its_own_weights_or_does_not_say_so,
        "training",
        """
def train(rows, work, cold=train):
    from dataclasses import replace
    return replace(cold(rows, work), is_warm=work.parent is not None)
""",
        "is_warm",
    ),
    (
        checks.test_a_training_starts_warm_from_its_own_weights_or_does_not_say_so,
        "training",
        """
def train(rows, work, cold=train):
    rows = rows.head(500) if work.parent else rows
    result = cold(rows, work)
    result.curves.append(("hits", 0, result.validation))
    return result
""",
        "is_warm",
    ),
    (
        checks.test_monitored_columns_are_numbers_for_each_row_and_never_the_group_itself,
        "model_type",
        "Bestseller.monitored = lambda self, rows, profile: "
        "rows.select(pause=pl.col('ts').diff().fill_null(0))",
        "no row may depend",
    ),
    (
        checks.test_monitored_columns_of_any_number_of_rows_stream_through,
        "model_type",
        "Bestseller.monitored = lambda self, rows, profile: "
        "rows.select(unseen=pl.col('ts') > 0).collect().lazy()",
        "before anybody asked",
    ),
    (
        checks.test_monitored_columns_of_any_number_of_rows_stream_through,
        "model_type",
        "Bestseller.monitored = lambda self, rows, profile: "
        "rows.sort('product').select(unseen=pl.col('ts') > 0)",
        "== \\[\\]",
    ),
    (
        checks.test_what_is_kept_of_a_training_does_not_grow_with_its_rows,
        "model_type",
        "Bestseller.training_profile = lambda self, rows: rows.select('sale', 'product')",
        "7500 == 1500",
    ),
    (
        checks.test_the_schema_refuses_what_was_corrupted,
        "model_type",
        "class AnyTime(Sale):\n    ts: pl.Int64 = pa.Field(ge=0)\n"
        "Bestseller.table = Table('sales', RawSale, AnyTime, ('sale',), 'ts', 'sale')",
        "time in seconds",
    ),
    (
        checks.test_the_schema_refuses_what_was_corrupted,
        "model_type",
        "class Loose(msgspec.Struct):\n    sale: int\n    ts: int\n    category: Name\n"
        "    product: Name\n"
        "Bestseller.table = Table('sales', Loose, Sale, ('sale',), 'ts', 'sale')",
        "unknown field",
    ),
    (
        checks.test_the_policy_promotes_what_is_better_and_nothing_else,
        "model_type",
        "from models.spec import Policy\nBestseller.policy = Policy(min_effect=1.5)",
        "no version can gain",
    ),
    (
        checks.test_the_policy_promotes_what_is_better_and_nothing_else,
        "model_type",
        "from models.spec import Policy\nBestseller.policy = Policy(group_sd=5)",
        "few shops",
    ),
    (
        checks.test_the_policy_promotes_what_is_better_and_nothing_else,
        "model_type",
        "from models.spec import Policy\nBestseller.policy = Policy(superiority_margin=-2)",
        "'promote'",
    ),
    (
        checks.test_the_card_has_all_that_the_model_type_says,
        "model_type",
        "Bestseller.mix = ('size',)",
        "'size'",
    ),
    (
        checks.test_the_card_has_all_that_the_model_type_says,
        "model_type",
        "Bestseller.slices = lambda self, rows, profile: rows.head(1).select('category')",
        "1 in .0, 1500",
    ),
    (
        checks.test_a_batch_asks_the_file_for_what_is_in_the_rows,
        "model_type",
        "Bestseller.requests = lambda self, rows: "
        "(rows['sale'].to_numpy()[:-1], self.examples(rows).inputs)",
        "Arrays are not equal",
    ),
    (
        checks.test_a_batch_asks_the_file_for_what_is_in_the_rows,
        "model_type",
        "Bestseller.requests = lambda self, rows: "
        "(rows['sale'].to_numpy(), self.tensors([{'category': 'a'}]))",
        r"\{1\} == \{1500\}",
    ),
    (
        checks.test_triton_serves_the_file_and_answers_golden_requests_alike,
        "training",
        """
def export(products, path, plain=export):
    model = onnx.load(plain(products, path))
    del model.graph.output[0].type.tensor_type.shape.dim[1]
    onnx.save(model, path)
    return path
""",
        "load bestseller",
    ),
]
"""A check, a file of the folder, what is written below it, and what the check then says."""


def test_each_check_is_seen_to_fail():
    assert set(suite()) == {check for check, *_ in BROKEN}


def suite() -> list[Callable]:
    """The checks that ask a model type."""
    return [
        function
        for name, function in inspect.getmembers(checks, inspect.isfunction)
        if name.startswith("test_")
        and {"model_type", "rows", "trained"} & set(inspect.signature(function).parameters)
    ]


@pytest.mark.parametrize(
    ("check", "file", "text", "message"), BROKEN, ids=[check.__name__ for check, *_ in BROKEN]
)
def test_a_check_fails_for_what_is_broken(
    check: Callable,
    file: str,
    text: str,
    message: str,
    bestseller: str,
    other_models: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("PYTHONPATH", str(other_models.parent))
    if check is checks.test_triton_serves_the_file_and_answers_golden_requests_alike:
        request.getfixturevalue("triton")
    with (other_models / bestseller / f"{file}.py").open("a") as page:
        page.write(f"\n\n{text}\n")
    # An assertion that fails is an AssertionError; an error that does not come is pytest's.
    errors = (AssertionError, pytest.fail.Exception, TritonError, ValueError)
    with pytest.raises(errors, match=message):
        give(check, spec.load(bestseller), tmp_path)


def give(check: Callable, model_type: spec.ModelSpec, folder: Path) -> None:
    """Ask a model type one check, with what the fixtures would have made for it."""
    rows = importlib.import_module(f"models.{model_type.name}.sample").rows()
    needs = inspect.signature(check).parameters
    given: dict[str, Any] = {"model_type": model_type, "rows": rows, "calls": checks.Calls()}
    given["tmp_path"] = folder / "check"
    given["tmp_path"].mkdir()
    if "trained" in needs:
        trained = folder / "trained"
        trained.mkdir()
        work = given["calls"].context(trained)
        given["trained"] = model_type.train(rows, model_type.Params.tiny(), work)
    check(**{name: given[name] for name in needs})
