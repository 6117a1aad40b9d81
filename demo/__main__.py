"""`make demo`: the whole loop on this machine, on a simulated shop or on real sessions.

`make demo DATA=path/to/sessions.jsonl.gz` takes real ones. State lies in .kreislauf/demo and is
fresh at each start; servers that an earlier demo left running are stopped first.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import polars as pl

from deployments import processes, stack, status
from kreislauf import sources
from kreislauf.evaluation import split
from kreislauf.lake.validate import validate_lines

PAGE = "kreislauf-demo.html"


def main() -> None:
    """Start the stack, replay the shop, print the summary, and stop the stack."""
    arguments = parse()
    # The demo leaves alone a lake or Triton that the shell points to.
    for name in [name for name in os.environ if name.startswith("KREISLAUF_")]:
        del os.environ[name]
    began = time.monotonic()
    home = stack.ROOT / ".kreislauf" / "demo"

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:5.0f} s] {text}", flush=True)

    start_fresh(home)
    try:
        with ThreadPoolExecutor(1) as pool:
            shop = pool.submit(load_shop, arguments.data)
            say("starting Postgres, Prefect, MLflow, Triton, the gateway and a worker on 127.0.0.1")
            running = stack.up(home)
            events = shop.result()
        for name in ("prefect", "mlflow"):
            say(f"{name}: {running[name]['url']}")
        os.environ.update(
            stack.client_env(home, running)
            | {"PREFECT_LOGGING_LEVEL": "WARNING", "MLFLOW_LOGGING_LEVEL": "WARNING"}
        )
        print(json.dumps(run(events, home, say)), flush=True)
        if arguments.keep:
            print(f"{status.show(running)}\nThe UIs stay up until you press Ctrl-C.", flush=True)
            signal.pause()
    except (sources.SourceError, split.TooSmall, processes.StartError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        say("stopped")
    finally:
        stack.down(home)


def run(events: pl.DataFrame, home: Path, say) -> dict:
    """Replay `events`, write the page, and return the summary."""
    from demo.page import write_page
    from demo.replay import replay, split_by_time, summary

    files, period_days = split_by_time(events, home / "shop")
    say(
        f"{events['session'].n_unique()} sessions: a history, "
        f"then {len(files) - 1} periods of {period_days:.1f} days"
    )
    periods = []
    say("period  recall live (first model, table)  version  what happened")
    for period in replay(files, period_days, say):
        periods.append(period)
        say(
            f"{period.number:6d}  {period.live_recall:.4f} "
            f"({period.frozen_recall:.4f}, {period.table_recall:.4f})  "
            f"version {period.version}  {period.finding} -> {period.trigger}: {period.story}"
        )
    result = summary(periods)
    page = write_page([asdict(period) for period in periods], result, home / PAGE)
    say(f"the story with its curves: {page}")
    return result


def parse() -> argparse.Namespace:
    """The arguments. Ends the program if DATA is no file."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument(
        "--data", type=Path, help="real sessions in OTTO's format, jsonl or jsonl.gz"
    )
    parser.add_argument(
        "--keep", action="store_true", help="keep the UIs up at the end until Ctrl-C"
    )
    arguments = parser.parse_args()
    if arguments.data and not arguments.data.is_file():
        sys.exit(
            f"{arguments.data} is no file: DATA wants sessions in OTTO's format, "
            "one JSON object per line."
        )
    return arguments


def start_fresh(home: Path) -> None:
    """Stop the servers that an earlier demo left running, and remove its state."""
    stack.down(home)
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)


def load_shop(data: Path | None) -> pl.DataFrame:
    """Events of `data`, or of the simulated shop. Raises SourceError for a bad line."""
    if data is None:
        from demo.shop import simulate

        return simulate()
    from models.session_recommender.schema import EVENTS

    judged = validate_lines(EVENTS, list(sources.open_file(str(data), EVENTS.line).chunks()))
    for bad in judged.rejected.head(1).iter_rows(named=True):
        where = f"{data}, line {bad['line']}"
        raise sources.SourceError(
            f"{where}: {bad['rule']}. The demo wants clean data; remove this line."
        )
    return judged.rows


if __name__ == "__main__":
    main()
