"""Does the loop close again by itself, whatever breaks in the middle of a retraining?

`python -m benchmarks.faults` starts the stack as `make up` does, with all its own waits, leases and
heartbeats. Its shop has a small model that takes 6 seconds to train. Each of RUNS runs begins a
retraining by an event. Something breaks at a random moment of it: `fault_points.py` has the points.
Where a server was killed, `make up` follows after up to a minute, and nothing else.

Then new data arrives, and one more event. The loop has closed when the gateway answers with a
version that has learnt of this data, and no retraining is left that waits, runs, or has crashed
without a successor. A loop that needs more than 10 minutes is stuck; the next run gets a new one.
Clients ask the gateway all the time. After each run, `fault_checks.py` looks for violations of what
must be true whatever has happened; and once more two and a half minutes after the last one.

A run has a seed of its own, so that it can be repeated alone, on a fresh stack:
`python -m benchmarks.faults --runs 1 --seed SEED --points POINT`. A line a run says number, seed,
point, moment, seconds until the loop had closed, and verdict. The last line is JSON. The exit code
is 1 if a run was stuck or violated something; then the homes stay, for the logs in them.
"""

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from benchmarks import fault_checks, fault_loop
from benchmarks.crowd import Crowd
from benchmarks.fault_data import QUESTION
from benchmarks.fault_loop import MODEL, OPEN, PATIENCE, Loop, type_of
from benchmarks.fault_points import POINTS
from demo.waiting import until
from kreislauf.release import releases
from tasks.recover import successor_key

RUNS = 60
SEED = 22
PAUSE = 1.0
"""Seconds between two requests of a client."""
AFTERMATH = 150
"""Seconds after the last run in which nothing that has ended may begin again: recover needs 135
until it calls a run crashed."""


@dataclass(frozen=True)
class Plan:
    """A run: its number, its seed, and what breaks."""

    number: int
    seed: int
    point: str


@dataclass
class Outcome:
    """What came of a run."""

    plan: Plan
    moment: str = ""
    states: list[str] = field(default_factory=list)
    """What became of its retrainings, the oldest first."""
    seconds: float | None = None
    """Time until the loop had closed; None if it did not."""
    problem: str = ""
    """Why it did not."""
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        closed = "stuck"
        if self.seconds is not None:
            closed = f"closed in {self.seconds:.0f} s"
        verdict = "; ".join(filter(None, [self.problem, *self.violations])) or "ok"
        plan = self.plan
        states = f"retrainings {' '.join(self.states)}"
        name = f"{plan.number:3} seed {plan.seed} {plan.point}"
        return f"{name}: {self.moment}; {states}; {closed}; {verdict}"


def plans(runs: int, seed: int, points: Sequence[str]) -> list[Plan]:
    """Each point equally often, in an order that is drawn anew each time."""
    order: list[str] = []
    while len(order) < runs:
        turn = list(points)
        random.Random(seed + len(order)).shuffle(turn)
        order += turn
    return [Plan(n + 1, seed + n, point) for n, point in enumerate(order[:runs])]


@dataclass
class Account:
    """What is wrong with a loop, and was not before."""

    loop: Loop
    crowd: Crowd
    former: set[str] = field(default_factory=set)

    def violations(self) -> list[str]:
        """What the checks say and have not said before."""
        problems = fault_checks.violations(self.loop, self.crowd.responses)
        fresh = [problem for problem in problems if problem not in self.former]
        self.former.update(problems)
        return fresh


def closed(loop: Loop) -> bool:
    """Whether the newest data is served, and nothing of the retrainings is left to be done."""
    live = releases.current(MODEL)
    if live is None or live.watermark != loop.watermark:
        return False
    retrainings = loop.retrainings()
    keys = {run.idempotency_key for run in retrainings}
    is_over = not any(
        type_of(run) in OPEN or (type_of(run) == "CRASHED" and successor_key(run) not in keys)
        for run in retrainings
    )
    return is_over and serves(loop, live.champion)


