"""The search: trials in processes of their own, killed and continued, and the step that makes its
result count."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from deployments.adopt import adopt, edit
from flows.ingest import ingest
from flows.tune import tune
from kreislauf import lake, registry, search
from kreislauf.registry import studies
from kreislauf.search import process
from kreislauf.settings import settings
from models import spec
from tests.conftest import ROOT
from tests.waiting import until

PATIENCE = 600
"""Seconds in which a training begins or ends."""
needs_prefect = pytest.mark.usefixtures("prefect_harness")
pytestmark = pytest.mark.usefixtures("mlflow_store")


@pytest.fixture
def marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the trainings of `fussy` are to do, and, in `trained`, what they did."""
    folder = tmp_path / "marks"
    folder.mkdir()
    monkeypatch.setenv("FUSSY_MARKS", str(folder))
    return folder


@pytest.fixture
def fussy(tiny, other_models, orders, marks) -> str:
    """The model type, with data."""
    (other_models / "fussy").mkdir()
    shutil.copyfile(ROOT / "tests" / "models" / "fussy.py", other_models / "fussy" / "__init__.py")
    ingest(orders(0, 20, threshold=50), "fussy")
    yield "fussy"
    for name in [n for n in sys.modules if n.startswith("models.fussy")]:
        del sys.modules[name]


def trained(marks: Path, column: int = 0) -> list[str]:
    """Numbers of the trials whose training began, in that order; column 1 has their newest rows'
    time."""
    log = marks / "trained"
    return [line.split()[column] for line in log.read_text().splitlines()] if log.exists() else []


def states(study: studies.Study) -> list[tuple[int, str]]:
    return [(trial.number, trial.state) for trial in studies.trials(study)]


@pytest.mark.slow
@needs_prefect
def test_a_search_prunes_retries_fails_and_is_added_to_and_changes_nothing(fussy, marks):
    from mlflow import MlflowClient
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        ArtifactCollectionFilter,
        ArtifactCollectionFilterKey,
    )

    for mark in ("bad-7", "fail-3", "die-2"):
        (marks / mark).touch()
    deployments = (ROOT / "prefect.yaml").read_bytes()

    tuned = tune(fussy, trials=8, params={"seed": 5}, workers=2)

    study = studies.get(fussy, tuned.study)
    assert {(2, "killed"), (2, "finished"), (3, "failed"), (7, "pruned"), (0, "finished")} <= set(
        states(study)
    )
    killed, again = (trial.params for trial in studies.trials(study) if trial.number == 2)
    assert killed == again
    assert tuned.trials["failed"] == tuned.trials["killed"] == 1
    assert tuned.default_validation == pytest.approx(0.75)
    assert tuned.validation == pytest.approx(1 - (tuned.params["x"] - 0.7) ** 2)
    assert tuned.validation > 0.75
    assert tuned.params["seed"] == 5
    assert max(map(int, trained(marks, 1))) < study.lineage.holdout
    assert max(lake.read(spec.load(fussy).table)["ts"]) > study.lineage.holdout

    mlflow = MlflowClient(settings().mlflow_url)
    parent = mlflow.get_run(study.run_id)
    assert parent.info.status == "FINISHED"
    assert parent.inputs.dataset_inputs[0].dataset.name == "orders"
    runs = {trial.state: mlflow.get_run(trial.run_id) for trial in studies.trials(study)}
    assert {state: run.info.status for state, run in runs.items()} == {
        "finished": "FINISHED", "pruned": "KILLED", "failed": "FAILED", "killed": "FAILED"
    }  # fmt: skip
    history = mlflow.get_metric_history(runs["failed"].info.run_id, "accuracy_at_1")
    assert [point.step for point in history] == [25, 50, 75, 100]
    assert runs["failed"].data.params.keys() == {"x", "size", "seed"}
    assert "the mark says so" in runs["failed"].data.tags["why"]
    assert runs["finished"].data.metrics["validation"] > 0

    key = ArtifactCollectionFilterKey(any_=["search-fussy"])
    search_report = ArtifactCollectionFilter(key=key)
    with get_client(sync_client=True) as client:
        (report,) = client.read_latest_artifacts(artifact_filter=search_report)
    assert tuned.adopt in report.data
    assert f"make adopt MODEL=fussy STUDY={tuned.study}" == tuned.adopt
    assert (ROOT / "prefect.yaml").read_bytes() == deployments
    assert registry.versions(fussy) == []

    (marks / "fail-3").unlink()
    before = len(trained(marks))
    more = tune(fussy, trials=9, params={"seed": 5}, workers=2)
    assert more.study == tuned.study
    assert sorted(trained(marks)[before:]) == ["3", "8"]
    assert list((settings().home / "search").iterdir()) == []


