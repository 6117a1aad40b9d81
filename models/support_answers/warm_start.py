"""The weights file: what a training leaves, and what the next takes over."""

import json
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from models.support_answers.network import Network

BY_INTENT = ("output", "output_bias")
"""Tensors whose last axis are the intents."""


@dataclass(frozen=True)
class Parent:
    """Weights of an earlier version."""

    tensors: dict[str, Tensor]
    intents: list[str]
    learnt_until: int
    """ms since 1970 UTC: time of the newest question that it learnt from."""


def save_weights(path: Path, network: Network, intents: list[str], learnt_until: int) -> Path:
    """Write what the next training starts from."""
    metadata = {"intents": json.dumps(intents), "learnt_until": str(learnt_until)}
    tensors = {name: tensor.contiguous() for name, tensor in network.named_parameters()}
    safetensors.torch.save_file(tensors, path, metadata)
    return path


def read_parent(path: Path) -> Parent:
    """The weights that `save_weights` wrote to `path`."""
    with safetensors.safe_open(str(path), "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return Parent(tensors, json.loads(metadata["intents"]), int(metadata["learnt_until"]))


def take_over(parent: Parent, network: Network, intents: list[str]) -> bool:
    """Copy the parent's weights, those of each intent that it had; a new intent starts afresh.

    An n-gram has the same row in every version, because it is hashed. Returns whether it was done:
    tensors of another shape are left alone.
    """
    own = dict(network.named_parameters())
    for name, tensor in own.items():
        theirs = parent.tensors.get(name)
        axes = tensor.dim() - (name in BY_INTENT)
        if theirs is None or theirs.shape[:axes] != tensor.shape[:axes]:
            return False
    common = [intent for intent in intents if intent in parent.intents]
    to = torch.tensor([intents.index(intent) for intent in common], dtype=torch.int64)
    origin = torch.tensor([parent.intents.index(intent) for intent in common], dtype=torch.int64)
    with torch.no_grad():
        for name, tensor in own.items():
            if name in BY_INTENT:
                tensor[..., to] = parent.tensors[name][..., origin]
            else:
                tensor.copy_(parent.tensors[name])
    return True
