"""What the project says about itself is true: who imports whom, how the code reads, the READMEs,
prefect.yaml, event names."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmarks import call_depth, rooms, sources, style
from benchmarks.sources import Offender
from kreislauf import events
from kreislauf.settings import Settings
from models import spec
from tests.conftest import ROOT

OURS = (*sources.PRODUCT, "notebooks", "benchmarks", "tests")
PRODUCT = ("flows", "tasks", "kreislauf", "models", "serving")
SOURCES = sorted(p for top in PRODUCT for p in (ROOT / top).rglob("*.py"))
README = (ROOT / "README.md").read_text()
DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]

GROUND = (
    "settings private_file gateway_secret plain_names temporary_server clock events progress "
    "exposures full_disk object_store people"
)
ORGANS = {
    "sources": "",
    "lake": "",
    "inspection": "sources lake",
    "evaluation": "",
    "experiment": "lake release evaluation",
    "batch": "sources lake registry evaluation",
    "registry": "",
    "search": "",
    "release": "registry evaluation",
    "training": "registry lake evaluation",
    "monitoring": "batch release registry search lake sources evaluation",
    "pages": "batch experiment monitoring release registry search lake sources evaluation",
}
"""Organs of the library, and the other organs that each may import."""
COMPOSERS = ("approve", "retrain", "rollback", "experiment", "collect", "backfill", "watch", "look")
"""Flows that call other flows."""


def imported(path: Path) -> set[str]:
    """Modules that a file imports, at its top or inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def allowed(path: Path) -> str:
    """What of ours a file may import, as a pattern."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    shared = "spec|search|json_fields|table|text|loading|messages|mapping|choices|conversion"
    shared += "|session_names|records|buckets|policy|runtime|checkpoints|onnx_export|parity"
    shared += "|params|fields|mapping_column|answer_lists|mapped_requests|asking"
    spec = rf"models(\.({shared})\b.*|\.mapping$)"
    if parts[0] == "models":
        # A model type may be another one's class with other ids or another table.
        base = r"|models\.\w+\.(model_type|params)\b.*"
        own = rf"|models\.{parts[1]}\b.*{base}" if len(parts) > 2 else ""
        return rf"models$|{spec}{own}"
    if parts[0] == "kreislauf":
        organ = [parts[1]] if len(parts) > 2 else []
        names = [*GROUND.split(), *organ, *(ORGANS[organ[0]].split() if organ else [])]
        return rf"{spec}|kreislauf\.({'|'.join(names)})\b.*"
    if parts[0] == "tasks":
        return rf"{spec}|kreislauf\b.*"
    if parts[0] == "flows":
        calls = r"|flows\b.*" if parts[1] in COMPOSERS else ""
        return rf"{spec}|kreislauf\b.*|tasks\b.*{calls}"
    serving_needs = (
        r"kreislauf\.(settings|gateway_secret|exposures|full_disk|release|monitoring\.status)\b.*"
    )
    return rf"{spec}|serving\b.*|{serving_needs}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_who_may_import_whom(path: Path):
    rule = re.compile(allowed(path))
    wrong = {name for name in imported(path) if name.split(".")[0] in OURS and not rule.match(name)}
    assert not wrong


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_and_foreign_libraries_stay_where_they_belong(path: Path):
    relative = str(path.relative_to(ROOT))
    roots = {name.split(".")[0] for name in imported(path)}
    if relative.startswith("models/"):
        assert not roots & {"prefect", "mlflow", "evidently", "optuna"}
    else:
        assert not roots & {"torch", "lightning"}
        assert "mlflow" not in roots or relative.startswith("kreislauf/registry/")
        assert "optuna" not in roots or relative == "kreislauf/search/sampler.py"
        assert "evidently" not in roots or relative == "kreislauf/monitoring/drift.py"
    if relative.startswith("kreislauf/"):
        assert "prefect" not in roots or relative in (
            "kreislauf/events.py",
            "kreislauf/progress.py",
        )
    if relative.startswith("serving/"):
        assert "prefect" not in roots


def test_serving_loads_neither_prefect_nor_mlflow():
    code = "import sys, serving.app; assert not {'prefect', 'mlflow', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


LIMITS: dict[str, float] = {
    "tasks_outside": 0,
    "flows_outside": 0,
    "tasks_in_tasks": 0,
    "code_in_faces": 0,
    "private_names": 0,
    "format_skips": 0,
    "init_code_lines": rooms.MAX_FACE,
    "files_over_275": 0,
    "functions_over_60": 0,
    "parallel_assignments_per_1000": 3,
    "conditionals_per_1000": 10,
    "long_lines": 0,
    "old_words": 0,
    "merged_sections": 0,
    "words_a_sentence": 18,
}
"""Key of `benchmarks.style`, and the most that it may be."""


@pytest.fixture(scope="module")
def style_report() -> tuple[dict, list[Offender]]:
    """What `benchmarks.style` prints, without what takes long: figures, and offenders."""
    files = sources.sources()
    pages = sources.markdown()
    everything = style.offenders(files, pages)
    return style.figures(files, pages, everything), everything


@pytest.mark.parametrize("key", LIMITS)
def test_the_code_reads_well(key: str, style_report: tuple[dict, list[Offender]]):
    figures, offenders = style_report
    counter = key.removesuffix("_per_1000").replace("words_a_sentence", "long_sentences")
    places = "\n".join(str(offender) for offender in offenders if offender.counter == counter)
    assert figures[key] <= LIMITS[key], f"{key} is {figures[key]}:\n{places}"


@pytest.mark.parametrize("flow", call_depth.FLOWS)
def test_few_functions_are_between_a_flow_and_its_work(
    flow: str, style_report: tuple[dict, list[Offender]]
):
    figures, offenders = style_report
    places = [o.reason for o in offenders if o.counter in ("call_depth", "lost_calls")]
    assert 1 <= figures["call_depth"][flow] <= call_depth.MAX_DEPTH, places
    assert not [offender for offender in offenders if offender.counter == "lost_calls"]


@pytest.mark.parametrize("top", sources.PRODUCT)
def test_no_folder_is_dense(top: str, style_report: tuple[dict, list[Offender]]):
    figures, _ = style_report
    for key, figure in figures["per_folder"][top].items():
        assert figure <= LIMITS[key], key


def listed(folder: Path) -> set[str]:
    """Files that the README of a folder tells, as paths below the folder."""
    section = ""
    names = set()
    for line in (folder / "README.md").read_text().splitlines():
        if heading := re.fullmatch(r"## ([\w/-]+/)", line):
            section = heading[1]
        elif row := re.fullmatch(r"\| `([\w.-]+)` \| (.+) \|", line):
            names.add(section + row[1])
    return names


FOLDERS = [top for top in (*OURS, "docs")]


def test_the_table_of_the_settings_has_each_of_them_and_its_default():
    page = (ROOT / "docs" / "settings.md").read_text()
    rows = re.findall(r"^\| `KREISLAUF_(\w+)` \| .+ \| (.+) \|$", page, re.M)
    shown = {name.lower(): default.strip("`") for name, default in rows}
    assert set(shown) == set(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        if isinstance(field.default, bool | int | float):
            assert shown[name] == f"{field.default:g}" or shown[name] == str(field.default).lower()


def test_a_person_starts_no_run_whose_reason_is_a_schedule():
    for deployment in DEPLOYMENTS:
        assert "reason" not in deployment.get("parameters", {}), deployment["name"]


def test_recover_looks_after_the_runs_of_all_deployments_but_its_own():
    without = [d["name"] for d in DEPLOYMENTS if "kreislauf" not in d.get("tags", [])]
    assert without == ["recover"]


@pytest.mark.parametrize("top", FOLDERS)
def test_the_readme_of_a_folder_tells_its_files(top: str):
    command = ["git", "ls-files", "-co", "--exclude-standard", top]
    tracked = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    paths = [Path(name).relative_to(top) for name in tracked if (ROOT / name).exists()]
    assert listed(ROOT / top) == {
        str(p) for p in paths if p.name not in ("__init__.py", "README.md")
    }


def test_the_readme_names_every_folder():
    assert set(re.findall(r"^(\w+)/ +\S", README, re.M)) == set(FOLDERS)


def test_every_make_target_of_the_readme_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`make ([a-z-]+)", README)) <= targets


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: d["name"])
def test_prefect_yaml_matches_the_flows(deployment: dict):
    module, name = deployment["entrypoint"].rsplit(".", 1)
    flow = getattr(importlib.import_module(module), name)
    parameters = inspect.signature(flow.fn).parameters
    given = [
        deployment.get("parameters", {}),
        *(t.get("parameters", {}) for t in deployment.get("triggers", [])),
        *(s.get("parameters", {}) for s in deployment.get("schedules", [])),
    ]
    assert all(set(p) <= set(parameters) for p in given)
    assert deployment["name"] in (flow.name, *(f"{flow.name}-{model}" for model in spec.names()))
    assert flow.name == module.split(".")[1]
    given = deployment.get("parameters", {})
    if all(p.default is not p.empty or n in given for n, p in parameters.items()):
        flow.validate_parameters(given)


def test_every_flow_has_a_deployment_and_a_docstring():
    flows = sorted(p.stem for p in (ROOT / "flows").glob("*.py") if p.stem != "__init__")
    assert flows == sorted(d["name"] for d in DEPLOYMENTS if "-" not in d["name"])
    for name in flows:
        assert "Returns:" in getattr(importlib.import_module(f"flows.{name}"), name).__doc__


OF_EACH_MODEL = ("ingest", "train", "tune", "score", "monitor", "retrain")


@pytest.mark.parametrize("flow", OF_EACH_MODEL)
def test_the_deployments_of_the_model_types_differ_by_their_names_alone(flow: str):
    entrypoint = f"flows.{flow}.{flow}"
    first, *others = [d for d in DEPLOYMENTS if d["entrypoint"] == entrypoint]
    assert first["name"] == flow
    assert sorted(d["parameters"]["model"] for d in others) == sorted(
        name for name in spec.names() if name != spec.DEFAULT
    )
    for deployment in others:
        model = deployment["parameters"]["model"]
        renamed = yaml.safe_load(yaml.safe_dump(first).replace(spec.DEFAULT, model))
        named = {"name": f"{flow}-{model}", "parameters": {"model": model}}
        assert deployment == renamed | named


def test_yaml_names_only_events_that_are_emitted():
    text = (ROOT / "prefect.yaml").read_text()
    emitted = {
        v for v in vars(events).values() if isinstance(v, str) and v.startswith("kreislauf.")
    }
    resources = {f"kreislauf.model.{name}" for name in spec.names()}
    named = set(re.findall(r"kreislauf\.[a-z]+\.[a-z_-]+", text)) - resources
    assert named
    assert named <= emitted


def test_retraining_is_safe_by_default():
    retrain = next(d for d in DEPLOYMENTS if d["name"] == "retrain")
    monitor = next(d for d in DEPLOYMENTS if d["name"] == "monitor")
    assert retrain["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
    assert retrain["schedules"], "the weekly fallback does not depend on the monitor"
    assert monitor["schedules"]
    trigger = retrain["triggers"][0]
    # Prefect rounds the time that a run still has to wait to whole seconds.
    assert trigger["schedule_after"] - trigger["within"] > 0.5
    assert trigger["within"] > 0
