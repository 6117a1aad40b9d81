"""What `models/spec.py` asks of a model type, asked of every one that is registered.

`-k NAME` asks one of them. A model type elsewhere brings its rows in its `sample.py`.
"""

import ast
import importlib
import inspect
import itertools
import json
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors import safe_open

from demo.shop import Plan, simulate
from kreislauf import search
from kreislauf.evaluation import scoring, split
from kreislauf.lake.validate import validate_lines
from kreislauf.monitoring import drift
from kreislauf.pages import markdown
from kreislauf.pages import version as version_page
from kreislauf.release import golden
from kreislauf.release import triton as server
from models import loading, spec, text
from models.parity import session_of
from models.search import Search
from models.spec import TrainingContext
from models.table import RawLines
from tasks import promote
from tests.conftest import ROOT
from tests.models import searches, verdicts
from tests.models.corruptions import corrupt_lines, line_of
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
"""How rows are made for each model type of this repository."""


@dataclass
class Calls:
    """What a training has called back with."""

    shares: list[float] = field(default_factory=list)
    writes: int = 0

    def report(self, share: float, metrics: dict[str, float]) -> None:
        self.shares.append(share)

    def before_write(self) -> None:
        self.writes += 1

    def context(self, folder: Path) -> TrainingContext:
        return TrainingContext(folder, report=self.report, before_write=self.before_write)


@pytest.fixture(scope="module", params=spec.names())
def model_type(request: pytest.FixtureRequest) -> spec.ModelSpec:
    return spec.load(request.param)


@pytest.fixture(scope="module")
def rows(model_type: spec.ModelSpec) -> pl.DataFrame:
    """Rows to learn from; those of a model type elsewhere are in its `sample.py`."""
    if model_type.name in MADE:
        return MADE[model_type.name]()
    return importlib.import_module(f"models.{model_type.name}.sample").rows()


@pytest.fixture(scope="module")
def calls(model_type: spec.ModelSpec) -> Calls:
    """What the training of `trained` has called back with."""
    return Calls()


@pytest.fixture(scope="module")
def trained(
    model_type: spec.ModelSpec,
    rows: pl.DataFrame,
    calls: Calls,
    tmp_path_factory: pytest.TempPathFactory,
) -> spec.TrainingResult:
    work = calls.context(tmp_path_factory.mktemp("trained"))
    return model_type.train(rows, model_type.Params.tiny(), work)


def folder_of(model_type: spec.ModelSpec) -> Path:
    """Folder of the code of a model type, which may be that of another."""
    return Path(inspect.getfile(type(model_type))).parent


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
    fields = model_type.Params.model_fields.values()
    if not any(isinstance(mark, Search) for field in fields for mark in field.metadata):
        with pytest.raises(ValueError, match="nothing to search"):
            search.space(model_type.Params)
        return
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


def test_parity_was_measured_on_hundreds_of_inputs_and_passed(model_type, rows, trained):
    assert trained.parity.passed
    assert trained.parity.inputs >= min(500, len(model_type.examples(rows)))
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


