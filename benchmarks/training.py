"""How fast the session encoder learns, beside OTTO's TRON, and what Lightning costs.

`python -m benchmarks.training --data FOLDER --tron CHECKOUT` does the same steps with Lightning and
with a bare PyTorch loop, in turn. Then it trains both encoders on the sessions before the published
test, each in a process of its own, until recall@20 is .47 on the same test prefixes, the whole
catalogue ranked. Both have one thread, and TRON the loader processes that it starts besides. The
clock does not run while data is prepared or recall measured. The co-visitation table, from which
our vectors start, counts. Ours may be there before its first step: then its time is that of this
start. The last line is JSON; times in it are wall times, and `cpu` means CPU time, which other
programs hardly change. FOLDER has `sessions.jsonl.gz`, `test_prefixes.parquet` and `meta.json`,
which says where the test begins.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from benchmarks import tron
from benchmarks.race import ALL, Check, Job, Watch, in_new_process, seconds_to
from benchmarks.session_encoder import Ours
from models.runtime import silence_libraries
from models.session_recommender.batches import Batches
from models.session_recommender.encoder import Session
from models.session_recommender.fit import Stage, fit
from models.session_recommender.objectives import EncoderTask
from models.spec import TrainingContext


class Watched(EncoderTask):
    """Encoder's task that brings its clock with it."""

    watch: Watch

    def configure_callbacks(self) -> list[Callback]:
        """The clock; Lightning calls it."""
        return [self.watch]


def contend(job: Job) -> list[Check]:
    """Checks of our training; table and start of the vectors count."""
    ours = Ours(job)
    task = ours.task(Watched)

    def ask() -> tuple[float, float]:
        return ours.recalls(task.network)

    def count(batch: Session) -> int:
        return int((batch.rows[:, 1:] >= 0).sum())

    task.watch = Watch("ours", job, ask, count, ours.spent)
    with silence_libraries(), tempfile.TemporaryDirectory() as folder:
        stage = Stage("race", task, ours.batches(), epochs=job.epochs)
        fit(stage, TrainingContext(Path(folder)))
    return task.watch.checks


class Stamped(EncoderTask):
    """Encoder's task that notes when each step begins, by both clocks, and its loss."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.stamps: list[tuple[float, float]] = []
        self.losses: list[torch.Tensor] = []

    def loss(self, batch: Session) -> torch.Tensor:
        """Loss of a batch; in both loops it is the first operation of a step."""
        self.stamps.append((time.perf_counter(), time.process_time()))
        loss = super().loss(batch)
        self.losses.append(loss.detach())
        return loss


def bare_loop(task: Stamped, batches: Batches) -> None:
    """Train without Lightning, with the same optimizer, schedule and seeds."""
    task.steps = len(batches)
    made = task.configure_optimizers()
    optimizer = made["optimizer"]
    schedule = made["lr_scheduler"]["scheduler"]
    for step, batch in enumerate(batches):
        torch.default_generator.manual_seed((task.seed * 1_000_003 + step) * 1_009)
        task.loss(batch).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def with_lightning(task: Stamped, batches: Batches) -> None:
    """Train as fit.py does; so few steps leave no checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        fit(Stage("overhead", task, batches), TrainingContext(Path(folder)))


def overhead(job: Job) -> dict[str, np.ndarray]:
    """Wall and CPU seconds per step of both loops.

    They are means over the steps, each the median of the rounds. Raises RuntimeError if the losses
    of the loops differ by more than the rounding of several threads.
    """
    ours = Ours(job)
    loops = {"lightning": with_lightning, "torch": bare_loop}
    stamps: dict[str, list[np.ndarray]] = {name: [] for name in loops}
    losses = []
    with silence_libraries():
        for turn in range(job.rounds):
            order = list(loops)
            if turn % 2 == 1:
                order.reverse()
            for name in order:
                task = ours.task(Stamped)
                loops[name](task, ours.batches(job.warm + job.steps + 1))
                stamps[name].append(np.diff(task.stamps, axis=0)[job.warm :])
                losses.append(torch.stack(task.losses))
    if not all(torch.allclose(losses[0], repeated, rtol=1e-3) for repeated in losses):
        raise RuntimeError("The two loops did not do the same: compare `bare_loop` with fit.py.")
    return {name: np.median(rounds, 0).mean(0) for name, rounds in stamps.items()}


