import time
from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel
from safetensors.numpy import save_file

from kreislauf import registry
from kreislauf.evaluation import scoring
from kreislauf.registry import claims
from models.spec import Parity, TrainingResult
from tests.conftest import aliases
from tests.models.tiny import Params, write

PARITY = Parity(inputs=500, largest_batch=64, min_overlap=1, max_difference=0, passed=True)


def lineage(key: str, parent: int | None = None) -> registry.Lineage:
    return registry.Lineage(
        key=key,
        table="orders",
        table_version=3,
        start=1,
        holdout=5,
        watermark=9,
        digest="d" * 64,
        parent=parent,
    )


def register(
    folder: Path, key: str, threshold: float = 5.0, files: dict[str, Path] | None = None
) -> registry.Version:
    folder.mkdir()
    save_file({"threshold": np.array([threshold])}, folder / "weights.safetensors")
    curves = [("loss", step, 1 / (step + 1)) for step in range(600)]
    trained = TrainingResult(
        write(folder / "m.onnx", threshold),
        folder / "weights.safetensors",
        PARITY,
        0.5,
        {"acc": 0.5},
        curves,
    )
    files = {"weights": trained.weights} | (files or {})
    with claims.held("m", lineage(key)) as claim:
        return registry.register(claim, trained, Params(), files)


@pytest.mark.usefixtures("mlflow_store")
def test_a_deleted_version_leaves_no_file_and_the_others_stay(home, tmp_path):
    first = register(tmp_path / "a", "key a")
    register(tmp_path / "b", "key b", threshold=7.0)
    registry.delete(first)
    assert [version.number for version in registry.versions("m")] == [2]
    assert registry.lookup("m", 1) is None
    left = [path.name for path in (home / "mlflow").rglob("*") if path.is_file()]
    assert (left.count("model.onnx"), left.count("weights.safetensors")) == (1, 1)
    assert registry.onnx_file(registry.get("m", 2)).exists()


@pytest.mark.usefixtures("mlflow_store")
def test_files_are_attached_to_a_version_and_detached_again(tmp_path):
    version = register(tmp_path / "a", "key a")
    assert registry.attached(version, "monitor") == []
    for name in ("one", "two", "three"):
        (tmp_path / name).write_text("<html>")
        registry.attach(version, "monitor", tmp_path / name)
    registry.detach(version, "monitor", ["one", "three"])
    assert registry.attached(version, "monitor") == ["two"]
    assert registry.onnx_file(version).exists(), "and nothing else is touched"
    without_run = version.model_copy(update={"run_id": "0" * 32})
    assert registry.attached(without_run, "monitor") == []


@pytest.mark.usefixtures("mlflow_store")
def test_a_version_knows_where_it_comes_from_and_gives_back_the_very_file(tmp_path):
    first = register(tmp_path / "a", "key a")
    assert (first.number, first.lineage, first.parity) == (1, lineage("key a"), PARITY)
    assert (
        first.digests["model.onnx"]
        == registry.sha256(tmp_path / "a" / "m.onnx")
        == registry.sha256(registry.onnx_file(first))
    )
    assert (
        registry.artifact(first, "weights").read_bytes()
        == (tmp_path / "a" / "weights.safetensors").read_bytes()
    )
    assert registry.find("m", "key a") == first
    assert registry.find("m", "key b") is None
    answers = scoring.answer(
        registry.onnx_file(first), {"price": np.array([[4.0], [6.0]], np.float32)}
    )
    assert answers["returned"].tolist() == [[False], [True]]


@pytest.mark.usefixtures("mlflow_store")
def test_the_run_holds_parameters_curves_dataset_environment_and_signature(tmp_path):
    import mlflow

    from kreislauf.settings import settings

    version = register(tmp_path / "a", "key a")
    mlflow.set_tracking_uri(settings().mlflow_url)
    run = mlflow.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"steps": "50"}
    assert run.data.metrics["acc"] == 0.5
    assert len(mlflow.MlflowClient().get_metric_history(version.run_id, "loss")) == 600
    dataset = run.inputs.dataset_inputs[0].dataset
    assert dataset.name == "orders"
    assert '"delta_table_version": 3' in dataset.source
    assert "polars==" in mlflow.artifacts.load_text(f"runs:/{version.run_id}/environment.txt")
    info = mlflow.models.get_model_info(f"models:/m/{version.number}")
    assert info.signature.inputs.input_names() == ["price"]
    assert info.signature.outputs.input_names() == ["returned"]
    stored = [
        path.name
        for path in Path(mlflow.artifacts.download_artifacts(f"models:/m/{version.number}")).rglob(
            "*"
        )
    ]
    assert not [
        name for name in stored if name.endswith((".pkl", ".pickle", ".pt", ".pth", ".joblib"))
    ]


