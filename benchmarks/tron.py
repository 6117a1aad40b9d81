"""OTTO's TRON in the race, with its own preparation, loaders, model and trainer.

It is https://github.com/otto-de/TRON. Nothing of it is copied here: its package `src` is imported
from a checkout, in a process of its own.
"""

import gzip
import importlib
import io
import json
import logging
import sys
import tempfile
from contextlib import chdir, redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.race import Check, Job, Watch
from models.runtime import silence_libraries
from models.session_recommender.features import PADDING
from models.session_recommender.metrics import K, recall

CONFIG = {
    "accelerator": "cpu",
    "hidden_size": 100,
    "num_uniform_negatives": 2048,
    "batch_size": 512,
    "max_session_length": 20,
    "limit_val_batches": 0,
    "max_epochs": 1000,
}
"""Changes to its own configs/tron/diginetica.json, with which an epoch takes hours on a CPU.

The trainer makes bfloat16 of its precision 16. Validation and the end are left to the race.
"""


def contend(job: Job, checkout: Path, changed: dict[str, Any]) -> list[Check]:
    """Run its training until the race is over for it, as its script does, but without MLflow.

    `changed` are changes to its configuration and to CONFIG.
    """
    sys.path.insert(0, str(checkout))
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    published = json.loads((checkout / "configs" / "tron" / "diginetica.json").read_text())
    config = published | CONFIG | changed
    _, test = job.load()
    with tempfile.TemporaryDirectory() as folder, chdir(folder), silence_libraries():
        with redirect_stderr(io.StringIO()):  # progress bars
            ids, statistics = prepare(job, config["dataset"])
        theirs: Any = importlib.import_module("src.sasrec.train")
        trainer, model, loader, _ = theirs.train_sasrec(config, ".", *statistics, len(ids) - 1)

        def ask() -> tuple[float]:
            answers = answer(model, ids, test.inputs["article_ids"])
            return (float(recall(answers, test.labels).mean()),)

        watch = Watch("tron", job, ask, lambda batch: int(batch["mask"].sum()))
        # Instead of its progress bar, and of checkpoints that want its validation.
        trainer.callbacks = [watch]
        trainer.fit(model, loader)
    return watch.checks


def prepare(job: Job, name: str) -> tuple[np.ndarray, list[dict[str, int]]]:
    """Write its files to the current folder, as its script does after the split.

    Returns the raw ids of its article numbers, of which 0 is padding, and the sessions and events
    of train and test.
    """
    theirs: Any = importlib.import_module("src.preprocessing")
    first = job.first_test()
    with gzip.open(job.data / "sessions.jsonl.gz") as file:
        sessions = [json.loads(line) for line in file]
    learnt = [session for session in sessions if first - job.newest <= session["session"] < first]
    later = [session for session in sessions if session["session"] >= first]
    tested, aids = theirs.filter_test_aids(learnt, later)
    numbers = theirs.create_aid_to_idx(aids)
    folder = Path(name)
    statistics = []
    folder.mkdir()
    for half, chosen in (("train", learnt), ("test", theirs.filter_short_sessions(tested))):
        remapped, count, events = theirs.remap_indices(chosen, numbers)
        theirs.write_file(theirs.sort_sessions(remapped), folder / f"{name}_{half}.jsonl")
        statistics.append({"num_sessions": count, "num_events": events})
    return np.array([PADDING, *numbers]), statistics


def answer(model: Any, ids: np.ndarray, sessions: np.ndarray) -> np.ndarray:
    """The best raw ids after each session, int64 (n, K).

    The whole catalogue is ranked, as by its own validation. `sessions` are raw ids, int64 (n, m),
    oldest first, then padding.
    """
    order = np.argsort(ids)
    place = np.minimum(np.searchsorted(ids, sessions, sorter=order), len(ids) - 1)
    numbers = np.where(ids[order[place]] == sessions, order[place], 0)
    # It wants the padding first.
    padding_first = np.argsort(numbers > 0, axis=1, kind="stable")
    numbers = np.take_along_axis(numbers, padding_first, 1)[:, -model.max_len :]
    best = []
    model.eval()
    with torch.no_grad():
        for clicks in torch.from_numpy(numbers).split(256):
            logits = model(clicks, (clicks > 0).float())[:, -1] @ model.output_embedding.weight.T
            logits[:, 0] = -torch.inf
            best.append(logits.topk(K).indices)
    model.train()
    return ids[torch.cat(best).numpy()]