def compared(job: Job, ours: list[Check], rival: list[Check]) -> dict[str, Any]:
    """How much longer TRON takes.

    If only TRON does not get there, the time that it had is a lower bound.
    """
    result: dict[str, Any] = {"seconds_to_47_tron": seconds_to(job.target, rival)}
    result["tron_is_lower_bound"] = result["seconds_to_47_tron"] is None
    if result["tron_is_lower_bound"]:
        seconds = rival[-1].seconds
        best = max(check.recalls[0] for check in rival)
        print(
            f"TRON got to {best:.4f} in {seconds:.0f} s: "
            "this time, and so the ratio, is a lower bound."
        )
    for name, clock in (("tron_over_ours_to_recall_47", "seconds"), ("tron_over_ours_cpu", "cpu")):
        own, its = (seconds_to(job.target, checks, clock=clock) for checks in (ours, rival))
        result[name] = None
        if own:
            result[name] = (its or getattr(rival[-1], clock)) / own
    return result


def summary(
    job: Job, loops: dict[str, np.ndarray], ours: list[Check], rival: list[Check] | None
) -> dict:
    """Dictionary of the JSON line."""
    wall, cpu = loops["lightning"] / loops["torch"]
    alone, both = (seconds_to(job.target, ours, which) for which in (0, 1))
    result: dict[str, Any] = {"tron_over_ours_to_recall_47": None, "lightning_over_torch": wall}
    result |= {"lightning_over_torch_cpu": cpu, "seconds_to_47_encoder": alone}
    result |= {"seconds_to_47_with_table": both}
    if rival is None:
        print(
            "tron_over_ours_to_recall_47 is null, because TRON was not run: "
            "give its checkout with --tron."
        )
    else:
        result |= compared(job, ours, rival)
    if alone is None:
        print(f"Our encoder did not get to {job.target}: there is no ratio to report.")
    for name, checks in {"ours": ours, "tron": rival or []}.items():
        for last in checks[-1:]:
            seconds = last.seconds - checks[0].seconds
            cpu = last.cpu - checks[0].cpu
            result[f"{name}_examples_per_second"] = last.examples / seconds
            result[f"{name}_best_recall"] = max(check.recalls[0] for check in checks)
            print(
                f"{name}: {last.examples / seconds:.0f} examples/s, "
                f"{last.examples / cpu:.0f} per CPU second"
            )
    for name, value in result.items():
        if isinstance(value, float):
            result[name] = round(value, 3)
    return result


def run(job: Job, checkout: Path | None, changed: dict[str, Any]) -> dict[str, Any]:
    """Run all measurements, one after the other."""
    loops = in_new_process(job, overhead)
    for name, (wall, cpu) in loops.items():
        print(f"{name}: {1000 * wall:.1f} ms a step, {1000 * cpu:.1f} ms of CPU", flush=True)
    ours = in_new_process(job, contend)
    rival = None
    if checkout:
        rival = in_new_process(job, tron.contend, checkout, changed)
    return summary(job, loops, ours, rival)


def main() -> None:
    """Run the benchmark that the module describes."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training", description=(__doc__ or "").splitlines()[0]
    )
    parent = os.environ.get("KREISLAUF_DATA", "")
    parser.add_argument(
        "--data",
        type=Path,
        help="default: $KREISLAUF_DATA/diginetica",
        default=Path(parent) / "diginetica",
        required=not parent,
    )
    parser.add_argument(
        "--tron",
        type=Path,
        help="checkout of github.com/otto-de/TRON; without it, only ours is timed",
    )
    parser.add_argument(
        "--tron-config",
        type=json.loads,
        default={},
        help="other than benchmarks/tron.py's, as JSON",
    )
    parser.add_argument(
        "--threads", type=int, default=Job.threads, help="of PyTorch, for each contender"
    )
    parser.add_argument("--epochs", type=int, default=Job.epochs, help="of our training")
    parser.add_argument(
        "--limit", type=float, default=Job.limit, help="seconds of training for each contender"
    )
    parser.add_argument(
        "--newest", type=int, default=ALL, help="train sessions at most, for a first look"
    )
    arguments = parser.parse_args()
    job = Job(
        arguments.data.resolve(),
        arguments.threads,
        arguments.epochs,
        arguments.limit,
        arguments.newest,
    )
    checkout = arguments.tron and arguments.tron.resolve()
    print(json.dumps(run(job, checkout, arguments.tron_config)))


if __name__ == "__main__":
    main()
