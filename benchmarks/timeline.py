"""A shop under the loop, hour by hour, in memory: the monitor's own steps, and what follows."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.window_diagnosis import History, calibrated_signals, complete, newest_tails
from kreislauf.clock import DAY_MS, HOUR_MS
from kreislauf.evaluation import comparison, gate, scoring, split
from kreislauf.evaluation.intervals import interval
from kreislauf.lake.exclusions import HumanVerdict, combine, merge, subtract
from kreislauf.monitoring import cadence, calibration, doubts, measurement, policy, suspicion
from kreislauf.monitoring.agreement import agreement, first_excluded
from kreislauf.monitoring.diagnosis import diagnose
from kreislauf.monitoring.finding import Finding
from kreislauf.monitoring.measurement import Measurement
from kreislauf.monitoring.policy import Action
from kreislauf.monitoring.probe import Probe, gain_of_keeping
from kreislauf.monitoring.regret import REGRET
from kreislauf.monitoring.tail_probe import TailProbe
from kreislauf.monitoring.tails import FRACTIONS
from kreislauf.monitoring.window import TrustedRows, read_window
from models.session_recommender import SPEC
from models.spec import Tensors

WINDOW_MS = 7 * DAY_MS
COOLDOWN_MS = DAY_MS
SETTINGS = policy.Settings(min_gain=SPEC.policy.decay)
MONDAY_MS = 4 * DAY_MS + 3 * HOUR_MS
"""Monday at three in the week that began with 1970, a Thursday."""


class Answers:
    """Answers to requests that were asked before: from hour to hour nearly all are the same."""

    def __init__(self) -> None:
        self.by_file: dict[Path, dict[bytes, tuple[np.ndarray, ...]]] = {}
        self.names: list[str] = []

    def answer(self, onnx: Path, inputs: Tensors, batch: int = scoring.BATCH) -> Tensors:
        """As `scoring.answer`, for files that were registered; others are asked."""
        if onnx not in self.by_file:
            return ANSWER(onnx, inputs, batch)
        answers = self.by_file[onnx]
        rows = np.ascontiguousarray(np.concatenate([inputs[name] for name in sorted(inputs)], 1))
        keys = rows.view(f"V{rows.dtype.itemsize * rows.shape[1]}").ravel().tolist()
        missing = np.array([i for i, key in enumerate(keys) if key not in answers], int)
        if len(missing):
            new = {name: values[missing] for name, values in inputs.items()}
            outputs = ANSWER(onnx, new, batch)
            self.names = sorted(outputs)
            tails = zip(*(outputs[name] for name in self.names), strict=True)
            answers.update(zip([keys[i] for i in missing], tails, strict=True))
        columns = zip(*(answers[key] for key in keys), strict=True)
        return {name: np.stack(tail) for name, tail in zip(self.names, columns, strict=True)}


ANSWER = scoring.answer
ANSWERS = Answers()


@contextmanager
def remembered_answers() -> Iterator[None]:
    """Let the monitor's own steps, too, take answers from those of earlier hours."""
    scoring.answer = ANSWERS.answer  # type: ignore[assignment]
    try:
        yield
    finally:
        scoring.answer = ANSWER
        ANSWERS.by_file.clear()


@dataclass
class Champion:
    """A co-visitation table that is live."""

    number: int
    probe: Probe
    tails: TailProbe
    history: History
    cut: split.Cut
    learnt: pl.DataFrame
    """Rows that it learnt from."""
    by_length: dict[int, dict[str, list[float]]] = field(default_factory=dict, kw_only=True)
    """History of each signal, by the bin of a window's length."""
    folder: tempfile.TemporaryDirectory = field(kw_only=True)


