"""What `models/spec.py` asks of a model type, asked of every one that is registered."""

import ast
import inspect
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from demo.shop import Plan, simulate
from kreislauf import search
from kreislauf.evaluation import scoring
from models import loading, spec
from models.spec import TrainingContext
from tests.conftest import ROOT
from tests.models import searches
from tests.models.support_questions import questions


def small_shop() -> pl.DataFrame:
    return simulate(Plan(days=8, sessions_per_day=60, articles=120, change_day=9))


def with_text_ids(rows: pl.DataFrame) -> pl.DataFrame:
    """The same sessions and articles by names, in the same order."""
    return rows.with_columns(
        session=pl.format("visit-{}", pl.col("session").cast(pl.String).str.zfill(19)),
        aid=pl.format("SKU ö-{}", pl.col("aid").cast(pl.String).str.zfill(19)),
    )


MADE = {
    "search_ranker": lambda: searches.rows(0, 8, a_day=80),
    "session_recommender": small_shop,
    "session_recommender_text": lambda: with_text_ids(small_shop()),
    "support_answers": lambda: questions(500),
}
"""How rows are made for each model type; one without an entry fails here, on purpose."""


@pytest.fixture(scope="module", params=spec.names())
def model_type(request: pytest.FixtureRequest) -> spec.ModelSpec:
    return spec.load(request.param)


@pytest.fixture(scope="module")
def rows(model_type: spec.ModelSpec) -> pl.DataFrame:
    return MADE[model_type.name]()


@pytest.fixture(scope="module")
def trained(
    model_type: spec.ModelSpec, rows: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> spec.TrainingResult:
    return model_type.train(
        rows, model_type.Params.tiny(), TrainingContext(tmp_path_factory.mktemp("trained"))
    )


def folder_of(model_type: spec.ModelSpec) -> Path:
    """Folder of the code of a model type, which may be that of another."""
    return Path(inspect.getfile(type(model_type))).parent


def test_the_folder_has_the_usual_files(model_type: spec.ModelSpec):
    files = {path.name for path in folder_of(model_type).glob("*.py")}
    assert files >= {
        "__init__.py",
        "schema.py",
        "features.py",
        "model_type.py",
        "export.py",
        "metrics.py",
        "baseline.py",
    }


def test_importing_the_spec_stays_light(model_type: spec.ModelSpec):
    heavy = "{'torch', 'lightning', 'prefect', 'mlflow', 'evidently', 'onnx'}"
    code = f"import sys, models.{model_type.name}; print({heavy} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_nothing_on_the_path_of_a_model_can_unpickle(model_type: spec.ModelSpec):
    for path in folder_of(model_type).glob("*.py"):
        names = {n.id for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Name)}
        assert not names & {"pickle", "joblib", "dill", "cloudpickle"}
        assert "torch.load" not in path.read_text()


def test_parameters_have_defaults_and_descriptions(model_type: spec.ModelSpec):
    model_type.Params()
    assert all(field.description for field in model_type.Params.model_fields.values())
    with pytest.raises(ValueError, match="no_such_parameter"):
        model_type.Params.model_validate({"no_such_parameter": 1})


def test_the_api_describes_requests_and_answers_field_by_field(model_type: spec.ModelSpec):
    for message in (model_type.Request, model_type.Answer):
        assert message.model_fields
        assert all(field.description for field in message.model_fields.values())


def test_the_preset_for_small_shops_trains_a_file_like_any(
    model_type: spec.ModelSpec, rows: pl.DataFrame, tmp_path: Path
):
    small = model_type.Params.small()
    assert model_type.Params.model_validate(small.model_dump()) == small
    trained = model_type.train(rows, small, TrainingContext(tmp_path))
    assert trained.parity.passed
    examples = model_type.examples(rows)
    outputs = scoring.answer(trained.onnx, examples.inputs)
    assert model_type.score(examples, outputs).mean() > 0


def test_what_is_marked_for_the_search_can_be_searched(model_type: spec.ModelSpec):
    space = search.space(model_type.Params)
    for name, value in itertools.product(space, ("low", "high")):
        assert model_type.Params.model_validate({name: getattr(space[name], value)})


