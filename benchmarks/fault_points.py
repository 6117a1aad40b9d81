"""What happens to a loop in the middle of a retraining, for `faults.py`.

Each point begins a retraining, does something to it at a moment that `chance` draws, and returns
the moment in words. What a person would do then, it does too: `make up` where a server was killed,
nothing else.
"""

import random
import shutil
import signal
import time
from collections.abc import Callable

import psutil
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling

from benchmarks.fault_loop import MODEL, PATIENCE, Loop, send
from demo.waiting import until
from kreislauf import registry
from kreislauf.registry import runs
from kreislauf.release import releases
from tasks.recover import successor_key

MAX_PENDING = 4.0
"""Longest time, in seconds, that a run has been PENDING: it is for about 6."""
MAX_DOWN = 60.0
"""Longest time, in seconds, until somebody starts a killed server again."""
STOPPED = (60.0, 360.0)
"""Shortest and longest time, in seconds, for which everything is stopped. A lease lasts 300."""
EARLY = 0.5
"""Share of a retraining before which a person cancels it, so that it has not completed."""


def moment(loop: Loop, chance: random.Random) -> tuple[FlowRun, str]:
    """A retraining at a random moment of its work."""
    run = loop.begin()
    loop.reach(run, "RUNNING")
    share = chance.random()
    time.sleep(share * loop.length)
    return run, f"RUNNING for {share * loop.length:.1f} s ({share:.0%})"


def down_for(loop: Loop, chance: random.Random) -> str:
    """What was killed is down for a while, then `make up`."""
    seconds = chance.random() * MAX_DOWN
    time.sleep(seconds)
    loop.up()
    return f", down for {seconds:.0f} s"


def pending(loop: Loop, chance: random.Random) -> str:
    """Prefect's server is killed while a run is PENDING."""
    loop.reach(loop.begin(), "PENDING")
    seconds = chance.random() * MAX_PENDING
    time.sleep(seconds)
    loop.kill("prefect")
    return f"PENDING for {seconds:.1f} s" + down_for(loop, chance)


def service(name: str) -> Callable[[Loop, random.Random], str]:
    """A point at which a server is killed while a retraining runs."""

    def point(loop: Loop, chance: random.Random) -> str:
        _, text = moment(loop, chance)
        loop.kill(name)
        return text + down_for(loop, chance)

    return point


def process(loop: Loop, chance: random.Random) -> str:
    """The process of the run is killed."""
    run, text = moment(loop, chance)
    loop.kill_run(run)
    return text


def everything(loop: Loop, chance: random.Random) -> str:
    """Everything is killed, as by a loss of power."""
    _, text = moment(loop, chance)
    with loop.outage():
        send(loop.all_processes(), signal.SIGKILL)
        return text + down_for(loop, chance)


def stopped(loop: Loop, chance: random.Random) -> str:
    """Everything is stopped and goes on later, as on a laptop that sleeps."""
    _, text = moment(loop, chance)
    seconds = chance.uniform(*STOPPED)
    with loop.outage():
        members = loop.all_processes()
        send(members, signal.SIGSTOP)
        time.sleep(seconds)
        send(members, signal.SIGCONT)
    return f"{text}, stopped for {seconds:.0f} s"


def cancelled(loop: Loop, chance: random.Random) -> str:
    """A person cancels a run that has taken a crashed one up."""
    run, text = moment(loop, chance)
    loop.kill_run(run)

    def successors() -> list[FlowRun]:
        return [r for r in loop.retrainings() if r.idempotency_key == successor_key(run)]

    until(successors, PATIENCE, f"{run.name} is taken up")
    (successor,) = successors()
    loop.reach(successor, "RUNNING")
    seconds = chance.random() * EARLY * loop.length
    time.sleep(seconds)
    loop.client.set_flow_run_state(successor.id, Cancelling())
    loop.reach(successor, "CANCELLED", "COMPLETED")
    return f"{text}, its successor cancelled after {seconds:.1f} s"


def question(loop: Loop, chance: random.Random) -> str:
    """The worker is killed while a person is asked whether a version goes live."""
    loop.arrive()
    run = loop.start("retrain", model=MODEL, approval="manual")
    loop.reach(run, "COMPLETED")
    if not registry.versions(MODEL)[0].question:
        raise RuntimeError(f"{run.name} has asked nobody.")
    seconds = chance.random() * loop.length
    time.sleep(seconds)
    loop.kill("worker")
    return f"asked for {seconds:.1f} s" + down_for(loop, chance)


def deleted(loop: Loop, chance: random.Random) -> str:
    """A person deletes the previous version in MLflow."""
    _, text = moment(loop, chance)
    live = releases.current(MODEL)
    assert live
    if live.previous and registry.lookup(MODEL, live.previous):
        runs.client().delete_model_version(MODEL, str(live.previous))
    return f"{text}, version {live.previous} deleted"


def triton(loop: Loop, chance: random.Random) -> str:
    """Triton is killed; who watches over it starts it anew."""
    _, text = moment(loop, chance)
    send(triton_processes(loop), signal.SIGKILL)
    return text


def emptied(loop: Loop, chance: random.Random) -> str:
    """Triton is killed and starts anew with an empty repository."""
    _, text = moment(loop, chance)
    shutil.rmtree(loop.home / "triton" / MODEL)
    send(triton_processes(loop), signal.SIGKILL)
    return text


def triton_processes(loop: Loop) -> list[psutil.Process]:
    """Triton itself, without who watches over it."""
    (watcher,) = [p for p in loop.all_processes() if p.pid == loop.running["triton"]["pid"]]
    return watcher.children()


POINTS = {
    "server-pending": pending,
    "server": service("prefect"),
    "worker": service("worker"),
    "process": process,
    "everything": everything,
    "stopped": stopped,
    "cancelled": cancelled,
    "question": question,
    "deleted": deleted,
    "triton": triton,
    "triton-empty": emptied,
    "mlflow": service("mlflow"),
}
"""Points by name."""
