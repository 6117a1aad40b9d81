"""A process that publishes as ordered on standard input, a JSON line each, and answers with the
outcome."""

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
        order = json.loads(line)
        os.environ["KREISLAUF_RELEASES"] = order["releases"]
        try:
            publish(order["model"], order["version"])
            outcome = "published"
        except (permission.PublishRefused, releases.ReleaseConflict) as error:
            outcome = type(error).__name__
        print(json.dumps(outcome), flush=True)


if __name__ == "__main__":
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        main()
