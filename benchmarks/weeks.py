"""A real shop week by week: a version for the end of each week, trained once, and what it answers
in later weeks.

Without a parent, what a training makes does not depend on what was live before. So one version for
each week is enough to look up what any policy of retraining would have come to. Whatever took long
is kept in a folder, by what it was made from: a run that was killed goes on, and one with another
monitor trains nothing again.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from kreislauf import sources
from kreislauf.clock import DAY_MS
from kreislauf.evaluation import gate, scoring, split
from kreislauf.lake.validate import validate_lines
from models.loading import code_digest
from models.session_recommender import Params, selection, training
from models.spec import Examples, ModelSpec, Tensors, TrainingContext
from models.table import Table

HISTORY = 0.4
"""Share of the sessions that the first version learns from, as in the demo's replay."""
WEEK_MS = 7 * DAY_MS
PARAMS = Params(dim=32, epochs=1, ranker_epochs=1, most_compared=500, batch_size=256)
LIGHT = {"NEWEST": 0.02, "BLOCKS": 2}
"""Constants of a training that are cheaper than the usual ones, as are its parameters: how often to
train is asked, not how well one can. Table and encoder are always what is served. The ranker takes
most of a training's time, and chosen now and then, it would make versions differ by more than what
they have learnt from."""


def load(folder: Path, model_type: ModelSpec) -> pl.DataFrame:
    """Every row of the sessions in `folder`, in the order in which the lake gives them. Raises
    ValueError if a line is bad."""
    path = folder / "sessions.jsonl.gz"
    judged = validate_lines(
        model_type.table, list(sources.open_file(str(path), model_type.table).chunks())
    )
    if judged.rejected.height:
        raise ValueError(
            f"{judged.rejected.height} lines of {path} break a rule: this benchmark wants clean "
            "data."
        )
    return judged.rows.sort(model_type.table.order)


def ends(rows: pl.DataFrame, model_type: ModelSpec) -> list[int]:
    """Where the history and each of the weeks after it end, ms since 1970 UTC, exclusive: equal
    stretches of about a week."""
    starts = (
        rows.group_by(model_type.table.group)
        .agg(pl.col(model_type.table.time).min())[model_type.table.time]
        .sort()
    )
    begin = int(starts[int(len(starts) * HISTORY)])
    end = int(rows[model_type.table.time].max()) + 1  # type: ignore[arg-type]
    count = max(1, round((end - begin) / WEEK_MS))
    return [round(begin + (end - begin) * i / count) for i in range(count + 1)]


def train_rows(rows: pl.DataFrame, table: Table, cut: split.Cut) -> pl.DataFrame:
    """Everything before the hold-out."""
    return rows.filter(pl.col(table.time) < cut.holdout)