def test_the_onnx_file_answers_examples_and_golden_requests(
    model_type: spec.ModelSpec, rows, trained
):
    examples = model_type.examples(rows)
    assert np.all(examples.groups[1:] >= examples.groups[:-1])
    outputs = scoring.answer(trained.onnx, examples.inputs)
    score = model_type.score(examples, outputs)
    assert score.shape == (len(examples),)
    assert np.isfinite(score).all()
    golden = model_type.tensors(model_type.golden())
    answers = model_type.answers(scoring.answer(trained.onnx, golden))
    assert len(answers) == len(model_type.golden())
    for request in (*model_type.golden(), model_type.fallback):
        model_type.Request.model_validate(request, strict=True)
    for answer in answers:
        assert model_type.Answer.model_validate(answer, strict=True).model_dump() == answer
    assert {name: a.dtype for name, a in golden.items()} == {
        name: a.dtype for name, a in examples.inputs.items()
    }


def test_answers_do_not_depend_on_the_batch(model_type: spec.ModelSpec, rows, trained):
    inputs = model_type.examples(rows).take(np.arange(64)).inputs
    single_answers, batch_answers = (
        scoring.answer(trained.onnx, inputs, batch) for batch in (1, 64)
    )
    for name, values in single_answers.items():
        if np.issubdtype(values.dtype, np.floating):
            np.testing.assert_allclose(values, batch_answers[name], rtol=1e-4, atol=1e-4)
        else:
            assert (values == batch_answers[name]).mean() > 0.99, "only ties may swap"


def test_parity_was_measured_on_hundreds_of_inputs_and_passed(trained):
    assert trained.parity.passed
    assert trained.parity.inputs >= 500
    assert trained.parity.largest_batch == spec.MAX_BATCH


def test_the_baseline_takes_the_same_requests_and_gives_the_same_kind_of_answers(
    model_type, rows, trained, tmp_path
):
    examples = model_type.examples(rows).take(np.arange(50))
    ours, trivial = (
        scoring.answer(path, examples.inputs)
        for path in (trained.onnx, model_type.baseline(rows, tmp_path))
    )
    assert {n: (a.dtype, a.shape) for n, a in ours.items()} == {
        n: (a.dtype, a.shape) for n, a in trivial.items()
    }


def test_training_is_repeatable_and_starts_warm_from_its_own_weights(
    model_type, rows, trained, tmp_path
):
    again = model_type.train(rows, model_type.Params.tiny(), TrainingContext(tmp_path))
    assert again.curves == trained.curves
    (tmp_path / "warm").mkdir()
    warm = model_type.train(
        rows, model_type.Params.tiny(), TrainingContext(tmp_path / "warm", trained.weights)
    )
    assert warm.parity.passed
    assert warm.curves != trained.curves


def test_monitored_columns_are_numbers_for_each_row_and_never_the_group_itself(
    model_type: spec.ModelSpec, rows
):
    profile = model_type.training_profile(rows.lazy()).collect()
    watched = model_type.monitored(rows.lazy(), profile).collect()
    assert len(watched) == len(rows)
    assert model_type.table.group not in watched.columns
    assert all(dtype.is_numeric() or dtype == pl.Boolean for dtype in watched.dtypes)
    halves = [
        model_type.monitored(half.lazy(), profile).collect() for half in (rows[:50], rows[50:])
    ]
    assert pl.concat(halves).sort(pl.all()).equals(watched.sort(pl.all())), (
        "no row may depend on the others"
    )
    assert watched.null_count().sum_horizontal().item() == 0


def test_an_unknown_model_type_is_named_with_the_known_ones():
    with pytest.raises(
        ValueError, match=r"No model type is called 'nothing'\. Known: .*session_recommender"
    ):
        spec.load("nothing")


@pytest.mark.parametrize("name", ["spec.py", "table.py"])
def test_changed_code_of_the_contract_is_another_training(tiny, tmp_path, monkeypatch, name):
    model_type = spec.load(tiny)
    digest = loading.code_digest(model_type)
    assert loading.code_digest(model_type) == digest
    read_bytes = Path.read_bytes

    def changed(path: Path) -> bytes:
        return read_bytes(path) + b"# changed" * (path == ROOT / "models" / name)

    monkeypatch.setattr(Path, "read_bytes", changed)
    assert loading.code_digest(model_type) != digest