@pytest.mark.slow
def test_a_killed_training_goes_on_in_another_process_and_ends_the_same(
    model_type: spec.ModelSpec, rows, trained, calls: Calls, tmp_path
):
    assert calls.writes > 0, "each write into the folder asks before"
    rows.write_ipc(tmp_path / "rows.arrow")
    work = tmp_path / "work"
    work.mkdir()
    last = str(calls.writes // 2 + 1)
    command = [sys.executable, "-W", "ignore", "-m", "tests.models.killed", model_type.name]
    killed = subprocess.run([*command, tmp_path / "rows.arrow", work, last], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    after = Calls()
    again = model_type.train(rows, model_type.Params.tiny(), after.context(work))
    assert len(after.shares) < len(calls.shares) or not calls.shares, "it has begun again"
    assert again.curves == trained.curves
    assert again.validation == trained.validation
    assert again.onnx.read_bytes() == trained.onnx.read_bytes()
    assert weights_of(again) == weights_of(trained)


def weights_of(trained: spec.TrainingResult) -> dict[str, Any]:
    """Metadata and bytes of the tensors of the weights: safetensors writes metadata in any
    order."""
    with safe_open(str(trained.weights), "np") as file:
        tensors = {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118
        return tensors | {"metadata": file.metadata()}


def test_a_training_starts_warm_from_its_own_weights_or_does_not_say_so(
    model_type: spec.ModelSpec, rows, trained, tmp_path
):
    work = TrainingContext(tmp_path, trained.weights)
    warm = model_type.train(rows, model_type.Params.tiny(), work)
    assert warm.parity.passed
    assert not trained.is_warm
    is_the_same = warm.curves == trained.curves and weights_of(warm) == weights_of(trained)
    assert is_the_same != warm.is_warm


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


def test_monitored_columns_of_any_number_of_rows_stream_through(
    model_type: spec.ModelSpec, rows, tmp_path
):
    profile = model_type.training_profile(rows.lazy()).collect()
    rows.write_parquet(tmp_path / "rows.parquet")
    watched = model_type.monitored(pl.scan_parquet(tmp_path / "rows.parquet"), profile)
    assert "multi-scan[parquet]" in plan(watched), "the rows were read before anybody asked"
    assert [node for node in held_in_memory(plan(watched)) if "join" not in node] == []


def plan(frame: pl.LazyFrame) -> str:
    """What Polars would do to stream a frame, as a graph."""
    graph = frame.show_graph(engine="streaming", plan_stage="physical", raw_output=True)
    assert graph
    return graph


def held_in_memory(graph: str) -> list[str]:
    """Steps of a plan that keep rows: Polars draws them filled. The profile lies there anyway."""
    steps = [line.partition("label=")[2] for line in graph.splitlines() if "style=filled" in line]
    return [step for step in steps if "in-memory-source" not in step]


def test_what_is_kept_of_a_training_does_not_grow_with_its_rows(model_type: spec.ModelSpec, rows):
    table = model_type.table
    key = table.key[0]
    number = pl.int_range(pl.len(), dtype=pl.Int64)
    copies = [rows]
    for copy in range(1, 5):
        name = number + copy * 10**12
        if rows[key].dtype == pl.String:
            name = pl.format("{} {}", key, pl.lit(copy))
        copies.append(rows.with_columns(name.alias(key), pl.col(table.time) + copy * 10**9))
    heights = [
        model_type.training_profile(frame.lazy()).collect().height
        for frame in (rows, pl.concat(copies))
    ]
    assert heights[1] == heights[0]


def test_the_file_stands_alone_and_its_batch_is_free(model_type: spec.ModelSpec, trained, tmp_path):
    file = session_of(shutil.copyfile(trained.onnx, tmp_path / "alone.onnx"))
    asked = model_type.tensors(model_type.golden())
    assert {tensor.name for tensor in file.get_inputs()} == set(asked)
    for tensor in (*file.get_inputs(), *file.get_outputs()):
        assert not isinstance(tensor.shape[0], int), f"{tensor.name} has a fixed batch"


def test_requests_become_tensors_without_anything_that_was_learnt(
    model_type: spec.ModelSpec, trained
):
    fresh = type(model_type)()
    used = model_type.tensors(model_type.golden())
    for name, values in fresh.tensors(model_type.golden()).items():
        np.testing.assert_array_equal(values, used[name])


def test_a_wrong_request_is_named(model_type: spec.ModelSpec):
    good = model_type.golden()[0]
    for name in good:
        bad = good | {name: {"no": "value"}}
        with pytest.raises(ValueError, match=rf"Request 1\b.*{name}"):
            model_type.tensors([good, bad])


def test_the_fallback_is_answered_by_file_and_baseline(
    model_type: spec.ModelSpec, rows, trained, tmp_path
):
    asked = model_type.tensors([model_type.fallback])
    for file in (trained.onnx, model_type.baseline(rows, tmp_path)):
        (answer,) = model_type.answers(scoring.answer(file, asked))
        model_type.Answer.model_validate(answer, strict=True)
        shown = model_type.items(answer)
        assert json.loads(json.dumps(shown)) == shown
        assert all(model_type.item(item) == item for item in shown)
        assert model_type.answer_form(model_type.fallback)(answer) == answer


def test_the_schema_refuses_what_was_corrupted(model_type: spec.ModelSpec, rows):
    row = rows.row(0, named=True)
    wrong = corrupt_lines(model_type.table, row)
    lines = [line_of(model_type.table, row), *wrong.values()]
    raw = RawLines.of("shop", [json.dumps(line).encode() for line in lines])
    validated = validate_lines(model_type.table, [raw])
    refused = set(validated.rejected["line"].to_list())
    assert [fault for number, fault in enumerate(wrong, 2) if number not in refused] == []
    assert validated.rows.height == 1


def test_the_policy_promotes_what_is_better_and_nothing_else(
    model_type: spec.ModelSpec, rows, trained
):
    examples = model_type.examples(rows)
    outputs = scoring.answer(trained.onnx, examples.inputs)
    others = {name: np.roll(values, 1, axis=0) for name, values in outputs.items()}
    best = float(model_type.score(examples, outputs).max())
    worst = float(model_type.score(examples, others).min())
    assert model_type.policy.min_effect < best - worst, "no version can gain as much"
    groups = split.groups_needed(model_type.policy)
    assert groups <= 20_000, "few shops have so many groups in a hold-out"
    outcomes = [
        verdicts.outcome(model_type, groups, *scores)
        for scores in (
            (best, None, worst),
            (best, worst, worst),
            (worst, None, best),
            (worst, best, worst),
            (worst, worst, best),
        )
    ]
    assert outcomes == ["promote", "promote", "refuse", "refuse", "refuse"]


def test_the_card_has_all_that_the_model_type_says(
    model_type: spec.ModelSpec, rows, trained, tmp_path
):
    profile = model_type.training_profile(rows.lazy()).collect()
    slices = model_type.slices(rows, profile)
    assert slices.height in (0, len(model_type.examples(rows)))
    assert set(model_type.mix) <= set(slices.columns)
    watched = model_type.monitored(rows.lazy(), profile).collect()
    half = len(watched) // 2
    drifts = drift.compare(watched[half:], watched[:half], tmp_path / "drift.html").values
    decision = verdicts.decide(model_type, rows, trained, model_type.baseline(rows, tmp_path))
    version = verdicts.version_of(model_type, rows, trained)
    page = version_page.page(version, decision, 0.01, drifts, promote.as_row(version, decision))
    assert f"|  | {model_type.metric} | p95, ms | MB | coverage |" in page
    missing = [name for name in (*slices.columns, *watched.columns) if f"\n| {name} | " not in page]
    assert missing == [], "of slices and monitored columns"
    titles = ["Quality on the hold-out", "Data", "Drift from training to hold-out", "Lineage"]
    assert [title for title in titles if f"\n## {title}\n" not in page] == []
    assert "nan" not in re.findall(r"\w+", page)
    html = markdown.page(f"{model_type.name} version 2", page, trained.curves)
    assert ("<svg" in html) == bool(trained.curves)


@pytest.mark.usefixtures("triton")
def test_triton_serves_the_file_and_answers_golden_requests_alike(
    model_type: spec.ModelSpec, rows, trained, tmp_path
):
    name = model_type.name
    stored = golden.write_golden(model_type, rows, trained.onnx, tmp_path / "golden.json")
    inputs, expected = golden.read_golden(stored.read_bytes())
    server.add_version(name, 1, trained.onnx)
    server.keep_warm_up(name, 1, inputs)
    server.load(name, [1])
    outputs = server.ask(name, 1, inputs)
    assert golden.compare(outputs, expected) == ""
    edges = {output: values[: len(model_type.golden())] for output, values in outputs.items()}
    for answer in model_type.answers(text.unify(edges)):
        model_type.Answer.model_validate(answer, strict=True)


def test_a_batch_asks_the_file_for_what_is_in_the_rows(model_type: spec.ModelSpec, rows, trained):
    names, inputs = model_type.requests(rows)
    again, same_inputs = model_type.requests(rows.sample(fraction=1.0, shuffle=True, seed=0))
    np.testing.assert_array_equal(np.sort(again), np.sort(names))
    examples = model_type.examples(rows).inputs
    assert {name: values.dtype for name, values in inputs.items()} == {
        name: values.dtype for name, values in examples.items()
    }
    assert {len(values) for values in (*inputs.values(), *same_inputs.values())} == {len(names)}
    answers = model_type.answers(scoring.answer(trained.onnx, inputs))
    assert len(answers) == len(names)
    assert all(model_type.Answer.model_validate(answer, strict=True) for answer in answers)


def test_a_broken_model_type_hides_no_other(other_models: Path):
    (other_models / "a_broken_one").mkdir()
    (other_models / "a_broken_one" / "__init__.py").write_text("raise RuntimeError('broken')")
    sound, broken = loading.load_sound()
    assert list(broken) == ["a_broken_one"]
    assert "session_recommender" in [model_type.name for model_type in sound]
    twin = loading.twin_for_text(spec.load("session_recommender"))
    assert twin is not None
    assert twin.name == "session_recommender_text"


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
