"""A race of trainings to the same recall: the job, the clock of each, and when it got there."""

import itertools
import json
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from lightning.pytorch.callbacks import Callback

from benchmarks import published
from models.session_recommender import Params
from models.spec import Examples

ALL = 10**9
"""More sessions, or steps, than there are."""


@dataclass(frozen=True)
class Job:
    """Conditions that are the same for all contenders."""

    data: Path
    threads: int = 1
    """Threads of PyTorch, for each contender."""
    epochs: int = Params().epochs
    """Epochs of our training; the learning rate falls to zero in as many."""
    limit: float = 1800
    """Seconds of training after which a contender has not reached the target."""
    newest: int = ALL
    """Maximum sessions to learn from."""
    asked: int = 6_000
    """Test prefixes that are drawn, the same for all."""
    every: int = 72_000
    """Examples from one check to the next: a tenth of Diginetica's."""
    target: float = 0.47
    """Recall@20 that ends the race."""
    steps: int = 150
    """Steps of the loops with and without Lightning that are measured."""
    warm: int = 20
    """Steps before those that are measured."""
    rounds: int = 5
    """Repetitions of each loop."""

    def load(self) -> tuple[pl.DataFrame, Examples]:
        """Rows to learn from, and the questions."""
        rows, test = published.load(self.data)
        drawn = np.random.default_rng(0).permutation(len(test))[: self.asked]
        return rows.filter(pl.col("session") >= self.first_test() - self.newest), test.take(drawn)

    def first_test(self) -> int:
        """The published split: sessions from this id on are the test."""
        return json.loads((self.data / "meta.json").read_text())["first_test_session"]


class Check(NamedTuple):
    """State of a training. Neither clock runs while the recall is measured."""

    seconds: float
    cpu: float
    """Seconds of all threads of this process, not of its loaders."""
    examples: int
    """Events predicted so far."""
    recalls: tuple[float, ...]
    """Recalls of the contender and, if there is one, of contender and table together."""


class Watch(Callback):
    """The clock of a training: it stops for checks, and ends the training at target or limit."""

    def __init__(
        self,
        name: str,
        job: Job,
        ask: Callable[[], tuple[float, ...]],
        count: Callable[[Any], int],
        spent: tuple[float, float] = (0.0, 0.0),
    ):
        """`spent` are wall and CPU seconds that belong to the training and were before it."""
        self.name = name
        self.job = job
        self.ask = ask
        self.count = count
        self.checks: list[Check] = []
        self.seconds, self.cpu = spent
        self.examples = 0
        self.since = (0.0, 0.0)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the clocks, and measure what was there before the first step."""
        self.since = (time.perf_counter(), time.process_time())
        self.check()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the examples, and check when it is time."""
        self.examples += self.count(batch)
        if self.examples >= len(self.checks) * self.job.every:
            self.check()
            if self.checks[-1].recalls[0] >= self.job.target or self.seconds >= self.job.limit:
                trainer.should_stop = True

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Check once more if there were steps since the last check."""
        if self.examples > self.checks[-1].examples:
            self.check()

    def check(self) -> None:
        """Measure with the clocks stopped."""
        self.seconds += time.perf_counter() - self.since[0]
        self.cpu += time.process_time() - self.since[1]
        self.checks.append(Check(self.seconds, self.cpu, self.examples, self.ask()))
        recalls = " ".join(f"{value:.4f}" for value in self.checks[-1].recalls)
        print(
            f"{self.name} {self.seconds:8.1f} s {self.examples:9} examples, recall@20 {recalls}",
            flush=True,
        )
        self.since = (time.perf_counter(), time.process_time())


def seconds_to(
    target: float, checks: list[Check], which: int = 0, clock: str = "seconds"
) -> float | None:
    """Seconds until a recall first was at the target; None if it never was.

    Between two checks the recall is taken as a straight line.
    """
    points = [(getattr(check, clock), check.recalls[which]) for check in checks]
    for (before, low), (after, high) in itertools.pairwise([points[0], *points]):
        if low < target <= high:
            return before + (target - low) / (high - low) * (after - before)
        if high >= target:
            return after
    return None


def in_new_process(job: Job, work: Callable[..., Any], *more: Any) -> Any:
    """`work(job, *more)` in a fresh process."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        1, spawn, initializer=torch.set_num_threads, initargs=(job.threads,)
    ) as pool:
        return pool.submit(work, job, *more).result()