@pytest.mark.slow
@needs_prefect
def test_a_killed_search_continues_with_the_trial_that_was_running(fussy, marks, orders):
    from prefect.settings import PREFECT_API_URL

    (marks / "hang-1").touch()
    code = f"from flows.tune import tune; tune({fussy!r}, trials=2, workers=1)"
    path = os.pathsep.join(sys.path)
    env = {**os.environ, "PYTHONPATH": path, "PREFECT_API_URL": PREFECT_API_URL.value()}
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=env) as flow:
        try:
            until(lambda: flow.poll() is not None or "1" in trained(marks), PATIENCE)
            (training,) = psutil.Process(flow.pid).children()
            with pytest.raises(RuntimeError, match="Another process works in"):
                tune(fussy, trials=2, workers=1)
        finally:
            flow.kill()
    until(lambda: not training.is_running() or training.status() == psutil.STATUS_ZOMBIE, PATIENCE)
    (study,) = studies._studies(fussy)
    assert states(study) == [(0, "finished"), (1, "running")]
    (marks / "hang-1").unlink()
    ingest(orders(20, 22, threshold=50), fussy)

    tuned = tune(fussy, trials=2, workers=1)

    assert tuned.study == study.name
    assert trained(marks) == ["0", "1", "1"]
    assert states(study) == [(0, "finished"), (1, "killed"), (1, "finished")]
    killed, again = (trial.params for trial in studies.trials(study) if trial.number == 1)
    assert killed == again


@needs_prefect
def test_if_the_defaults_fail_the_search_ends_and_says_why(fussy, marks):
    (marks / "fail-0").touch()
    with pytest.raises(process.Ended, match="ValueError: the mark says so"):
        tune(fussy, trials=5, workers=1)
    assert len(trained(marks)) <= 2, "the one after it may have begun already"


@needs_prefect
def test_what_cannot_be_searched_is_said_before_anything_runs(fussy, marks):
    with pytest.raises(ValueError, match="No model type is called 'nothing'"):
        tune("nothing")
    with pytest.raises(
        ValueError,
        match=r"nothing to search in models\.fussy\.Params \(x, size: all of it is fixed\)",
    ):
        tune(fussy, params={"x": 0.5, "size": 3})
    with pytest.raises(ValueError, match="no_such"):
        tune(fussy, params={"no_such": 1})
    assert trained(marks) == []


def test_trials_share_the_cores_but_not_a_gpu(monkeypatch):
    cores = len(os.sched_getaffinity(0))
    assert [process.cores(trials) for trials in (2, 400)] == [1, min(cores, 100)]
    monkeypatch.setenv("KREISLAUF_TRAINER", '{"accelerator": "gpu", "devices": 4}')
    assert process.cores(400) == 1


class Tried:
    def __init__(
        self,
        number: int,
        state: str,
        x: float = 0.5,
        validation: float = 0.0,
        reports: dict | None = None,
    ):
        self.number, self.state, self.params, self.validation = number, state, {"x": x}, validation
        self.reports = reports or {}


def test_the_same_past_gives_the_same_proposal_and_the_past_is_learnt_from():
    from optuna.distributions import FloatDistribution

    space = {"x": FloatDistribution(0, 1)}
    tried = [Tried(i, "finished", i / 30, 1 - (i / 30 - 0.7) ** 2) for i in range(30)]
    tried += [
        Tried(30, "running"),
        Tried(31, "failed"),
        Tried(32, "pruned", 0.1, reports={50: 0.2}),
    ]
    proposed = [search.propose(space, tried, str(seed))["x"] for seed in range(8)]
    assert proposed == [search.propose(space, tried, str(seed))["x"] for seed in range(8)]
    assert len(set(proposed)) == 8
    assert sum(abs(x - 0.7) < 0.2 for x in proposed) >= 6
    assert search.best(tried).number == 21


