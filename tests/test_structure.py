"""What the project says about itself is true: who imports whom, the README's tree, prefect.yaml, event names."""

import ast
import importlib
import inspect
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tasks import events
from tests.conftest import ROOT

MODELS = sorted(p.name for p in (ROOT / "models").iterdir() if (p / "__init__.py").exists())
SOURCES = sorted(p for top in ("flows", "tasks", "models", "serving") for p in (ROOT / top).rglob("*.py"))
OURS = ("flows", "tasks", "models", "serving", "deployments", "demo", "notebooks", "benchmarks", "tests")
README = (ROOT / "README.md").read_text()
DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
AUTOMATIONS = yaml.safe_load((ROOT / "deployments" / "automations.yaml").read_text())["automations"]


def imported(path: Path) -> set[str]:
    """Modules that a file imports, at its top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def allowed(path: Path) -> str:
    """What of ours and of the heavy libraries a file may import, as a pattern."""
    folder, name = path.relative_to(ROOT).parts[0], path.stem
    if folder == "models":
        own = "".join(path.relative_to(ROOT).parts[1:2]) if len(path.relative_to(ROOT).parts) > 2 else "spec"
        return rf"models(\.spec.*|\.{own}.*)?$"
    if folder == "tasks":
        # A folder in tasks is one outside system or decision in several files, which may know each other.
        inner = path.relative_to(ROOT / "tasks").parts[0] if path.parent != ROOT / "tasks" else "events"
        return rf"models\.spec.*|tasks\.(settings|events|split|scoring|intervals|{inner}).*|(models|tasks)$"
    if folder == "flows":
        calls = r"|flows\..*" if name in ("retrain", "rollback", "experiment", "collect", "backfill") else ""
        return rf"tasks.*|models\.spec.*{calls}"
    return r"serving.*|models\.spec.*|tasks\.(settings|releases|triton|exposures|vitals).*"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_who_may_import_whom(path: Path):
    rule = re.compile(allowed(path))
    wrong = {name for name in imported(path) if name.split(".")[0] in OURS and not rule.match(name)}
    assert not wrong


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_and_foreign_libraries_stay_where_they_belong(path: Path):
    relative, roots = str(path.relative_to(ROOT)), {name.split(".")[0] for name in imported(path)}
    if relative.startswith("models/"):
        assert not roots & {"prefect", "mlflow", "evidently", "optuna"}
    else:
        assert not roots & {"torch", "lightning"}
        assert "mlflow" not in roots or relative.startswith("tasks/registry/")
        assert "optuna" not in roots or relative == "tasks/search/__init__.py"
        assert "evidently" not in roots or relative == "tasks/drift/__init__.py"
    if relative.startswith("serving/"):
        assert "prefect" not in roots


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_functions_and_files_can_be_read(path: Path):
    lines = path.read_text().splitlines()
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{node.name} is too long"
    assert len(lines) <= 340


def test_the_readme_s_tree_is_the_tree():
    tree = re.search(r"```\nkreislauf/\n(.*?)```", README, re.S)[1]
    said, folders = set(), []
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2 - 1
        name = line.split()[0]
        folders[depth:] = [name]
        said.add("".join(folders))
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    there = [f for f in listed.stdout.splitlines() if (ROOT / f).exists()]
    files = {f for f in there if not f.endswith("__init__.py") or re.match(r"(models|tasks)/\w+/", f)}
    assert {s for s in said if not s.endswith("/")} == files
    assert all(len(line.split(maxsplit=1)) == 2 for line in tree.splitlines()), "every line says what for"


def test_every_make_target_of_the_readme_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`make ([a-z-]+)", README)) <= targets


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: d["name"])
def test_prefect_yaml_matches_the_flows(deployment: dict):
    module, name = deployment["entrypoint"].rsplit(".", 1)
    flow = getattr(importlib.import_module(module), name)
    parameters = inspect.signature(flow.fn).parameters
    given = [deployment.get("parameters", {}), *(t.get("parameters", {}) for t in deployment.get("triggers", []))]
    assert all(set(p) <= set(parameters) for p in given)
    assert flow.name == deployment["name"] == module.split(".")[1]
    given = deployment.get("parameters", {})
    if all(p.default is not p.empty or n in given for n, p in parameters.items()):
        flow.validate_parameters(given)


def test_every_flow_has_a_deployment_and_a_docstring():
    flows = sorted(p.stem for p in (ROOT / "flows").glob("*.py") if p.stem != "__init__")
    assert flows == sorted(d["name"] for d in DEPLOYMENTS)
    for name in flows:
        assert "Returns:" in getattr(importlib.import_module(f"flows.{name}"), name).__doc__


def test_yaml_names_only_events_that_are_emitted():
    text = (ROOT / "prefect.yaml").read_text() + (ROOT / "deployments" / "automations.yaml").read_text()
    emitted = {v for v in vars(events).values() if isinstance(v, str) and v.startswith("kreislauf.")}
    named = {n for n in re.findall(r"kreislauf\.[a-z]+\.[a-z-]+", text) if not n.startswith("kreislauf.model.*")}
    assert named
    assert named <= emitted


@pytest.mark.parametrize("automation", AUTOMATIONS, ids=lambda a: a["name"])
def test_automations_are_what_prefect_understands(automation: dict):
    from prefect.events.schemas.automations import AutomationCore

    assert AutomationCore.model_validate(automation).name.startswith("kreislauf-")


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
