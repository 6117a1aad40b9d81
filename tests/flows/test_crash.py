"""A version that ends Triton: what was live goes on, and nobody loads it again."""

import signal
from typing import Any

import numpy as np
import psutil
import pytest
from tritonclient.grpc import InferenceServerClient

from deployments import processes
from flows.experiment import experiment
from flows.ingest import ingest
from flows.promote import promote
from flows.publish import publish
from flows.train import train
from kreislauf import registry
from kreislauf.evaluation import gate
from kreislauf.release import crashes, releases, triton
from kreislauf.release.permission import PublishRefused
from kreislauf.settings import settings
from serving import live
from tests.conftest import aliases
from tests.flows.conftest import DEPARTMENTS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_harness", "mlflow_store")]


def test_a_version_that_ends_triton_twice_is_never_loaded_again(
    wordy, messages, own_triton, monkeypatch
):
    ingest(messages(0, 10), wordy)

    def trained(least: int, champion: int | None) -> int:
        version = train(wordy, {"least": least})
        decision = gate.Decision(
            outcome="promote", reasons=["A test."], metric="", champion_version=champion
        )
        return registry.record_decision(version, decision).number

    def crash(version: int) -> str:
        before = server(own_triton)
        with monkeypatch.context() as patch:
            crash_in_loads(patch, own_triton, 2)
            with pytest.raises(PublishRefused, match="ended Triton while it was loaded") as refused:
                publish(wordy, version, who="anna")
        assert not hasattr(refused.value, "__notes__"), "what was live before is live again"
        assert before.pid != server(own_triton).pid
        return str(refused.value)

    first = trained(1, None)
    reason = crash(first)
    assert releases.current(wordy) is None
    note = crashes.read(wordy, first)
    assert (note.version, note.reason) == (first, reason)

    second = trained(2, None)
    publish(wordy, second)
    third = trained(3, second)
    crash(third)
    assert [release.champion for release in releases.history(wordy)] == [second]
    assert aliases(wordy)["champion"] == second
    number, outputs = live.answer(wordy, {"message": np.array([["Größe 38 paßt nicht"]])})
    assert (number, outputs["department"].tolist()) == (second, [[DEPARTMENTS[1]]])
    folder = settings().home / "triton" / wordy
    assert {path.name for path in folder.iterdir()} >= {str(second), "config.pbtxt"}
    assert not (folder / str(third)).exists()
    assert not (folder / "warmup" / str(third)).exists()

    running = server(own_triton)
    for attempt in (lambda: publish(wordy, third), lambda: experiment(wordy, third)):
        with pytest.raises(PublishRefused, match=f"version {third} ended Triton"):
            attempt()
    assert server(own_triton).pid == running.pid
    running.kill()
    triton.wait_until_live(30)
    assert live.answer(wordy, {"message": np.array([[""]])})[0] == second
    stubs = [p for p in psutil.process_iter(["name"]) if p.info["name"].startswith("triton_python")]
    mine = [p for p in stubs if str(settings().home) in " ".join(p.cmdline())]
    assert mine, "each model has a process"
    assert {p.ppid() for p in mine} == {server(own_triton).pid}, "a crash leaves none behind"


def crash_in_loads(patch: pytest.MonkeyPatch, record: dict, count: int) -> None:
    """Let Triton crash in the next loads, as by a native bug, or a warm-up of wrong bytes."""
    load_model = InferenceServerClient.load_model
    crashes = iter(range(count))

    def crashing(client: InferenceServerClient, *args: Any, **keywords: Any) -> None:
        if next(crashes, None) is not None:
            crashed = server(record)
            crashed.send_signal(signal.SIGSEGV)
            crashed.wait(30)
        load_model(client, *args, **keywords)

    patch.setattr(InferenceServerClient, "load_model", crashing)


def test_a_triton_that_ends_once_is_asked_again(wordy, messages, own_triton, monkeypatch):
    ingest(messages(0, 10), wordy)
    version = train(wordy)
    promote(wordy, version.number)
    before = server(own_triton)
    crash_in_loads(monkeypatch, own_triton, 1)
    assert publish(wordy, version.number).champion == version.number
    assert before.pid != server(own_triton).pid
    assert crashes.read(wordy, version.number) is None


def test_a_triton_that_was_gone_before_is_no_versions_fault(wordy, messages, own_triton):
    ingest(messages(0, 10), wordy)
    version = train(wordy)
    promote(wordy, version.number)
    processes.stop(own_triton)
    with pytest.raises(triton.TritonError, match="did not answer"):
        publish(wordy, version.number)
    assert crashes.read(wordy, version.number) is None


def server(record: dict) -> psutil.Process:
    """Triton itself, below the process that watches over it."""
    (child,) = psutil.Process(record["pid"]).children()
    return child
