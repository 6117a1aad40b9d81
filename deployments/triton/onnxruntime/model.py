"""Triton backend `onnxruntime` for Triton builds without the native one.

It serves an unchanged model repository.

It runs inside Triton's own environment, not in Kreislauf's. NVIDIA's container has the native
backend and needs no such file.
"""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb


class TritonPythonModel:
    """One instance of one version of one model."""

    def initialize(self, args):
        """Load `<version>/model.onnx`; refuse a config that lacks inputs of the graph, or has
        outputs that the graph lacks.

        The config is the newest version's, which may take more than an earlier one.
        """
        folder = Path(args["model_repository"]) / args["model_version"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            folder / "model.onnx", options, providers=["CPUExecutionProvider"]
        )
        config = json.loads(args["model_config"])
        inputs = [tensor["name"] for tensor in config["input"]]
        self.outputs = [tensor["name"] for tensor in config["output"]]
        self.inputs = [tensor.name for tensor in self.session.get_inputs()]
        graph_outputs = [tensor.name for tensor in self.session.get_outputs()]
        if not set(self.inputs) <= set(inputs) or not set(self.outputs) <= set(graph_outputs):
            raise pb.TritonModelException(
                f"config.pbtxt has {inputs} -> {self.outputs}, "
                f"the graph {self.inputs} -> {graph_outputs}"
            )

    def execute(self, requests):
        """Answer all waiting requests with one run, which makes batching pay.

        Their rows are concatenated, run, and split again.
        """
        arrays: dict[str, list[np.ndarray]] = {name: [] for name in self.inputs}
        for request in requests:
            for name in self.inputs:
                tensor = pb.get_input_tensor_by_name(request, name).as_numpy()
                arrays[name].append(self.decode(tensor))
        feed = {name: np.concatenate(batches) for name, batches in arrays.items()}
        results = self.session.run(self.outputs, feed)
        ends = np.cumsum([len(batch) for batch in arrays[self.inputs[0]]])
        slices = [np.split(result, ends[:-1]) for result in results]
        return [self.respond(rows) for rows in zip(*slices, strict=True)]

    def decode(self, tensor):
        """Text as str: onnxruntime would take Triton's bytes for the text "b'...'".

        What is not UTF-8 is replaced, so that it costs no other request of the batch its answer.
        """
        if tensor.dtype != object:
            return tensor
        words = [value.decode(errors="replace") for value in tensor.ravel()]
        return np.array(words, object).reshape(tensor.shape)

    def respond(self, rows):
        """The response with the rows of each output."""
        tensors = [pb.Tensor(name, values) for name, values in zip(self.outputs, rows, strict=True)]
        return pb.InferenceResponse(tensors)
