"""What can be tested without a server; tests/flows/test_loop.py asks a real one."""

import numpy as np
import pytest

from tasks import triton
from tests.models.tiny import write


def test_the_configuration_is_read_from_the_graph(tmp_path):
    text = triton.config("tiny", write(tmp_path / "m.onnx", 1.0), [1, 3])
    assert 'name: "tiny"' in text
    assert 'backend: "onnxruntime"' in text
    assert "versions: 1\n" in text
    assert "versions: 3\n" in text
    assert 'name: "price"\n  data_type: TYPE_FP32\n  dims: 1' in text
    assert 'name: "returned"\n  data_type: TYPE_BOOL\n  dims: 1' in text
    assert "dynamic_batching" in text


def test_a_kept_request_warms_a_version_up(tmp_path, home):
    triton.add_version("tiny", 1, write(tmp_path / "m.onnx", 1.0))
    onnx = home / "triton" / "tiny" / "1" / "model.onnx"
    assert "model_warmup" not in triton.config("tiny", onnx, [1])
    triton.keep_warm_up("tiny", {"price": np.array([[3.0], [5.0]], np.float32)})
    text = triton.config("tiny", onnx, [1])
    assert 'input_data_file: "price"' in text.split("model_warmup")[1]
    assert (home / "triton" / "tiny" / "warmup" / "price").read_bytes() == np.float32(5).tobytes()


def test_a_version_is_never_overwritten(tmp_path, home):
    triton.add_version("tiny", 1, write(tmp_path / "a.onnx", 1.0))
    before = (home / "triton" / "tiny" / "1" / "model.onnx").read_bytes()
    triton.add_version("tiny", 1, tmp_path / "a.onnx")
    with pytest.raises(triton.TritonError, match="holds another file than tiny version 1: remove that folder"):
        triton.add_version("tiny", 1, write(tmp_path / "b.onnx", 2.0))
    assert (home / "triton" / "tiny" / "1" / "model.onnx").read_bytes() == before
    assert [p.name for p in (home / "triton" / "tiny").iterdir()] == ["1"]


def test_an_unknown_or_unreachable_triton_is_named(monkeypatch):
    with pytest.raises(triton.TritonError, match="KREISLAUF_TRITON_URL"):
        triton.ask("tiny", 1, {"price": np.zeros((1, 1), np.float32)})
    monkeypatch.setenv("KREISLAUF_TRITON_URL", "127.0.0.1:1")
    with pytest.raises(triton.TritonError, match=r"Triton at 127.0.0.1:1 did not answer as tiny version 1"):
        triton.ask("tiny", 1, {"price": np.zeros((1, 1), np.float32)})
