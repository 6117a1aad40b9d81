"""The weights file: what a training leaves, and what the next takes over."""

import json
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from models.search_ranker.network import Categories, Scorer
from models.search_ranker.vocabulary import MISSING, UNSEEN, Vocabulary

Place = tuple[int, str | int]
"""A column, and a category, `UNSEEN` or `MISSING`."""

CATEGORIES = "members.categories."
"""How the names of the tensors of `network.Categories` begin."""


def save_weights(path: Path, scorer: Scorer) -> Path:
    """Write what the next training starts from."""
    tensors = {name: tensor.contiguous() for name, tensor in scorer.state_dict().items()}
    metadata = {"categories": json.dumps(scorer.vocabulary.columns)}
    safetensors.torch.save_file(tensors, path, metadata)
    return path


def take_over(path: Path, scorer: Scorer) -> bool:
    """Copy the weights of an earlier version, and those of each category that it knew.

    Returns whether it was done: networks of another form are left alone. Categories start afresh
    if the earlier version had none, or other columns of them.
    """
    with safetensors.safe_open(str(path), "pt") as file:
        columns = json.loads((file.metadata() or {}).get("categories", "[]"))
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    vectors = state.pop(f"{CATEGORIES}vectors", None)
    mixed = state.pop(f"{CATEGORIES}mixed", None)
    own = {
        name: tensor.shape
        for name, tensor in scorer.state_dict().items()
        if not name.startswith(CATEGORIES)
    }
    if {name: tensor.shape for name, tensor in state.items()} != own:
        return False
    weights = {name: tensor for name, tensor in state.items() if name.startswith("members.")}
    scorer.load_state_dict(weights, strict=False)
    categories = scorer.members.categories
    if categories is not None and mixed is not None and mixed.shape == categories.mixed.shape:
        parent = Vocabulary(tuple(map(tuple, columns)))
        copy_categories(vectors, mixed, places(parent), categories, places(scorer.vocabulary))
    return True


def copy_categories(
    vectors: Tensor,
    mixed: Tensor,
    origins: dict[Place, int],
    categories: Categories,
    targets: dict[Place, int],
) -> None:
    """Copy the vectors of the categories that are in both `places`, and what follows them."""
    common = [key for key in targets if key in origins]
    with torch.no_grad():
        categories.mixed.copy_(mixed)
        to = torch.tensor([targets[key] for key in common])
        categories.vectors[to] = vectors[torch.tensor([origins[key] for key in common])]


def places(vocabulary: Vocabulary) -> dict[Place, int]:
    """Row of the vectors of each place."""
    every: list[Place] = []
    for column, values in enumerate(vocabulary.columns):
        every += [(column, number) for number in (UNSEEN, MISSING)]
        every += [(column, category) for category in values]
    return {key: row for row, key in enumerate(every)}
