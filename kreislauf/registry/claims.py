"""The right to write what a training makes, as its MLflow run from its first step on.

A training has one holder. Each process that begins it or takes it up adds a run, and the newest one
counts: MLflow has no compare-and-set, but nobody changes another's start. Its id is the token that
is checked before every write. What a killed training is continued from is such a run, too: its tag
`training` is still `OPEN`.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import BaseModel, ConfigDict

from kreislauf.registry import runs
from kreislauf.registry.lineage import Lineage

OPEN = "open"
"""State of a training that goes on, or that was killed."""
OF_KEY = f"tags.training = '{OPEN}' and tags.key = '{{}}'"
"""MLflow's query for the runs of a training that are not closed."""
STATUS = {
    "done": "FINISHED",
    "failed": "FAILED",
    "taken over by another run": "KILLED",
    "abandoned": "KILLED",
}
"""States in which nothing more is written, and MLflow's words for them."""


class LostTraining(RuntimeError):
    """Another process holds the training: this one must not write any more."""


class Claim(BaseModel):
    """What one process holds while it trains."""

    model_config = ConfigDict(frozen=True)

    model: str
    run_id: str
    lineage: Lineage


@contextmanager
def held(model: str, lineage: Lineage) -> Iterator[Claim]:
    """Hold the training of these inputs, and take it from whoever has held it before.

    A training that fails is closed. One that is killed stays open, to be continued. Raises
    LostTraining where another process has taken it.
    """
    claim = _begin(model, lineage)
    check(claim)
    try:
        yield claim
    except Exception:
        check(claim)
        _set(claim.run_id, "failed")
        raise
    if is_held(claim):
        _set(claim.run_id, "done")


def is_held(claim: Claim) -> bool:
    """Whether no other process has taken the training."""
    return _state(claim) == OPEN


def check(claim: Claim) -> None:
    """Raise LostTraining unless the training is held by this process; to be asked before every
    write."""
    state = _state(claim)
    if state != OPEN:
        raise LostTraining(
            f"The training {claim.lineage.key[:12]} of {claim.model} is {state}: its run "
            f"{claim.run_id} does not hold it any more. This run stops and writes nothing more. "
            "Its work is not lost: the run that took it goes on from the same folder."
        )


def unfinished(model: str) -> list[Claim]:
    """Trainings that go on or were killed, the newest first."""
    return [
        Claim(
            model=model,
            run_id=run.info.run_id,
            lineage=Lineage.model_validate_json(run.data.tags["lineage"]),
        )
        for run in runs.search(model, f"tags.training = '{OPEN}'")
    ]


def end(model: str, key: str, state: str) -> None:
    """Close what is open of the training `key`: nobody continues it."""
    for run in runs.search(model, OF_KEY.format(key)):
        _set(run.info.run_id, state)


def _begin(model: str, lineage: Lineage) -> Claim:
    client = runs.client()
    # Later than all before it, whatever the clocks of the machines say.
    of_key = OF_KEY.format(lineage.key)
    starts = [run.info.start_time + 1 for run in runs.search(model, of_key)]
    started = max([int(time.time() * 1000), *starts])
    tags = {
        "key": lineage.key,
        "lineage": lineage.model_dump_json(),
        "training": OPEN,
        "code": runs.code_version(),
    }
    own = client.create_run(runs.experiment(model), start_time=started, tags=tags)
    claim = Claim(model=model, run_id=own.info.run_id, lineage=lineage)
    # Of two that begin at once, at least one sees the other; the later one stays.
    for run in runs.search(model, of_key):
        if _order(run) > _order(own):
            _set(own.info.run_id, "taken over by another run")
        elif _order(run) < _order(own):
            _set(run.info.run_id, "taken over by another run")
    return claim


def _order(run) -> tuple[int, str]:
    return run.info.start_time, run.info.run_id


def _state(claim: Claim) -> str:
    return runs.client().get_run(claim.run_id).data.tags["training"]


def _set(run_id: str, state: str) -> None:
    client = runs.client()
    client.set_tag(run_id, "training", state)
    client.set_terminated(run_id, STATUS[state])
