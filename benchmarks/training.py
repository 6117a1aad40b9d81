"""How fast does the session encoder learn, beside OTTO's TRON, and what does Lightning cost over a
bare PyTorch loop?

`python -m benchmarks.training --data FOLDER --tron CHECKOUT` does the same steps with and without
Lightning, in turn. Then it trains both encoders on the sessions before the published test, each in
a process of its own, until recall@20 is .47 on the same test prefixes, the whole catalogue ranked.
Both have one thread, and TRON the loader processes that it starts besides. The clock does not run
while data is prepared or recall measured; what our vectors start from, the co-visitation table,
counts. Ours may be there before its first step: then its time is that of this start. The last line
is JSON; times in it are wall times, and `cpu` means CPU time, which other programs hardly change.
FOLDER has `sessions.jsonl.gz`, `test_prefixes.parquet` and `meta.json`, which says where the test
begins.
"""

import argparse
import copy
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
from benchmarks.race import ALL, Check, Job, Watch, apart, seconds_to
from models.session_recommender import Params
from models.session_recommender.batches import Batches, Sequences
from models.session_recommender.covisitation import covisit
from models.session_recommender.encoder import Encoder, Session
from models.session_recommender.features import INPUTS, Catalogue, events
from models.session_recommender.fit import fit
from models.session_recommender.metrics import K, recall
from models.session_recommender.objectives import EncoderTask
from models.session_recommender.runtime import quiet
from models.session_recommender.scorer import Known, Scorer
from models.session_recommender.training import placed
from models.spec import Examples, ignore_progress


class Ours:
    """The session encoder, started and trained as `training.py` does it, on everything there is to
    learn from."""

    def __init__(self, job: Job):
        rows, self.test = job.load()
        e = events(rows)
        self.params = Params(epochs=job.epochs)
        self.catalogue = Catalogue(np.unique(e.aid))
        self.sequences = Sequences.of(e, self.catalogue.rows(e.aid))
        began = time.perf_counter(), time.process_time()
        self.known = Known(covisit(e, self.catalogue))
        torch.manual_seed(self.params.seed)
        self.encoder = Encoder(self.catalogue.size, self.params.dim, self.params.dropout)
        with torch.no_grad():
            self.encoder.articles.copy_(placed(self.known, self.encoder.articles))
        self.spent = time.perf_counter() - began[0], time.process_time() - began[1]

    def task(self, kind: type[EncoderTask]) -> Any:
        """The encoder as it is before the first step."""
        encoder = copy.deepcopy(self.encoder)
        return kind(
            encoder, self.params, self.known, np.arange(len(self.catalogue.ids)), self.params.lr
        )

    def batches(self, steps: int = ALL) -> Batches:
        """One epoch of all sessions or, if that has more steps, of the newest."""
        size = self.params.batch_size
        first = max(0, len(self.sequences.length) - steps * size)
        length = self.sequences.length[first:]
        return Batches(
            length,
            [len(length)],
            size,
            self.params.seed,
            lambda index: self.sequences.take(index + first),
        )

    def recalls(self, encoder: Encoder) -> tuple[float, float]:
        """Of the encoder alone, and of encoder and table together."""
        return recalls(Scorer(self.known, copy.deepcopy(encoder)).eval(), self.catalogue, self.test)


def recalls(scorer: Scorer, catalogue: Catalogue, test: Examples) -> tuple[float, float]:
    """See `Ours.recalls`."""
    rows, kinds, times = (test.inputs[name] for name in INPUTS)
    session = Session(*map(torch.from_numpy, (catalogue.rows(rows), kinds.clip(min=0), times)))
    alone = []
    both = []
    n = len(catalogue.ids)
    with torch.no_grad():
        for index in torch.arange(len(test)).split(256):
            part = Session(*(t[index] for t in session))
            alone.append(scorer._cosine(part)[:, :n].topk(min(K, n)).indices)
            both.append(scorer(*part)[0])
    raw = [catalogue.raw()[torch.cat(found).numpy()] for found in (alone, both)]
    return float(recall(raw[0], test.labels).mean()), float(recall(raw[1], test.labels).mean())


class Watched(EncoderTask):
    """Brings its clock with it."""

    watch: Watch

    def configure_callbacks(self) -> list[Callback]:
        """Called by Lightning."""
        return [self.watch]


def contend(job: Job) -> list[Check]:
    """Our training; table and start of the vectors count."""
    ours = Ours(job)
    task = ours.task(Watched)
    task.watch = Watch(
        "ours",
        job,
        lambda: ours.recalls(task.network),
        lambda batch: int((batch.rows[:, 1:] >= 0).sum()),
        ours.spent,
    )
    with quiet(), tempfile.TemporaryDirectory() as folder:
        fit(task, ours.batches(), [], job.epochs, Path(folder), {}, ignore_progress)
    return task.watch.checks