@pytest.mark.usefixtures("mlflow_store")
def test_aliases_follow_the_release_log_and_a_wrong_mirror_is_repaired(tmp_path):
    for key in "abc":
        register(tmp_path / key, key)
    assert aliases("m") == {"challenger": 3}
    registry.mirror("m", champion=2, challenger=None, previous=1)
    assert aliases("m") == {"champion": 2, "previous": 1}
    registry.mirror("m", champion=3, challenger=1, previous=2)
    assert aliases("m") == {"champion": 3, "challenger": 1, "previous": 2}


@pytest.mark.usefixtures("mlflow_store")
def test_a_file_changed_behind_the_registry_s_back_is_refused(tmp_path, home):
    version = register(tmp_path / "a", "key a")
    for path in home.rglob("model.onnx"):
        write(path, 7.0)
    with pytest.raises(
        registry.RegistryError,
        match=r"m version 1: model.onnx has digest .* was changed or damaged",
    ):
        registry.onnx_file(version)


@pytest.mark.usefixtures("mlflow_store")
def test_a_damaged_cache_heals_itself(tmp_path, home):
    version = register(tmp_path / "a", "key a")
    for name, path in (
        ("model.onnx", registry.onnx_file(version)),
        ("weights", registry.artifact(version, "weights")),
    ):
        path.write_bytes(b"half")
        assert name in version.digests
    assert registry.sha256(registry.onnx_file(version)) == version.digests["model.onnx"]
    assert registry.sha256(registry.artifact(version, "weights")) == version.digests["weights"]
    assert [p.name for p in (home / "cache").iterdir() if p.name.startswith("tmp")] == []


@pytest.mark.usefixtures("mlflow_store")
def test_a_file_is_found_by_the_name_that_it_had_when_it_was_registered(tmp_path):
    (tmp_path / "profile").write_text("what was learnt from")
    for key, name in (("before", "known"), ("now", "training_profile")):
        version = register(tmp_path / key, key, files={name: tmp_path / "profile"})
        path = registry.artifact(version, "training_profile")
        assert path.read_text() == "what was learnt from"
    with pytest.raises(registry.RegistryError, match="has no file training_profile: it was"):
        registry.artifact(register(tmp_path / "c", "c"), "training_profile")


@pytest.mark.usefixtures("mlflow_store")
def test_a_version_that_someone_else_registered_is_left_alone(tmp_path):
    from mlflow import MlflowClient

    from kreislauf.settings import settings

    register(tmp_path / "a", "key a")
    MlflowClient(settings().mlflow_url).create_model_version("m", "runs:/somebody/model")
    assert [v.number for v in registry.versions("m")] == [1]
    with pytest.raises(registry.RegistryError, match="m version 2 was not registered by Kreislauf"):
        registry.get("m", 2)


@pytest.mark.usefixtures("mlflow_store")
def test_what_is_recorded_on_a_version_is_read_back(tmp_path):
    class Decision(BaseModel):
        outcome: str

    version = register(tmp_path / "a", "key a")
    assert version.decision is None
    assert (
        registry.record_decision(version, Decision(outcome="refuse")).decision
        == '{"outcome":"refuse"}'
    )
    assert not version.closed
    registry.close(version)
    assert registry.get("m", 1).closed
    with pytest.raises(registry.RegistryError, match="has no m version 9"):
        registry.get("m", 9)


def test_an_mlflow_that_does_not_answer_is_named_within_seconds(monkeypatch):
    monkeypatch.setenv("KREISLAUF_MLFLOW_URL", "http://127.0.0.1:1")
    began = time.monotonic()
    with pytest.raises(
        registry.RegistryError, match=r"MLflow at http://127.0.0.1:1 does not answer .*make up"
    ):
        registry.versions("m")
    assert time.monotonic() - began < 10
