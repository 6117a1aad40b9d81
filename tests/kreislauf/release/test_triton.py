"""The repository on disk and on S3; tests/flows/test_loop.py publishes to a real Triton."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from deployments import processes, stack
from kreislauf.release import publisher_lock, triton
from tests.models.tiny import write


def test_the_configuration_is_read_from_the_graph(tmp_path):
    for version in (1, 3):
        triton.add_version("tiny", version, write(tmp_path / "m.onnx", 1.0))
    text = str(triton.configuration("tiny", [1, 3]))
    assert 'name: "tiny"' in text
    assert 'backend: "onnxruntime"' in text
    assert "versions: 1\n" in text
    assert "versions: 3\n" in text
    assert 'name: "price"\n  data_type: TYPE_FP32\n  dims: 1' in text
    assert 'name: "returned"\n  data_type: TYPE_BOOL\n  dims: 1' in text
    assert "dynamic_batching" in text


def test_instances_are_on_the_processor_or_on_gpus(tmp_path, monkeypatch):
    triton.add_version("tiny", 1, write(tmp_path / "m.onnx", 1.0))
    assert "kind: KIND_CPU" in str(triton.configuration("tiny", [1]))
    monkeypatch.setenv("KREISLAUF_TRITON_GPU", "true")
    assert "kind: KIND_GPU" in str(triton.configuration("tiny", [1]))


def test_a_publisher_that_hangs_is_named_and_does_not_hold_others_off_for_ever(monkeypatch):
    monkeypatch.setattr(publisher_lock, "LOCK_SECONDS", 0.5)
    hang = """
import time
from kreislauf.release import publisher_lock
with publisher_lock.exclusive("tiny"):
    print("locked", flush=True)
    time.sleep(60)
"""
    command = [sys.executable, "-c", hang]
    with subprocess.Popen(command, cwd=stack.ROOT, stdout=subprocess.PIPE, text=True) as hanging:
        try:
            assert hanging.stdout.readline() == "locked\n"
            with (
                pytest.raises(triton.TritonError, match=f"process {hanging.pid} on .*end it"),
                publisher_lock.exclusive("tiny"),
            ):
                pass
            with publisher_lock.exclusive("another"):
                pass
        finally:
            hanging.kill()
    with publisher_lock.exclusive("tiny"):
        pass


def test_a_kept_request_warms_a_version_up(tmp_path, home):
    triton.add_version("tiny", 1, write(tmp_path / "m.onnx", 1.0))
    assert "model_warmup" not in str(triton.configuration("tiny", [1]))
    triton.keep_warm_up("tiny", 1, {"price": np.array([[3.0], [5.0]], np.float32)})
    warm_up = str(triton.configuration("tiny", [1])).split("model_warmup")[1]
    assert 'input_data_file: "1/price"' in warm_up
    kept = home / "triton" / "tiny" / "warmup" / "1" / "price"
    assert kept.read_bytes() == np.float32(5).tobytes()


def test_no_second_process_loads_a_version(own_triton, tmp_path):
    """Triton also runs a shell a version, which ends within a hundredth of a second or two."""
    for version in (1, 2):
        triton.add_version("tiny", version, write(tmp_path / f"{version}.onnx", 1.0))
    triton.serve("tiny", [1, 2])
    (server,) = psutil.Process(own_triton["pid"]).children()
    models = [sum(process.cpu_times()[:2]) for process in server.children()]
    assert len(models) == 2
    times = server.cpu_times()
    assert times.children_user + times.children_system < min(models) / 2, "a model has ended"


def test_a_version_is_never_overwritten(tmp_path, home):
    triton.add_version("tiny", 1, write(tmp_path / "a.onnx", 1.0))
    before = (home / "triton" / "tiny" / "1" / "model.onnx").read_bytes()
    triton.add_version("tiny", 1, tmp_path / "a.onnx")
    with pytest.raises(
        triton.TritonError, match="holds another file than tiny version 1: remove its folder"
    ):
        triton.add_version("tiny", 1, write(tmp_path / "b.onnx", 2.0))
    assert (home / "triton" / "tiny" / "1" / "model.onnx").read_bytes() == before
    assert [p.name for p in (home / "triton" / "tiny").iterdir()] == ["1"]


def test_an_unknown_or_unreachable_triton_is_named(monkeypatch):
    with pytest.raises(triton.TritonError, match="KREISLAUF_TRITON_URL"):
        triton.ask("tiny", 1, {"price": np.zeros((1, 1), np.float32)})
    monkeypatch.setenv("KREISLAUF_TRITON_URL", "127.0.0.1:1")
    with pytest.raises(
        triton.TritonError, match=r"Triton at 127.0.0.1:1 did not answer as tiny version 1"
    ):
        triton.ask("tiny", 1, {"price": np.zeros((1, 1), np.float32)})


@pytest.mark.slow
def test_a_repository_on_s3_is_served_and_outlives_triton(
    s3, home: Path, tmp_path: Path, monkeypatch
):
    monkeypatch.setenv("KREISLAUF_TRITON_REPOSITORY", "s3://shop/models/")
    asked = {"price": np.array([[150.0]], np.float32)}

    def returned(version: int) -> bool:
        return bool(triton.ask("tiny", version, asked)["returned"][0, 0])

    record = stack.up(home, ("triton",))["triton"]
    try:
        with publisher_lock.exclusive("tiny"):
            for version in (1, 2):
                triton.keep_warm_up("tiny", version, asked)
                triton.add_version(
                    "tiny", version, write(tmp_path / f"{version}.onnx", 100.0 * version)
                )
            triton.serve("tiny", [1, 2])
        assert (returned(1), returned(2)) == (True, False)
        (tmp_path / "3.onnx").write_bytes((tmp_path / "2.onnx").read_bytes()[:-20])
        triton.add_version("tiny", 3, tmp_path / "3.onnx")
        with pytest.raises(Exception, match=r"did not load tiny, versions \[2, 3\]|Error parsing"):
            triton.serve("tiny", [2, 3])
        assert (returned(1), returned(2)) == (True, False)
        triton.serve("tiny", [2])
        names = {
            path.split("/")[-1] for path in s3.ls("shop/models/tiny", detail=False, refresh=True)
        }
        assert names == {"2", "config.pbtxt", "warmup"}
        processes.stop(record)
        record = stack.up(home, ("triton",))["triton"]
        assert returned(2) is False
    finally:
        processes.stop(record)