class Stamped(EncoderTask):
    """Notes when each step begins, by both clocks, and its loss."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.stamps: list[tuple[float, float]] = []
        self.losses: list[torch.Tensor] = []

    def loss(self, batch: Session) -> torch.Tensor:
        """The first that both loops do with a batch."""
        self.stamps.append((time.perf_counter(), time.process_time()))
        loss = super().loss(batch)
        self.losses.append(loss.detach())
        return loss


def bare_loop(task: Stamped, batches: Batches) -> None:
    """The training without Lightning, with the same optimizer, schedule and seeds."""
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
    """The training as it is; so few steps leave no checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        fit(task, batches, [], 1, Path(folder), {}, ignore_progress)


def overhead(job: Job) -> dict[str, np.ndarray]:
    """Wall and CPU seconds per step of both loops: the mean over the steps, each the median of the
    rounds.

    Raises RuntimeError if the loops do not have the same losses, but for the rounding of several
    threads.
    """
    ours = Ours(job)
    loops = {"lightning": with_lightning, "torch": bare_loop}
    stamps: dict[str, list[np.ndarray]] = {name: [] for name in loops}
    losses = []
    with quiet():
        for turn in range(job.rounds):
            for name in loops if turn % 2 == 0 else reversed(loops):
                task = ours.task(Stamped)
                loops[name](task, ours.batches(job.warm + job.steps + 1))
                stamps[name].append(np.diff(task.stamps, axis=0)[job.warm :])
                losses.append(torch.stack(task.losses))
    if not all(torch.allclose(losses[0], found, rtol=1e-3) for found in losses):
        raise RuntimeError(
            "The two loops did not do the same: compare `bare_loop` with learning.py."
        )
    return {name: np.median(found, 0).mean(0) for name, found in stamps.items()}


def compared(job: Job, ours: list[Check], rival: list[Check]) -> dict[str, Any]:
    """How much longer TRON takes. If only TRON does not get there, the time that it had is a lower
    bound."""
    result: dict[str, Any] = {"seconds_to_47_tron": seconds_to(job.target, rival)}
    result["tron_is_lower_bound"] = result["seconds_to_47_tron"] is None
    if result["tron_is_lower_bound"]:
        seconds = rival[-1].seconds
        best = max(check.recalls[0] for check in rival)
        print(
            f"TRON got to {best:.4f} in {seconds:.0f} s: this time, and so the ratio, is a lower bound."
        )
    for name, clock in (("tron_over_ours_to_recall_47", "seconds"), ("tron_over_ours_cpu", "cpu")):
        own, its = (seconds_to(job.target, checks, clock=clock) for checks in (ours, rival))
        result[name] = (its or getattr(rival[-1], clock)) / own if own else None
    return result


def summary(
    job: Job, loops: dict[str, np.ndarray], ours: list[Check], rival: list[Check] | None
) -> dict:
    """What the JSON line has."""
    wall, cpu = loops["lightning"] / loops["torch"]
    alone, both = (seconds_to(job.target, ours, which) for which in (0, 1))
    result: dict[str, Any] = {"tron_over_ours_to_recall_47": None, "lightning_over_torch": wall}
    result |= {"lightning_over_torch_cpu": cpu, "seconds_to_47_encoder": alone}
    result |= {"seconds_to_47_with_table": both}
    if rival is None:
        print(
            "tron_over_ours_to_recall_47 is null, because TRON was not run: give its checkout with --tron."
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
                f"{name}: {last.examples / seconds:.0f} examples/s, {last.examples / cpu:.0f} per CPU second"
            )
    return {
        name: round(value, 3) if isinstance(value, float) else value
        for name, value in result.items()
    }


def run(job: Job, checkout: Path | None, changed: dict[str, Any]) -> dict[str, Any]:
    """All measurements, one after the other."""
    loops = apart(job, overhead)
    for name, (wall, cpu) in loops.items():
        print(f"{name}: {1000 * wall:.1f} ms a step, {1000 * cpu:.1f} ms of CPU", flush=True)
    ours = apart(job, contend)
    rival = apart(job, tron.contend, checkout, changed) if checkout else None
    return summary(job, loops, ours, rival)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training", description=(__doc__ or "").splitlines()[0]
    )
    parent = os.environ.get("KREISLAUF_DATA")
    given = {"default": Path(parent) / "diginetica"} if parent else {"required": True}
    parser.add_argument("--data", type=Path, help="default: $KREISLAUF_DATA/diginetica", **given)  # type: ignore[arg-type]
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
    told = parser.parse_args()
    job = Job(told.data.resolve(), told.threads, told.epochs, told.limit, told.newest)
    print(json.dumps(run(job, told.tron and told.tron.resolve(), told.tron_config)))


if __name__ == "__main__":
    main()
