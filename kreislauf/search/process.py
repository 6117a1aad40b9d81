"""A trial's training in a process of its own: it has a core for itself, and if it is killed, only
it dies."""

import json
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from kreislauf.settings import settings


class Ended(RuntimeError):
    """A training ended before its time. `state` is pruned, failed or killed."""

    def __init__(self, state: str, why: str):
        super().__init__(why)
        self.state = state


def train(
    model: str,
    rows: Path,
    params: Mapping[str, Any],
    folder: Path,
    report: Callable[[int, dict[str, float]], bool],
) -> float:
    """Train `model` on an Arrow file of rows, in `folder`, and return `TrainingResult.validation`.

    `report` is told per cent of the training that are done and validation metrics, once for each
    per cent at most; what it returns says whether to stop. Raises Ended.
    """
    order = {
        "model": model,
        "rows": str(rows),
        "params": dict(params),
        "folder": str(folder),
        "parent": os.getpid(),
    }
    child = subprocess.Popen(
        [sys.executable, "-m", "kreislauf.search.process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        with child:
            assert child.stdin
            assert child.stdout
            _send(child.stdin, order)
            for line in child.stdout:
                message = json.loads(line)
                if "ended" in message:
                    raise Ended(message["ended"], message["why"])
                if "validation" in message:
                    return message["validation"]
                _send(child.stdin, report(message["percent"], message["metrics"]))
    except BrokenPipeError:
        pass
    raise Ended(
        "killed", f"The trial's process was ended ({child.returncode}), perhaps for want of memory."
    )


def cores(trials: int) -> int:
    """How many of so many trials may run at the same time; on a CPU a training uses one core.

    No more than a quarter of them do, because a proposal learns from earlier trials only.
    """
    if settings().trainer.get("accelerator", "cpu") != "cpu":
        return 1
    return min(len(os.sched_getaffinity(0)), max(1, trials // 4))


@contextmanager
def exclusive_folder(folder: Path) -> Iterator[None]:
    """Keep `folder` for this process, and remove it in the end; what a killed process left in it
    stays for the next.

    Raises RuntimeError when another process has it.
    """
    import fcntl
    import shutil

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(f"Another process works in {folder}: wait for it to end.") from None
        yield
        shutil.rmtree(folder)


def main() -> None:
    """The training's side."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What libraries print must not get among the answers.
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with, args=[order["parent"]], daemon=True).start()
    try:
        _send(answers, {"validation": _train(order, answers)})
    except Ended as end:
        _send(answers, {"ended": end.state, "why": str(end)})
    except Exception as error:
        traceback.print_exc()
        _send(answers, {"ended": "failed", "why": f"{type(error).__name__}: {error}"})


def _train(order: dict[str, Any], answers: IO[str]) -> float:
    import polars as pl

    from models import spec

    model_type = spec.load(order["model"])
    # One device for each trial: the processes of a larger training could not be told to stop from
    # here.
    trainer: dict[str, Any] = {"devices": 1}
    for name in ("accelerator", "precision"):
        if name in settings().trainer:
            trainer[name] = settings().trainer[name]
    context = spec.TrainingContext(
        Path(order["folder"]), trainer=trainer, report=_Reporter(answers)
    )
    params = model_type.Params.model_validate(order["params"])
    result = model_type.train(pl.read_ipc(order["rows"]), params, context)
    return float(result.validation)


class _Reporter:
    """Sends validation metrics to the search, once for each per cent at most."""

    def __init__(self, answers: IO[str]):
        self.answers = answers
        self.percent = -1

    def __call__(self, share: float, metrics: dict[str, float]) -> None:
        """Raises Ended when the search gives up on this training."""
        percent = int(share * 100)
        if not metrics or percent <= self.percent:
            return
        self.percent = percent
        values = {name: float(value) for name, value in metrics.items()}
        _send(self.answers, {"percent": percent, "metrics": values})
        answer = sys.stdin.readline()
        if not answer:
            raise SystemExit("Nobody waits for this training any more.")
        if json.loads(answer):
            raise Ended("pruned", f"Others were better after {percent} % of the training.")


def _end_with(parent: int) -> None:
    """End this process, whatever it does, soon after its parent was killed."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _send(receiver: IO[str], message: Any) -> None:
    receiver.write(json.dumps(message) + "\n")
    receiver.flush()


if __name__ == "__main__":
    main()