def test_a_trial_below_the_median_of_what_five_had_by_then_is_hopeless():
    tried = [Tried(i, "finished", reports={30: 0.1 * i, 90: 0.9}) for i in range(5)]
    assert search.should_prune(tried, {50: 0.15})
    assert not search.should_prune(tried, {50: 0.25})
    assert not search.should_prune(tried, {20: 0.0}), "nobody had reported by then"
    assert not search.should_prune(tried[:4], {50: 0.0}), "too few to compare with"


@pytest.fixture
def study(home) -> studies.Study:
    """A study with two attempts that have not finished."""
    lineage = registry.Lineage(
        key="k", table="events", table_version=3, start=1, holdout=5, watermark=9, digest="d" * 64
    )
    study = studies.start("session_recommender", "abc", lineage, {"epochs": 6})
    studies.finish_trial(studies.begin(study, 0, {"lr": 0.002, "dim": 64}), "failed")
    studies.begin(study, 1, {"lr": 0.5, "dim": 32})
    return study


def test_the_best_parameters_are_adopted_by_hand_and_prefect_yaml_keeps_its_comments(
    study, tmp_path
):
    file = tmp_path / "prefect.yaml"
    shutil.copyfile(ROOT / "prefect.yaml", file)
    with pytest.raises(ValueError, match="No trial has finished yet"):
        adopt("session_recommender", "abc", file)
    with pytest.raises(
        registry.RegistryError, match=r"no study called 'xyz'\. Its studies, newest first: abc"
    ):
        adopt("session_recommender", "xyz", file)
    assert file.read_bytes() == (ROOT / "prefect.yaml").read_bytes()

    for number, lr, validation in ((2, 1e-05, 0.3), (3, 0.0025, 0.2)):
        studies.finish_trial(
            studies.begin(study, number, {"lr": lr, "dim": 48}), "finished", validation
        )
    diff = adopt("session_recommender", "abc", file)

    removed = [line for line in diff.splitlines() if line[0] == "-"][1:]
    assert removed == ["-    parameters: {model: session_recommender}"] * 2
    assert adopt("session_recommender", "abc", file) == ""
    deployments = {d["name"]: d for d in yaml.safe_load(file.read_text())["deployments"]}
    params = {"epochs": 6, "lr": 1e-05, "dim": 48}
    adopted = {"model": "session_recommender", "params": params}
    assert deployments["train"]["parameters"] == adopted
    assert deployments["retrain"]["parameters"] == adopted
    (weekly,) = deployments["retrain"]["schedules"]
    assert weekly["parameters"] == {"reason": "weekly schedule"}, (
        "a person's run has another reason"
    )
    assert [name for name, d in deployments.items() if "params" in d.get("parameters", {})] == [
        "train",
        "retrain",
    ]


def test_parameters_are_not_adopted_where_other_models_would_get_them(study, tiny, tmp_path):
    file = tmp_path / "prefect.yaml"
    shipped = (ROOT / "prefect.yaml").read_text()
    own = "kreislauf.model.session_recommender"
    assert f"{{prefect.resource.id: {own}}}" in shipped
    both = f"{{prefect.resource.id: [{own}, kreislauf.model.t*]}}"
    file.write_text(shipped.replace(f"{{prefect.resource.id: {own}}}", both))
    studies.finish_trial(studies.begin(study, 2, {"lr": 0.001, "dim": 48}), "finished", 0.3)
    with pytest.raises(
        ValueError, match=r"The trigger retrain-on-drift-or-decay starts retrain for tiny, too"
    ):
        adopt("session_recommender", "abc", file)
    file.write_text(shipped)
    assert adopt("session_recommender", "abc", file)


@pytest.mark.parametrize("model", spec.names())
def test_parameters_are_adopted_for_one_model_and_not_where_all_share(model):
    shipped = (ROOT / "prefect.yaml").read_text()
    before = yaml.safe_load(shipped)["deployments"]
    for params in ({"seed": 7, "lr": 1e-05}, {"seed": 8}):
        adopted = edit(shipped, model, params)
        changed = {
            deployment["name"]: deployment["parameters"]
            for deployment, old in zip(yaml.safe_load(adopted)["deployments"], before, strict=True)
            if deployment != old
        }
        own = "" if model == spec.DEFAULT else f"-{model}"
        expected = {"model": model, "params": params}
        assert changed == {f"train{own}": expected, f"retrain{own}": expected}
        lines = {*adopted.splitlines()} ^ {*shipped.splitlines()}
        assert len(lines) == 1, "comments, anchors and merges stay"
        assert edit(adopted, model, params) == adopted