def serves(loop: Loop, version: int) -> bool:
    """Whether the gateway answers with the version."""
    try:
        response = httpx.post(loop.gateway, json=QUESTION, timeout=10)
    except httpx.HTTPError:
        return False
    answer = response.json()
    return (answer.get("version"), answer.get("variant")) == (version, "champion")


def strike(loop: Loop, account: Account, plan: Plan) -> Outcome:
    """One run."""
    outcome = Outcome(plan)
    before = {run.id for run in loop.retrainings()}
    try:
        outcome.moment = POINTS[plan.point](loop, random.Random(plan.seed))
        began = time.monotonic()
        loop.arrive()
        loop.emit()
        until(lambda: closed(loop), PATIENCE, "the loop closes")
        outcome.seconds = time.monotonic() - began
        if outcome.seconds > PATIENCE:
            raise TimeoutError(f"the loop closes: not within {PATIENCE:.0f} s")
        new = [run for run in reversed(loop.retrainings()) if run.id not in before]
        outcome.states = [type_of(run) for run in new]
        ends = [run for run in new if type_of(run) == "COMPLETED"]
        # On a machine with much else to do, a retraining takes longer than the last time.
        seconds = [run.total_run_time.total_seconds() for run in ends]
        loop.length = max(seconds, default=loop.length)
        outcome.violations = account.violations()
    except (TimeoutError, RuntimeError, httpx.HTTPError) as error:
        outcome.seconds = None
        outcome.problem = f"{type(error).__name__}: {error}"
    return outcome


@contextmanager
def stage(home: Path) -> Iterator[Account]:
    """A loop, with clients that ask its gateway."""
    try:
        loop = fault_loop.start(home)
        with Crowd(loop.gateway, [QUESTION], PAUSE) as crowd:
            yield Account(loop, crowd)
            answers = [response.body.get("variant") for response in crowd.responses]
            print(f"{len(answers)} requests, {answers.count('fallback')} fallbacks", flush=True)
    finally:
        Loop(home, os.environ).down()


def outcomes(todo: Sequence[Plan], folder: Path) -> Iterator[Outcome]:
    """What comes of each run. A loop that is stuck is replaced."""
    left = list(todo)
    while left:
        with stage(folder / f"from-run-{left[0].number}") as account:
            is_closed = True
            while left and is_closed:
                outcome = strike(account.loop, account, left.pop(0))
                is_closed = outcome.seconds is not None
                if is_closed and not left:
                    time.sleep(AFTERMATH)
                    outcome.violations += account.violations()
                yield outcome


def summary(results: Sequence[Outcome]) -> dict:
    """What the JSON line has."""
    by_point: dict[str, list[float]] = {}
    for result in results:
        seconds = by_point.setdefault(result.plan.point, [])
        if result.seconds is not None:
            seconds.append(round(result.seconds))
    closings = [seconds for each in by_point.values() for seconds in each]
    return {
        "runs": len(results),
        "points": len(by_point),
        "stuck": sum(result.seconds is None for result in results),
        "violations": sum(len(result.violations) for result in results),
        "median_seconds": statistics.median(closings) if closings else None,
        "slowest_seconds": max(closings, default=None),
        "seconds": by_point,
    }


def main() -> None:
    """See the module."""
    description = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=description)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--seed", type=int, default=SEED, help="of the first run")
    parser.add_argument("--points", nargs="+", choices=POINTS, default=list(POINTS))
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    # Who ends this ends the stack, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    results = []
    for outcome in outcomes(plans(given.runs, given.seed, given.points), folder):
        print(outcome, flush=True)
        results.append(outcome)
    result = summary(results)
    is_clean = not result["stuck"] and not result["violations"]
    if is_clean:
        shutil.rmtree(folder)
    else:
        print(f"The homes with their logs are in {folder}.")
    print(json.dumps(result))
    sys.exit(not is_clean)


if __name__ == "__main__":
    main()
