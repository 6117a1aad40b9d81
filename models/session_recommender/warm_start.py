"""The weights file: what a training leaves, and what the next one takes over."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from models import text
from models.session_recommender.encoder import Encoder
from models.session_recommender.features import Catalogue
from models.session_recommender.ranker import Ranker


@dataclass(frozen=True)
class Parent:
    """Weights of an earlier version."""

    catalogue: Catalogue
    articles: Tensor
    """float32 (size, dim), by the rows of `catalogue`"""
    encoder: dict[str, Tensor]
    """The encoder's other tensors."""
    ranker: dict[str, Tensor]
    trained_until: int
    """ms since 1970 UTC: start of the newest session that it learnt from."""


def read_parent(path: Path) -> Parent:
    """The weights that `save_weights` wrote to `path`."""
    with safetensors.safe_open(str(path), "pt") as file:
        metadata = file.metadata()
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    encoder = _below(state, "encoder.")
    ids = state["catalogue"].numpy()
    if ids.dtype == np.uint8:
        ids = np.array(json.loads(ids.tobytes()), object)
    return Parent(
        Catalogue(ids),
        encoder.pop("articles"),
        encoder,
        _below(state, "ranker."),
        int(metadata["trained_until"]),
    )


def copy_encoder(parent: Parent, encoder: Encoder, catalogue: Catalogue) -> Tensor | None:
    """Copy the parent's encoder into `encoder`; its articles go to the rows of `catalogue`.

    Returns which rows have a vector of the parent, bool (size,). Returns None, with nothing
    changed, if the parent's encoder has other names or shapes.
    """
    same_width = parent.articles.shape[1] == encoder.articles.shape[1]
    if not same_width or not fits(parent.encoder, encoder, "articles"):
        return None
    row = torch.from_numpy(parent.catalogue.rows(catalogue.raw()))
    is_inherited = row < parent.catalogue.nothing
    encoder.load_state_dict(parent.encoder, strict=False)
    with torch.no_grad():
        encoder.articles[is_inherited] = parent.articles[row[is_inherited]]
    return is_inherited


def save_weights(
    path: Path, encoder: Encoder, ranker: Ranker, catalogue: Catalogue, trained_until: int
) -> Path:
    """Write the tensors that the next training starts from."""
    tensors = {f"encoder.{name}": t.contiguous() for name, t in encoder.state_dict().items()}
    tensors |= {f"ranker.{name}": t.contiguous() for name, t in ranker.state_dict().items()}
    ids = catalogue.ids
    if text.is_text(ids):
        # The format has no text: its bytes as a JSON list.
        ids = np.frombuffer(json.dumps(ids.tolist()).encode(), np.uint8)
    tensors["catalogue"] = torch.from_numpy(ids.copy())
    safetensors.torch.save_file(tensors, path, {"trained_until": str(trained_until)})
    return path


def fits(state: dict[str, Tensor], module: torch.nn.Module, *ignored: str) -> bool:
    """Whether `state` has the names and shapes of the module's, apart from those in `ignored`."""
    expected = {name: t.shape for name, t in module.state_dict().items() if name not in ignored}
    return {name: t.shape for name, t in state.items()} == expected


def _below(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose name begins with `prefix`, without it."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }
