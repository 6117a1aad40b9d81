"""Answers of the live version: reads the release log, asks Triton for exactly that version."""

from kreislauf.release import releases, triton
from models.spec import Tensors


class NothingLive(RuntimeError):
    """The model was never published."""


def answer(model: str, inputs: Tensors) -> tuple[int, Tensors]:
    """The live version and its answers for all rows of `inputs`, by output name.

    Raises NothingLive, or triton.TritonError when Triton does not answer.
    """
    live = releases.current(model)
    if live is None:
        raise NothingLive(f"Nothing of {model} is live: run retrain first.")
    return live.champion, triton.ask(model, live.champion, inputs)
