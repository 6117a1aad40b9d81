"""A process that promotes and publishes as ordered on standard input, in a fork that is killed
before a given step.

Forks, because a new process would need seconds for its imports. `{"model", "version", "step",
"env"}` is answered with "killed" or, when the run had fewer steps that change something, with
"done". Without a version it looks at the A/B tests if the order has "look", and else retrains.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import evidently.presets  # noqa: F401
import mlflow.onnx  # noqa: F401
import onnxruntime  # noqa: F401
import tritonclient.grpc  # noqa: F401
from mlflow import MlflowClient
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from flows.look import look
from flows.promote import promote
from flows.publish import publish
from flows.retrain import retrain
from kreislauf import events, registry
from kreislauf.lake import journal
from kreislauf.registry import artifacts
from kreislauf.release import golden, releases, triton

CHANGES = [
    (golden, "write_golden"),
    (registry, "register"),
    (MlflowClient, "create_model_version"),
    (journal, "append_once"),
    (artifacts, "attach"),
    (events, "emit_model_event"),
    (registry, "record_decision"),
    (triton, "add_version"),
    (triton, "keep_warm_up"),
    (triton, "load"),
    (triton, "keep"),
    (triton, "serve"),
    (triton, "ask"),
    (releases, "append"),
    (registry, "mirror"),
    (MlflowClient, "set_model_version_tag"),
    (MlflowClient, "set_registered_model_alias"),
    (MlflowClient, "delete_registered_model_alias"),
]
"""Whatever promote and publish change, the end of a training, and the question before they trust
Triton."""


def doomed(step: int) -> None:
    """From now on the process is killed before the change number `step`, counted from 1."""
    left = [step]

    def counted(change: Callable) -> Callable:
        def called(*arguments: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return change(*arguments, **named)

        return called

    for place, name in CHANGES:
        setattr(place, name, counted(getattr(place, name)))


def run(order: dict) -> str:
    """In a fork: the parent must not have threads."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0, (
            "the flow failed: see standard error"
        )
        return "killed" if os.WIFSIGNALED(status) else "done"
    os.environ.update(order["env"])
    doomed(order["step"])
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        if "version" in order:
            promote(order["model"], order["version"])
            publish(order["model"], order["version"])
        elif "look" in order:
            look(maturity_minutes=0)
        else:
            retrain(order["model"])
    # Without the farewells of libraries that the parent has imported.
    os._exit(0)


if __name__ == "__main__":
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