@dataclass
class Timeline:
    """A shop's rows with everything that the loop keeps about them."""

    rows: pl.DataFrame
    """Sorted by time."""
    champion: Champion
    trained_until: int
    """Watermark of the last training, promoted or not."""
    windows: pl.DataFrame = field(default_factory=pl.DataFrame)
    """As the table of that name."""
    alarm_rows: pl.DataFrame = field(default_factory=pl.DataFrame)
    excluded: list[tuple[int, int]] = field(default_factory=list)
    verdicts: list[HumanVerdict] = field(default_factory=list)
    alarms: list[tuple[int, str]] = field(default_factory=list)
    """When each alarm began, and its verdict."""
    trainings: list[int] = field(default_factory=list)
    promotions: list[int] = field(default_factory=list)
    questions: list[tuple[int, int]] = field(default_factory=list)
    """When a person was asked, and since when the data in question came."""
    waits: int = 0
    alarming: str = ""
    """Verdict of the alarm that goes on; empty if none does."""
    cache: dict[tuple, Measurement] = field(default_factory=dict)
    """Windows that were measured before: the same rows give the same numbers."""

    @classmethod
    def start(cls, history: pl.DataFrame) -> "Timeline":
        """A shop with a champion that was trained on its `history`."""
        champion = train(history, 1)
        return cls(history.sort("ts"), champion, champion.cut.watermark)

    def with_rows(self, rows: pl.DataFrame) -> "Timeline":
        """The same with what is to come."""
        self.rows = pl.concat([self.rows, rows]).sort("ts")
        return self

    def fork(self) -> "Timeline":
        """Another future of the same shop."""
        return Timeline(self.rows, self.champion, self.trained_until)

    def until(self, now: int) -> pl.DataFrame:
        """The rows that have come, sorted by time."""
        return self.rows.head(int(np.searchsorted(self.rows["ts"].to_numpy(), now, "right")))

    def left_out(self) -> list[tuple[int, int]]:
        """What models do not learn from."""
        binding = [verdict.stretch for verdict in self.verdicts if verdict.trusted]
        return merge(subtract(self.excluded, binding))

    def trust(self, since: int) -> None:
        """A person says that everything since then (ms) is a new assortment."""
        self.verdicts.append(
            HumanVerdict(table="events", start=since, who="anna", reason="new assortment", at=since)
        )

    def look(self, now: int) -> None:
        """What the monitor's deployment and the weekly schedule do at a full hour (ms)."""
        rows = self.until(now)
        finding, action = self.diagnose(rows)
        self.record(finding, action, now)
        if action.wait:
            self.waits += 1
        due = (now - MONDAY_MS) % (7 * DAY_MS) == 0
        cooled = int(rows["ts"][-1]) - self.trained_until >= COOLDOWN_MS
        if (action.asks_for_retraining or due) and cooled and not action.wait:
            self.retrain(rows, now)

    def diagnose(self, rows: pl.DataFrame) -> tuple[Finding, Action]:
        """The flow's steps: measure, compare, diagnose, decide."""
        champion = self.champion
        probe = champion.probe
        watermark = int(rows["ts"][-1])
        excluded = self.left_out()
        source = trusted_rows(rows, excluded)
        since = champion.cut.watermark + 1
        tails = newest_tails(champion.tails, source, watermark, WINDOW_MS, since, champion.history)
        holdout = int(probe.holdout["ts"].min())  # type: ignore[arg-type]
        stretches = combine(v for v in self.verdicts if v.binds(holdout))
        trusted = any(start <= watermark <= end for start, end in stretches)
        stretch = (max(watermark + 1 - WINDOW_MS // min(FRACTIONS), since), watermark)
        head = measurement.begin(SPEC.name, champion.number, probe, source, tails, stretch, trusted)
        measured = head
        if not suspicion.fault(tails, excluded, trusted):
            measured = self.measure(head, source, watermark)
        diagnosis = diagnose(measured, measurement.compare(measured), SETTINGS.min_gain)
        if diagnosis.noise_only:
            window = read_window(SPEC, source, probe.profile, measured.start, measured.end)
            before = calibration.newest_rows(SPEC, source, champion.cut.start, measured.start - 1)
            diagnosis = diagnosis.keeping_window(gain_of_keeping(SPEC, window, before))
        days = None
        fault = diagnosis.meaning_fault
        if fault:
            since = first_excluded(excluded, fault)
            everything = TrustedRows.of(SPEC.table, rows)
            window = read_window(SPEC, everything, probe.profile, since, fault[1])
            days = agreement(champion.tails, window.sample, since, fault[1])
        finding = Finding.of(measured, measurement.compare(measured), diagnosis, days)
        standing = policy.standing_of(
            finding, self.windows, self.alarm_rows, self.verdicts, self.trained_until
        )
        return finding, policy.decide(finding, standing, SETTINGS)

    def measure(self, head: Measurement, source: TrustedRows, watermark: int) -> Measurement:
        """The newest window, which is not measured again while nothing about it is new."""
        champion = self.champion
        end = cadence.window_end(watermark, WINDOW_MS)
        start = max(end - WINDOW_MS, champion.cut.watermark) + 1
        lasting = doubts.lasting_loss(head.tails)
        key = (champion.number, start, end, tuple(source.excluded), lasting)
        newest = {"tails": head.tails, "trusted": head.trusted}
        if key in self.cache:
            return self.cache[key].model_copy(update=newest)
        window = read_window(SPEC, source, champion.probe.profile, start, end)
        measured = measurement.of_window(head, SPEC, window)
        if not measured.shortage:
            before = calibration.newest_rows(SPEC, source, champion.cut.start, start - 1)
            history = self.history(start, end)
            measured = complete(measured, champion.probe, window, before, history)
        self.cache = {key: measured}
        return measured

    def history(self, start: int, end: int) -> dict[str, list[float]]:
        """Calibration, and stable windows of this version that overlap neither with each other nor
        with the one from `start` (ms)."""
        champion = self.champion
        length = end + 1 - start
        size = calibration.length_bin(length)
        if size not in champion.by_length:
            source = TrustedRows.of(SPEC.table, champion.learnt)
            learnt = (champion.cut.start, champion.cut.holdout - 1)
            signals = calibrated_signals(champion.probe, source, *learnt, length)
            champion.by_length[size] = History(signals).by_signal()
        history = {name: list(values) for name, values in champion.by_length[size].items()}
        reference = calibration.reference_windows(
            self.windows, SPEC.name, self.champion.number, start, end
        )
        if not reference.is_empty():
            for (name,), rows in reference.group_by("signal"):
                history.setdefault(str(name), []).extend(rows["value"].to_list())
        return history

    def record(self, finding: Finding, action: Action, now: int) -> None:
        """What the flow stores, and what its events start but trainings."""
        measured = next(iter(self.cache.values()), None)
        if finding.verdict == "not enough data" or (measured and measured.quality is None):
            measured = None
        window = (finding.version, finding.start, finding.end)
        if measured and (measured.version, measured.start, measured.end) == window:
            values = {signal.name: signal.value for signal in finding.signals}
            rows = calibration.signal_rows(
                SPEC.name, *window, finding.end - finding.start + 1, finding.verdict,
                values | {REGRET: finding.regret},
            )  # fmt: skip
            if (
                self.windows.is_empty()
                or not self.windows.filter(version=window[0], start=window[1], end=window[2]).height
            ):
                self.windows = pl.concat([self.windows, rows])
        if action.alarm:
            row: dict = {"model": finding.model, "version": finding.version}
            row |= {"start": finding.start, "end": finding.end, "verdict": finding.verdict}
            self.alarm_rows = pl.concat(
                [self.alarm_rows, pl.DataFrame([row | {"action": action.sentence}])]
            )
        if finding.verdict == "undecided":
            return
        alarming = ""
        if finding.verdict not in ("stable", "not enough data"):
            alarming = finding.verdict
        if alarming and alarming != self.alarming and action.alarm:
            self.alarms.append((now, alarming))
        self.alarming = alarming
        if action.exclude:
            self.excluded = merge([*self.excluded, action.exclude])
        if action.event == "question" and finding.agreement:
            self.questions.append((now, finding.agreement.since))

    def retrain(self, rows: pl.DataFrame, now: int) -> None:
        """Train a challenger, judge it, and put it live if it is better."""
        trusted = without(rows, self.left_out()).sort("session", "ts", "aid", "type")
        challenger = train(trusted, self.champion.number + len(self.trainings) + 1, False)
        self.trainings.append(now)
        self.trained_until = int(rows["ts"][-1])
        decision = judge(challenger, self.champion)
        if decision.outcome == "promote":
            assert decision.reference is not None
            probe = replace(challenger.probe, reference=decision.reference)
            challenger.probe = probe
            challenger.tails = TailProbe(probe)
            self.promotions.append(now)
            self.champion = with_history(challenger)
            self.alarming = ""

    def true_gain(self, now: int, until: int) -> float:
        """How much better a table that is trained at `now` (ms) answers what comes until then than
        the live one does."""
        trained = train(self.until(now).sort("session", "ts", "aid", "type"), 0, False)
        coming = self.rows.filter(pl.col("ts").min().over("session").is_between(now + 1, until))
        examples = SPEC.examples(coming.sort("session", "ts"))
        outputs = [
            scoring.answer(each.probe.onnx, examples.inputs) for each in (trained, self.champion)
        ]
        return float(np.subtract(*(SPEC.score(examples, each).mean() for each in outputs)))

    def cost(self, rows: pl.DataFrame, change: int) -> float:
        """Share of its quality that the champion loses by what happens at `change` (ms)."""
        examples = SPEC.examples(
            rows.filter(pl.col("ts").min().over("session") >= change).sort("session", "ts")
        )
        scores = SPEC.score(examples, scoring.answer(self.champion.probe.onnx, examples.inputs))
        return 1 - float(scores.mean()) / self.champion.probe.reference.mean


def without(rows: pl.DataFrame, excluded: list[tuple[int, int]]) -> pl.DataFrame:
    """The rows outside of stretches (ms, inclusive)."""
    for start, end in excluded:
        rows = rows.filter(~pl.col("ts").is_between(start, end))
    return rows


def trusted_rows(rows: pl.DataFrame, excluded: list[tuple[int, int]]) -> TrustedRows:
    """Rows in memory, sorted by time, without the stretches `excluded`."""
    times = rows["ts"].to_numpy()

    def between(first: int | None, last: int) -> pl.LazyFrame:
        begin = 0 if first is None else int(np.searchsorted(times, first))
        end = int(np.searchsorted(times, last, "right"))
        return without(rows.slice(begin, end - begin), excluded).lazy()

    return TrustedRows(between, lambda first, last: between(first, last).collect().height, excluded)


def train(rows: pl.DataFrame, number: int, calibrated: bool = True) -> Champion:
    """A co-visitation table on `rows` before the hold-out; with its history if it goes live."""
    cut = split.cut(rows, SPEC, 0)
    learnt = rows.filter(pl.col("ts") < cut.holdout)
    judged = split.started(rows, SPEC.table, cut.holdout, cut.watermark)
    folder = tempfile.TemporaryDirectory()
    onnx = SPEC.baseline(learnt.sort("session", "ts", "aid", "type"), Path(folder.name))
    examples = SPEC.examples(judged)
    scores = SPEC.score(examples, scoring.answer(onnx, examples.inputs))
    days = (cut.watermark - cut.holdout) / DAY_MS
    measured = interval(scores, examples.groups, SPEC.policy.confidence)
    reference = comparison.widened(measured, days, SPEC.policy)
    profile = SPEC.training_profile(learnt.lazy()).collect()
    probe = Probe(SPEC, onnx, onnx, profile, judged, reference)
    champion = Champion(
        number, probe, TailProbe(probe), History([]), cut, learnt.sort("ts"), folder=folder
    )
    if calibrated:
        champion = with_history(champion)
    return champion


def with_history(champion: Champion) -> Champion:
    """The champion with what is usual among the rows that it learnt from."""
    ANSWERS.by_file[champion.probe.onnx] = {}
    last = champion.cut.holdout - 1
    learnt = TrustedRows.of(SPEC.table, champion.learnt)
    champion.history = History([], champion.tails.histories(learnt, last, WINDOW_MS))
    return champion


def judge(challenger: Champion, champion: Champion) -> gate.Decision:
    """The gate's decision on the challenger's hold-out; latency is left out, because both are the
    same table."""
    cut = challenger.cut
    asked = SPEC.examples(challenger.probe.holdout)
    slices = SPEC.slices(challenger.probe.holdout, challenger.probe.profile)
    by = {column.name: column.cast(pl.String).to_numpy() for column in slices}
    holdout = gate.Holdout(asked.digest(), cut.holdout, asked.groups, by)

    def score(version: Champion, number: int | None) -> gate.Scores:
        outputs = scoring.answer(version.probe.onnx, asked.inputs)
        megabytes = version.probe.onnx.stat().st_size / 1e6
        coverage = SPEC.coverage(outputs, challenger.probe.profile)
        return gate.Scores(
            values=SPEC.score(asked, outputs),
            holdout=holdout,
            metric=SPEC.metric,
            trained_until=version.cut.holdout,
            onnx=str(version.probe.onnx),
            version=number,
            cost=gate.Cost(1.0, megabytes, coverage),
            probabilities=None,
        )

    return gate.decide(
        score(challenger, challenger.number),
        score(champion, champion.number),
        score(challenger, None),
        SPEC.policy,
    )
