"""The life of a model type as its flows would have left it: releases, windows, decisions, alarms,
and what is distrusted. Written by the functions that the flows call."""

import json
import math

import polars as pl

from kreislauf import exposures, lake, object_store
from kreislauf.batch import answers
from kreislauf.batch.batch import Batch
from kreislauf.batch.questions import Questions
from kreislauf.clock import DAY_MS, HOUR_MS
from kreislauf.evaluation.decision import DECISIONS, Decision
from kreislauf.evaluation.intervals import Interval
from kreislauf.experiment import record
from kreislauf.experiment.record import Record
from kreislauf.experiment.users import Counts
from kreislauf.experiment.verdict import Gap, Look, Users, Verdict
from kreislauf.lake import approvals, data_files, exclusions, journal
from kreislauf.lake.data_files import DataFile
from kreislauf.lake.exclusions import HumanVerdict
from kreislauf.monitoring import calibration, policy, status, tables
from kreislauf.registry import Lineage, Version
from kreislauf.release.releases import Release
from kreislauf.settings import settings
from models.session_recommender import SPEC
from tasks.promote import as_row
from tests.kreislauf.lake.test_lake import File

MODEL = SPEC.name
FIRST = 1_790_553_600_000
"""When the first version was trained: a midnight, UTC."""
STEP = 14 * HOUR_MS
WEEK = 7 * DAY_MS
FAULT = (FIRST + 30 * DAY_MS, FIRST + 31 * DAY_MS)
VERDICTS = {9: "concept drift", 20: "covariate shift", 51: "data fault", 60: "undecided"}
"""Verdicts of the windows of a story that are not stable, by number."""
EVIDENCE = "Only the live model fell: it reaches 0.2563, usually 0.4012 ± 0.0675; a refit helps."


def write_release(number: int, version: int, at: int, **more) -> None:
    """Write an entry of the release log as one that was written at a time (ms)."""
    before = None
    if version > 1:
        before = version - 1
    entry = {"model": MODEL, "number": number, "champion": version, "previous": before}
    entry |= {"watermark": FIRST + (version - 1) * WEEK, "at": at, "who": "proud-otter"}
    entry |= {"reason": "recall@20 gains 0.0421 [+0.0312, +0.0529] over the live version."}
    release = Release.model_validate(entry | more)
    fs, path = object_store.locate(settings().releases, MODEL, f"{number}.json")
    object_store.create(fs, path, release.model_dump_json().encode())


def write_releases(versions: int) -> None:
    """A version goes live each week, and the last is in an A/B test."""
    for version in range(1, versions + 1):
        write_release(version, version, FIRST + (version - 1) * WEEK + 2 * HOUR_MS)
    start = FIRST + versions * WEEK - 2 * DAY_MS
    about = {"challenger": versions + 1, "share": 0.1, "who": "Ada"}
    write_release(versions + 1, versions, start, **about, reason="A/B test: 10.0% of the users.")


def write_windows(weeks: int) -> None:
    """Twelve windows a week, whose live quality falls until the next release."""
    frames = []
    for number in range(weeks * 12):
        end = FIRST + (number + 1) * STEP
        version = number // 12 + 1
        wave = 0.02 * math.sin(number / 3)
        values = {SPEC.metric: 0.44 - 0.006 * (number % 12) + wave, tables.BASELINE: 0.36 + wave}
        values[tables.FIRST_VERSION] = max(0.14, 0.44 - 0.008 * number) + wave
        values["regret"] = 0.0
        verdict = VERDICTS.get(number, "stable")
        place = (MODEL, version, end - WEEK + 1, end, WEEK)
        frames.append(calibration.signal_rows(*place, verdict, values))
    journal.append_once(tables.WINDOWS, "story", pl.concat(frames))