@dataclass(frozen=True)
class Kept:
    """A folder with what was found before."""

    folder: Path

    def arrays(
        self, name: str, key: Sequence, make: Callable[[], dict[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """What `make` returned for this `key`, strings and numbers, the first time."""
        path = self.folder / name / f"{digest_of(key)}.npz"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(f".{os.getpid()}.npz")
            np.savez(part, allow_pickle=False, **make())
            part.replace(path)
        with np.load(path) as arrays:
            return {name: arrays[name] for name in arrays.files}

    def text(self, name: str, key: Sequence, make: Callable[[], str]) -> str:
        """The same for a text."""
        return str(self.arrays(name, key, lambda: {"text": np.array(make())})["text"])

    def answer(self, onnx: Path, inputs: Tensors) -> Tensors:
        """As `scoring.answer`; kept for the files in this folder, whose names say what they were
        made from."""
        if self.folder not in onnx.parents:
            return ANSWER(onnx, inputs)
        key = [
            str(onnx.relative_to(self.folder)),
            Examples(inputs, np.array([]), np.array([])).digest(),
        ]
        return self.arrays("answers", key, lambda: ANSWER(onnx, inputs))

    def baseline_scores(
        self, model_type: ModelSpec, rows: pl.DataFrame, examples: Examples
    ) -> np.ndarray:
        """As `scoring.baseline_scores`."""
        key = [code_digest(model_type), digest(rows), examples.digest()]
        return self.arrays(
            "baselines", key, lambda: {"scores": BASELINE_SCORES(model_type, rows, examples)}
        )["scores"]


@contextmanager
def light() -> Iterator[None]:
    """See `LIGHT`."""
    constants = {name: getattr(training, name) for name in LIGHT}
    choose = selection.choose
    try:
        for name, value in LIGHT.items():
            setattr(training, name, value)
        selection.choose = lambda hits: "encoder"
        yield
    finally:
        for name, value in constants.items():
            setattr(training, name, value)
        selection.choose = choose


ANSWER = scoring.answer
BASELINE_SCORES = scoring.baseline_scores


def digest_of(key: Sequence) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def digest(rows: pl.DataFrame) -> str:
    """Hex SHA-256 of the rows in their order."""
    sha = hashlib.sha256()
    for column in rows.get_columns():
        sha.update(
            column.name.encode() + np.ascontiguousarray(column.to_physical().to_numpy()).tobytes()
        )
    return sha.hexdigest()


@dataclass(frozen=True)
class Version:
    """What was trained at the end of a week."""

    number: int
    """Of the week; 0 is the end of the history."""
    rows: pl.DataFrame
    """Those that there were: what it learnt from, and its hold-out."""
    cut: split.Cut
    folder: Path

    @property
    def onnx(self) -> Path:
        return self.folder / "model.onnx"

    @property
    def baseline(self) -> Path:
        return self.folder / "baseline.onnx"

    @property
    def seconds(self) -> float:
        """That the training took."""
        return json.loads((self.folder / "done.json").read_text())["seconds"]


@dataclass(frozen=True)
class Shop:
    """A shop's rows with the ends of its weeks, and the versions trained on them."""

    model_type: ModelSpec
    rows: pl.DataFrame
    ends: list[int]
    """See the function."""
    kept: Kept
    without: tuple[tuple[int, int], ...] = ()
    """Stretches, ms since 1970 UTC, both ends inclusive, whose groups no version learns from or is
    judged by."""
    params: Params = field(default_factory=lambda: PARAMS)

    @property
    def weeks(self) -> int:
        return len(self.ends) - 1

    def until(self, number: int) -> pl.DataFrame:
        """What the lake would give at the end of week `number`."""
        time = pl.col(self.model_type.table.time)
        rows = self.rows
        rows = rows.filter(time < self.ends[number])
        for first, last in self.without:
            rows = rows.filter(
                ~time.is_between(first, last).any().over(self.model_type.table.group)
            )
        return rows

    def version(self, number: int) -> Version:
        """What a training at the end of week `number` makes, as `flows.train` does it, without a
        parent."""
        rows = self.until(number)
        cut = split.cut(rows, self.model_type, 0)
        learnt = train_rows(rows, self.model_type.table, cut)
        key = [
            code_digest(self.model_type),
            self.params.model_dump(mode="json"),
            LIGHT,
            digest(learnt),
        ]
        version = Version(number, rows, cut, self.kept.folder / "versions" / digest_of(key))
        if not (version.folder / "done.json").exists():
            self._train(learnt, version)
        return version

    def _train(self, learnt: pl.DataFrame, version: Version) -> None:
        """An interrupted training is continued."""
        work = version.folder / "work"
        began = time.perf_counter()
        work.mkdir(parents=True, exist_ok=True)
        with light():
            trained = self.model_type.train(learnt, self.params, TrainingContext(work))
        shutil.copy(trained.onnx, version.onnx)
        shutil.copy(self.model_type.baseline(learnt, work), version.baseline)
        shutil.rmtree(work)
        summary: dict = {
            "seconds": round(time.perf_counter() - began),
            "number": version.number,
            "rows": learnt.height,
        }
        summary["validation"] = round(trained.validation, 4)
        (version.folder / "done.json").write_text(json.dumps(summary))
        print(f"trained at the end of week {version.number}: {summary}", flush=True)

    def recall(self, version: Version, week: int) -> float:
        """Of the sessions that began in a `week`, from 1 on: mean over every prefix."""
        rows = split.started(
            self.rows, self.model_type.table, self.ends[week - 1], self.ends[week] - 1
        )
        asked = self.model_type.examples(rows)
        return float(
            self.model_type.score(asked, self.kept.answer(version.onnx, asked.inputs)).mean()
        )

    def decide(self, challenger: Version, champion: Version | None) -> gate.Decision:
        """As `flows.promote` does it."""
        rival = [champion.number, champion.folder.name] if champion else []
        files = sorted(Path(gate.__file__).parent.glob("*.py"))
        code = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
        policy = self.model_type.policy.model_dump(mode="json", exclude={"decay"})
        key = [
            challenger.number,
            challenger.folder.name,
            digest(challenger.rows),
            *rival,
            code,
            policy,
        ]
        made = self.kept.text(
            "decisions", key, lambda: self._judge(challenger, champion).model_dump_json()
        )
        return gate.Decision.model_validate_json(made)

    def _judge(self, challenger: Version, champion: Version | None) -> gate.Decision:
        model_type = self.model_type
        cut = challenger.cut
        rows = split.started(challenger.rows, model_type.table, cut.holdout, cut.watermark)
        learnt = train_rows(challenger.rows, model_type.table, cut)
        asked = model_type.examples(rows)
        profile = model_type.training_profile(learnt.lazy()).collect()
        by = {
            column.name: column.cast(pl.String).to_numpy()
            for column in model_type.slices(rows, profile)
        }
        holdout = gate.Holdout(asked.digest(), cut.holdout, asked.groups, by)

        def score(onnx: Path, trained_until: int, number: int | None) -> gate.Scores:
            outputs = self.kept.answer(onnx, asked.inputs)
            p95 = scoring.p95(onnx, asked.inputs)
            megabytes = onnx.stat().st_size / 1e6
            cost = gate.Cost(p95, megabytes, model_type.coverage(outputs, profile))
            name = str(onnx.relative_to(self.kept.folder))
            return gate.Scores(
                values=model_type.score(asked, outputs),
                holdout=holdout,
                metric=model_type.metric,
                trained_until=trained_until,
                onnx=name,
                version=number,
                cost=cost,
                probabilities=model_type.probabilities(outputs),
            )

        return gate.decide(
            score(challenger.onnx, cut.holdout, challenger.number),
            score(champion.onnx, champion.cut.holdout, champion.number) if champion else None,
            score(challenger.baseline, cut.holdout, None),
            model_type.policy,
        )
