"""`make demo`: the whole loop on this machine, as a story in six acts, or on real sessions.

`make demo MODELS=all` goes on with the shop's other two systems. `make demo DATA=path/to/events
MAPPING=shop.yaml` replays real events week by week. State lies in .kreislauf/demo and is fresh at
each start; servers that an earlier demo left running are stopped first.
"""

import argparse
import atexit
import gc
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import polars as pl

from deployments import first_model, processes, stack, status
from kreislauf import lake, sources
from kreislauf.evaluation import split
from kreislauf.release import lifecycle_page
from models import mapping as mappings
from models import spec
from models.mapping import Mapping
from models.spec import ModelSpec

Everything = Callable[[], dict[str, dict]]
"""Waits until all servers run, and returns their records by name."""
FIRST = ("prefect", "mlflow")
"""Servers that a training needs. The others start while the first model is trained."""


MAX_REJECT_SHARE = 0.1
"""Maximum share of bad lines of a file of real events, as in the flow ingest."""


@dataclass(frozen=True)
class Narrator:
    """Prints what happens, and when."""

    began: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self.began

    def say(self, text: str) -> None:
        """Print a line with its time."""
        print(f"[{self.seconds:5.0f} s] {text}", flush=True)


def main() -> None:
    """Start the stack, play the story or replay real sessions, print the summary, and stop the
    stack."""
    # The garbage collection at exit would take more than ten seconds after the last line.
    atexit.register(gc.freeze)
    arguments = parse()
    model_type, reading = mappings.find(arguments.mapping, None)
    narrator = Narrator()
    home = stack.ROOT / ".kreislauf" / "demo"
    try:
        with started(home, narrator, model_type.name) as everything:
            if arguments.data:
                events = load_shop(model_type, arguments.data, reading, narrator)
                result = run_replay(model_type.name, events, home, narrator, everything)
            else:
                result = run_story(home, narrator, everything)
            if arguments.models:
                systems = run_systems(home, narrator, everything, len(result["acts"]))
                result = {model_type.name: result, **systems}
            print(json.dumps(result), flush=True)
            if arguments.keep:
                print(f"{status.show(processes.read(home))}", flush=True)
                print("The UIs stay up until you press Ctrl-C.", flush=True)
                signal.pause()
    except (
        sources.SourceError,
        lake.LakeError,
        split.TooSmall,
        processes.StartError,
    ) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        narrator.say("stopped")


@contextmanager
def started(home: Path, narrator: Narrator, model: str = spec.DEFAULT) -> Iterator[Everything]:
    """A fresh stack in `home`, and an environment that leads this process to it. Within, the
    servers that a training needs answer; what is yielded waits for the others. Raises StartError.
    """
    # The demo leaves alone a lake or Triton that the shell points to.
    for name in [name for name in os.environ if name.startswith("KREISLAUF_")]:
        del os.environ[name]
    start_fresh(home)
    try:
        with ThreadPoolExecutor(1) as pool:
            narrator.say(
                "starting Postgres, Prefect, MLflow, Triton, the gateway and a worker on 127.0.0.1"
            )
            starting = pool.submit(start_all, home)
            starting.add_done_callback(partial(say_where_the_page_is, narrator, model))
            import_training(model)
            running = wait_for_first(home, starting)
            for name in FIRST:
                narrator.say(f"{name}: {running[name]['url']}")
            os.environ.update(
                stack.client_env(home, running)
                | {"PREFECT_LOGGING_LEVEL": "WARNING", "MLFLOW_LOGGING_LEVEL": "WARNING"}
            )
            yield starting.result
    finally:
        stack.down(home)


def start_all(home: Path) -> dict[str, dict]:
    """Start all servers, and pause the schedules of the deployments: the shop's days pass in
    seconds, so the next hour is not the time to look at it again. Returns what runs, by name.
    Raises StartError."""
    running = stack.up(home)
    api = running["prefect"]["api"]
    for deployment in httpx.post(f"{api}/deployments/filter", json={}).raise_for_status().json():
        httpx.post(f"{api}/deployments/{deployment['id']}/pause_deployment").raise_for_status()
    return running


def say_where_the_page_is(narrator: Narrator, model: str, starting: Future) -> None:
    """Say where the gateway shows the lifecycle page of a model type, unless the servers did not
    start."""
    if not starting.exception():
        gateway = starting.result()["gateway"]["url"]
        narrator.say(f"lifecycle page, to reload: {gateway}/models/{model}")