def decision(version: int, holdout: int, outcome: str, mean: float) -> pl.DataFrame:
    """A row of the table `decisions`, of a hold-out that ends at `holdout` (ms)."""
    lineage = Lineage(
        key="", table="events", table_version=1, start=0, holdout=holdout - DAY_MS,
        watermark=holdout, digest="",
    )  # fmt: skip
    judged = Version(model=MODEL, number=version, run_id="", digests={}, lineage=lineage)
    gain = Interval(mean=mean, low=mean - 0.011, high=mean + 0.011)
    numbers = {"challenger": 0.41, "champion": 0.37, "baseline": 0.36, "gain": gain}
    reasons = ["The whole interval lies above zero."]
    if version == 1:
        numbers |= {"champion": None, "gain": None}
        reasons = ["Nothing is live, and it is no worse than the trivial baseline."]
    numbers |= {"over_baseline": Interval(mean=0.05, low=0.04, high=0.06), "champion_version": 1}
    verdict = Decision(outcome=outcome, reasons=reasons, metric=SPEC.metric, **numbers)
    return as_row(judged, verdict)


def write_decisions(versions: int) -> None:
    """All are promoted but two."""
    rows = []
    for version in range(1, versions + 1):
        end = FIRST + (version - 1) * WEEK
        rows.append(decision(version, end, "promote", 0.02 + 0.004 * (version % 5)))
    rows.append(decision(versions + 1, end + 3 * DAY_MS, "inconclusive", 0.004))
    rows.append(decision(versions + 2, end + 5 * DAY_MS, "refuse", -0.018))
    journal.append_once(DECISIONS, "story", pl.concat(rows))


def write_alarms(count: int = 1, reason: str = EVIDENCE) -> None:
    """Alarms, one after the other."""
    rows = []
    for number in range(count):
        end = FIRST + (10 + 12 * number) * STEP
        row = {"model": MODEL, "version": 1, "start": end - WEEK, "end": end, "groups": 900}
        row |= {"verdict": "concept drift", "reason": reason, "action": policy.ASKED, "asks": True}
        rows.append(row)
    journal.append_once(tables.ALARMS, "story", pl.DataFrame(rows))


def write_status(version: int, end: int, verdict: str = "stable", wait: str = "") -> None:
    """The newest look of the monitor."""
    look = status.MonitorStatus(
        model=MODEL, version=version, end=end, at=end + HOUR_MS, verdict=verdict, wait=wait
    )
    status.write(look)


def write_opinions() -> None:
    """A fault that grew from look to look, and a person who trusts another stretch."""
    start, end = FAULT
    for hours in (2, 1, 0):
        reason = f"A placeholder: 41 % of the right answers are article 0 ({hours})."
        exclusions.exclude(SPEC.table.name, start, end - hours * HOUR_MS, reason)
    sale = {"start": FIRST + 40 * DAY_MS, "end": FIRST + 42 * DAY_MS, "at": FIRST + 43 * DAY_MS}
    verdict = HumanVerdict(table=SPEC.table.name, who="Ada", reason="It was a sale.", **sale)
    exclusions.record_verdict(verdict)


