"""Text in tensors: of any kind, any language and any length, it stays what it is."""

import hashlib

import numpy as np
import polars as pl
import pytest

from kreislauf.evaluation import scoring
from kreislauf.release import golden
from kreislauf.release import triton as triton_task
from models import spec, text
from models.spec import Examples
from tests.models.wordy import ODD, write

KINDS = {
    "objects": lambda words: np.array(words, object),
    "fixed width": np.array,
    "objects of bytes": lambda words: np.array([word.encode() for word in words], object),
    "bytes of a fixed width": lambda words: np.array([word.encode() for word in words]),
    "StringDType": lambda words: np.array(words, np.dtypes.StringDType()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_text_becomes_the_same_objects_and_bytes(kind: str):
    array = KINDS[kind](ODD)[:, None]
    assert text.as_objects(array).tolist() == [[word] for word in ODD]
    assert text.to_bytes(array) == text.to_bytes(np.array(ODD, object))
    empty = array[:0]
    assert (text.as_objects(empty).shape, text.to_bytes(empty)) == ((0, 1), b"")


def test_bytes_of_text_are_those_that_triton_reads():
    assert text.to_bytes(np.array(["ä", ""])) == b"\x02\0\0\0\xc3\xa4" + b"\0\0\0\0"
    numbers = np.arange(6).reshape(2, 3).T
    assert text.as_objects(numbers) is numbers
    assert text.to_bytes(numbers) == np.ascontiguousarray(numbers).tobytes()


def test_objects_that_are_no_text_are_named():
    with pytest.raises(ValueError, match=r"Tensor 'message': .* None is a NoneType"):
        text.unify({"message": np.array(["a", None], object)})
    with pytest.raises(ValueError, match="utf-8"):
        text.as_objects(np.array([b"\xff"], object))


def test_the_digest_depends_on_the_text_and_on_nothing_else():
    def digest(words, labels) -> str:
        return Examples({"message": words}, labels, np.arange(len(words))).digest()

    labels = ["Größe", "Paket"]
    expected = hashlib.sha256(b"message")
    for part in (["ä", "b" * 9], labels):
        expected.update(b"".join(len(w.encode()).to_bytes(4, "little") + w.encode() for w in part))
    expected.update(np.arange(2).tobytes())
    for kind in KINDS.values():
        # The text is made anew, so that it lies elsewhere in memory.
        words = ["".join(["", "ä"]), "".join(["b"] * 9)]
        assert digest(kind(words), kind(labels)) == expected.hexdigest()
    wider = np.array([*words, "a much longer message"])[:2]
    assert digest(wider, np.array(labels)) == expected.hexdigest()
    different = (["ä", "b" * 8], labels), (["äb", "b" * 8], labels), (words, ["Größe", "Pakete"])
    for words, labels in different:
        assert digest(np.array(words, object), np.array(labels)) != expected.hexdigest()


@pytest.mark.parametrize("kind", KINDS)
def test_the_onnx_file_takes_every_kind_of_text(kind: str, tmp_path):
    onnx = write(tmp_path / "model.onnx", {word: f"re: {word[:10]}" for word in ODD})
    inputs = {"message": KINDS[kind](ODD)[:, None]}
    for batch in (1, 3, 256):
        outputs = scoring.answer(onnx, inputs, batch)
        assert outputs["echo"][:, 0].tolist() == ODD
        assert outputs["department"][:, 0].tolist() == [f"re: {word[:10]}" for word in ODD]
    assert (scoring.latencies(onnx, inputs) > 0).all()


def test_golden_requests_keep_text_and_are_compared_by_it(wordy, tmp_path):
    model_type = spec.load(wordy)
    rows = pl.DataFrame(
        {"number": range(len(ODD)), "ts": range(len(ODD)), "message": ODD, "department": ODD}
    )
    onnx = write(tmp_path / "model.onnx", dict(zip(ODD, ODD, strict=True)))
    path = golden.write_golden(model_type, rows, onnx, tmp_path / "golden.json")
    requests, expected = golden.read_golden(path.read_bytes())
    assert requests["message"][3:, 0].tolist() == ODD
    assert expected["echo"].tolist() == requests["message"].tolist()
    as_bytes = {name: KINDS["objects of bytes"](a[:, 0])[:, None] for name, a in expected.items()}
    assert golden.compare(as_bytes, expected) == ""
    as_bytes["department"][4, 0] = "Größe".encode()
    assert (
        golden.compare(as_bytes, expected)
        == f"output department differs in 1 of {3 + len(ODD)} values"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_triton_is_warmed_up_with_text_and_answers_as_the_file_does(kind: str, triton, tmp_path):
    onnx = write(tmp_path / "model.onnx", {word: word[::-1] for word in ODD})
    inputs = {"message": KINDS[kind](ODD)[:, None]}
    expected = scoring.answer(onnx, inputs)
    triton_task.add_version("wordy", 1, onnx)
    # The longest and the empty one: whatever is the last request, is the warm-up.
    for last in (inputs["message"][-1:], inputs["message"][:1]):
        triton_task.keep_warm_up("wordy", 1, {"message": last})
        triton_task.load("wordy", [1])
    for batch in (1, 2, spec.MAX_BATCH):
        outputs = triton_task.ask("wordy", 1, inputs, batch)
        assert golden.compare(outputs, expected) == ""
        assert outputs["echo"][:, 0].tolist() == ODD


def test_zeros_at_the_end_of_text_reach_triton_and_come_back(triton, tmp_path):
    onnx = write(tmp_path / "model.onnx", {"a\0": "b\0"})
    triton_task.add_version("wordy", 1, onnx)
    triton_task.load("wordy", [1])
    outputs = triton_task.ask("wordy", 1, {"message": np.array([["a\0"], ["a"]], object)})
    assert outputs["echo"].tolist() == [["a\0"], ["a"]]
    assert outputs["department"][0, 0] == "b\0"


def test_a_request_with_any_number_of_words_warms_up(triton, tmp_path):
    from onnx import TensorProto, helper, save

    words = (
        helper.make_tensor_value_info(name, TensorProto.STRING, ["n", "words"])
        for name in ("message", "echo")
    )
    copy = helper.make_node("Identity", ["message"], ["echo"])
    graph = helper.make_graph([copy], "words", *([tensor] for tensor in words))
    opsets = [helper.make_opsetid("", 18)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "model.onnx")
    triton_task.add_version("wordy", 1, tmp_path / "model.onnx")
    asked = np.array([["Größe", "38", ""], ["👩", "paßt", "nicht"]])
    triton_task.keep_warm_up("wordy", 1, {"message": asked})
    triton_task.load("wordy", [1])
    assert triton_task.ask("wordy", 1, {"message": asked})["echo"].tolist() == asked.tolist()