def import_training(model: str) -> None:
    """Import what a training of the story needs: it takes seconds, in which servers start. Nothing
    of it reads where they are."""
    if model == spec.DEFAULT:
        import_module("models.session_recommender.training")


def wait_for_first(home: Path, starting: Future) -> dict[str, dict]:
    """Return what runs once the servers `FIRST` answer. Raises StartError, as `starting` does."""
    while True:
        running = processes.read(home)
        if all(name in running and processes.answers(running[name]["probe"]) for name in FIRST):
            return running
        if starting.done():
            starting.result()
        time.sleep(0.1)


def run_story(home: Path, narrator: Narrator, everything: Everything) -> dict:
    """Play the six acts and return the summary."""
    from demo import story
    from demo.loop import Loop

    loop = Loop(home / "shop", everything)
    acts = []
    first_live_seconds = 0.0
    for number, act in enumerate(story.acts(loop), 1):
        first_live_seconds = first_live_seconds or narrator.seconds
        narrator.say(act.line(number))
        acts.append(act.happened)
    narrator.say(story.epilogue(loop))
    return {
        **loop.summary(),
        "acts": acts,
        "first_live_seconds": round(first_live_seconds),
        "seconds": round(narrator.seconds),
    }


def run_systems(home: Path, narrator: Narrator, everything: Everything, acts: int) -> dict:
    """Let the shop's other systems go through a season, after so many `acts` of the story. Returns
    the summary of each by its model type, and the seconds since the beginning."""
    from demo import systems

    summaries: dict[str, Any] = {}
    for number, system in enumerate(systems.SYSTEMS, acts + 1):
        narrator.say(f"lifecycle page: {everything()['gateway']['url']}/models/{system.model}")
        season = systems.play(system, home / "shop" / system.model)
        narrator.say(season.act().line(number))
        summaries[system.model] = season.summary()
    return summaries | {"seconds": round(narrator.seconds)}


def run_replay(
    model: str, events: pl.DataFrame, home: Path, narrator: Narrator, everything: Everything
) -> dict:
    """Replay real `events` week by week, and return the summary."""
    from demo import raw_files
    from demo.replay import replay, summary

    files, period_days = raw_files.split_by_time(events, home / "shop")
    narrator.say(
        f"{events['session'].n_unique()} sessions: a history, "
        f"then {len(files) - 1} periods of {period_days:.1f} days"
    )
    periods = []
    narrator.say("period  recall live (first model, table)  version  what happened")
    for period in replay(model, files, period_days, narrator.say, everything):
        periods.append(period)
        narrator.say(
            f"{period.number:6d}  {period.live_recall:.4f} "
            f"({period.frozen_recall:.4f}, {period.table_recall:.4f})  "
            f"version {period.version}  {period.finding} -> {period.trigger}: {period.story}"
        )
    narrator.say(f"the lifecycle page, which needs no server: {lifecycle_page.address(model)}")
    return summary(model, periods)


def parse() -> argparse.Namespace:
    """The arguments. Ends the program if DATA cannot be read by MAPPING."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--data", help="a shop's events: what the flow ingest takes")
    parser.add_argument("--mapping", help="a YAML file that says what their columns are")
    parser.add_argument(
        "--keep", action="store_true", help="keep the UIs up at the end until Ctrl-C"
    )
    parser.add_argument(
        "--models", choices=["all"], help="go on with the search results and the support answers"
    )
    arguments = parser.parse_args()
    if arguments.models and arguments.data:
        parser.error("DATA are events of one model type: leave MODELS out.")
    first_model.check(arguments.data, arguments.mapping)
    return arguments


def start_fresh(home: Path) -> None:
    """Stop the servers that an earlier demo left running, and remove its state."""
    stack.down(home)
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)


def load_shop(
    model_type: ModelSpec, data: str, mapping: Mapping | None, narrator: Narrator
) -> pl.DataFrame:
    """The events of `data`, as the flow ingest would load them, in a table of their own. Raises
    SourceError and LakeError."""
    table = replace(model_type.table, name=f"demo_{model_type.table.name}")
    loads = [
        lake.load_file(table, sources.open_file(path, table, mapping), MAX_REJECT_SHARE)
        for path in sources.find(data, mapping).raw_files
    ]
    counts = lake.total(loads)
    narrator.say(
        f"{data}: {counts.rows_kept} events, {counts.rows_duplicate} duplicates, "
        f"{counts.lines_rejected} of {counts.lines_in} lines rejected"
    )
    for reason in counts.reasons:
        narrator.say(f"{reason.lines} lines: {reason.rule}")
    return lake.read(table)


if __name__ == "__main__":
    main()
