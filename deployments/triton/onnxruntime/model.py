"""Triton backend `onnxruntime`, for Triton builds that lack the native one: serves an unchanged
model repository.

Runs inside Triton's own environment, not in Kreislauf's. NVIDIA's container has the native backend
and needs no such file.
"""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb


class TritonPythonModel:
    """One instance of one version of one model."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config):
        """The repository states everything: nothing is guessed."""
        return auto_complete_model_config

    def initialize(self, args):
        """Load `<version>/model.onnx`; refuse when the config names inputs or outputs that the
        graph lacks."""
        folder = Path(args["model_repository"]) / args["model_version"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            folder / "model.onnx", options, providers=["CPUExecutionProvider"]
        )
        config = json.loads(args["model_config"])
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.outputs = [tensor["name"] for tensor in config["output"]]
        graph_inputs = [tensor.name for tensor in self.session.get_inputs()]
        graph_outputs = [tensor.name for tensor in self.session.get_outputs()]
        if set(self.inputs) != set(graph_inputs) or not set(self.outputs) <= set(graph_outputs):
            raise pb.TritonModelException(
                f"config.pbtxt has {self.inputs} -> {self.outputs}, the graph {graph_inputs} -> {graph_outputs}"
            )

    def execute(self, requests):
        """Answer all waiting requests with one run: concatenate, run, split. That is what makes
        batching pay."""
        batches = [
            [pb.get_input_tensor_by_name(r, name).as_numpy() for name in self.inputs]
            for r in requests
        ]
        feed = {
            name: np.concatenate(arrays)
            for name, arrays in zip(self.inputs, zip(*batches, strict=True), strict=True)
        }
        results = self.session.run(self.outputs, feed)
        ends = np.cumsum([len(batch[0]) for batch in batches])
        parts = [np.split(result, ends[:-1]) for result in results]
        return [
            pb.InferenceResponse(
                [pb.Tensor(name, part[i]) for name, part in zip(self.outputs, parts, strict=True)]
            )
            for i in range(len(requests))
        ]
