"""A process that publishes what it is told on standard input, one JSON line each, and answers what
came of it."""

import json
import os
import sys

from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from flows.publish import publish
from kreislauf.release import permission, releases


def main() -> None:
    """`{"model", "version", "releases"}` to `"published"`, or to the name of what was raised."""
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        told = json.loads(line)
        os.environ["KREISLAUF_RELEASES"] = told["releases"]
        try:
            publish(told["model"], told["version"])
            outcome = "published"
        except (permission.PublishRefused, releases.ReleaseConflict) as error:
            outcome = type(error).__name__
        print(json.dumps(outcome), flush=True)


if __name__ == "__main__":
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        main()