def write_answers(version: int, now: int) -> None:
    """Answers of an A/B test; every fourth of the champion was clicked, every third of the
    other."""
    shown = []
    clicks = []
    for number in range(240):
        variant = ("champion", "challenger")[number % 2]
        about = {"request_id": f"r{number}", "ts": now - number * HOUR_MS // 4, "model": MODEL}
        about |= {"version": version + number % 2, "variant": variant}
        shown.append(about | {"user": f"u{number}", "items": "[5]", "latency_ms": 1.0})
        if number % 8 in (0, 1, 5):
            clicks.append(about | {"ts": about["ts"] + 60_000, "kind": "click", "item": "5"})
    for table, lines in ((exposures.EXPOSURES, shown), (exposures.FEEDBACK, clicks)):
        raws = [json.dumps(line).encode() for line in lines]
        lake.load_file(table, File(f"{table.name}.jsonl", raws))


def write_looks(release: int, begin: int, outcome: str = "running") -> None:
    """Five looks at the A/B test that begins with a release, a day apart; the last one says the
    outcome."""
    counts = Counts(
        assigned={"champion": 9_000, "challenger": 1_000},
        answered={"champion": 9_000, "challenger": 1_000},
        answers=40_000,
        anonymous_answers=0,
        users_in_both=0,
        busy_users=0,
    )
    for day in range(1, 6):
        error = 0.02 / day**0.5
        gap = Gap(
            difference=0.01,
            variance=error**2,
            unadjusted_variance=error**2,
            champion_rate=0.25,
            error=0.1,
        )
        look = Look(
            number=day,
            days=day,
            at=begin + day * DAY_MS,
            assigned=Users(**counts.assigned),
            answered=Users(**counts.answered),
            kpi=gap,
        )
        each = outcome if day == 5 else "running"
        verdict = Verdict(
            outcome=each,
            reason=f"Day {day}.",
            low=0.01 - 3 * error,
            high=0.01 + 3 * error,
            harm_bound=-3.4 * error,
            benefit_bound=4 * error,
        )
        record.write(
            Record(model=MODEL, release=release, look=look, counts=counts, verdict=verdict)
        )


def put_batch(
    window: str, asked: int, refused: int = 0, model: str = MODEL, **where
) -> tuple[Batch, DataFile]:
    """A batch of version 1 with answers and refusals, and its file, which is not visible yet;
    `where` are other fields of the batch."""
    place = f"{model}-1-{window}"
    name = f"{place}-{where.get('table_version', 0)}"
    fields = {"name": name, "place": place, "model": model, "version": 1, "onnx": "0" * 64}
    fields |= {"source": "events", "ts": FIRST + WEEK - 1, "units": asked + refused}
    batch = Batch.model_validate(fields | where)
    names = [str(number) for number in range(asked)]
    refusals = [(f"bad {number}", "bad", "Line 1: no.") for number in range(refused)]
    questions = Questions(names, names, {}, refusals=refusals)
    rows = answers.rows(batch, questions, ['{"items": [5]}'] * asked)
    return batch, data_files.put(answers.ANSWERS, {answers.BATCH: batch.name}, rows)


def write_batch(window: str, asked: int, refused: int = 0, clicked: int = 0, **where) -> Batch:
    """The same, visible, with clicks on some answers."""
    batch, file = put_batch(window, asked, refused, **where)
    answers.commit(batch, [file])
    if clicked:
        react(batch, clicked)
    return batch


def react(batch: Batch, clicked: int) -> None:
    """Clicks on the first answers of a batch, two hours later."""
    given = answers.read(batch.name).filter(pl.col("answer").is_not_null())
    lines = [
        {"request_id": request_id, "ts": batch.ts + 2 * HOUR_MS, "model": batch.model}
        | {"version": batch.version, "variant": "champion", "kind": "click", "item": "5"}
        for request_id in given["request_id"][:clicked]
    ]
    raws = [json.dumps(line).encode() for line in lines]
    lake.load_file(exposures.FEEDBACK, File(f"{batch.name}.jsonl", raws))


def write_batches() -> None:
    """A batch of a window whose answers were clicked, and one of a file with bad lines."""
    window = {"table_version": 3, "start": FIRST + 6 * DAY_MS, "end": FIRST + WEEK}
    write_batch("window", 1_200, clicked=300, **window)
    write_batch("file", 10, refused=2, source="s3://shop/requests/2026-10-05.jsonl.gz", stamp="s")


def write(weeks: int = 6) -> None:
    """A whole story of so many weeks, with a question at its end."""
    end = FIRST + weeks * 12 * STEP
    write_releases(weeks)
    write_windows(weeks)
    write_decisions(weeks)
    write_alarms(max(1, weeks // 3))
    write_opinions()
    write_answers(weeks, end)
    write_looks(weeks + 1, FIRST + weeks * WEEK - 2 * DAY_MS)
    write_batches()
    question = f"{MODEL} version {weeks + 3} may go live. The whole interval lies above zero."
    approvals.record(MODEL, weeks + 3, "asked", question)
    write_status(weeks, end)
