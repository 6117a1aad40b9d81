"""Promote, publish and look killed with SIGKILL before everything they change: what serves stays,
and a rerun ends well."""

import shutil

import numpy as np
import pytest

from flows.ingest import ingest
from flows.train import train
from kreislauf import registry
from kreislauf.evaluation import gate
from kreislauf.experiment import record
from kreislauf.lake import journal
from kreislauf.release import releases, triton
from serving import live
from tests.conftest import aliases
from tests.flows.child_process import ask, started
from tests.flows.test_look import RATE, clock, land
from tests.flows.test_loop import one_release, two_releases

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("prefect_harness", "mlflow_store", "triton"),
]
NEVER = 10**9
__all__ = ["clock"]


@pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.long)])
def test_a_rerun_finishes_what_a_kill_at_any_step_left(
    prepared, every, tiny, orders, other_models, home, tmp_path, monkeypatch
):
    prepared(one_release)
    ingest(orders(20, 60, threshold=120), tiny)
    version = train(tiny).number
    with started("killed", other_models.parent) as process:
        for step in range(1, NEVER, every):
            env = fresh(home, tmp_path / str(step))
            for name, value in env.items():
                monkeypatch.setenv(name, value)
            triton.serve(tiny, [1])
            triton.remove_version(tiny, version)
            order = {"model": tiny, "version": version, "env": env}
            outcome = ask(process, order | {"step": step})
            champion = releases.current(tiny).champion
            assert served(tiny) == champion, (
                "what the log says is live answers, whatever was killed"
            )
            assert outcome == "killed" or step > 12, "there are at least so many steps"
            assert ask(process, order | {"step": NEVER}) == "done"
            assert [release.champion for release in releases.history(tiny)] == [1, version]
            assert aliases(tiny) == {"champion": version, "previous": 1}
            assert served(tiny) == version
            assert journal.read("decisions")["version"].to_list().count(version) == 1
            decision = gate.Decision.model_validate_json(registry.get(tiny, version).decision)
            assert decision.champion_version == 1
            if outcome == "done":
                break


@pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.long)])
def test_a_rerun_of_look_rolls_a_harmful_release_back_once(
    every, tiny, orders, other_models, home, tmp_path, monkeypatch, clock
):
    monkeypatch.setenv("KREISLAUF_HOLD_BACK", "0.5")
    two_releases(tiny, orders)
    land(tiny, None, RATE, 1_000, (-14, 0), release=0)
    for arm, rate in (("champion", 0.05), ("challenger", RATE)):
        land(tiny, arm, rate, 800, (0, 1), release=2, versions=(2, 1))
    with started("killed", other_models.parent) as process:
        for step in range(1, NEVER, every):
            env = fresh(home, tmp_path / str(step))
            for name, value in env.items():
                monkeypatch.setenv(name, value)
            triton.serve(tiny, [1, 2])
            order = {"model": tiny, "look": True, "env": env}
            outcome = ask(process, order | {"step": step})
            assert served(tiny) == releases.current(tiny).champion
            assert outcome == "killed" or step > 8, "there are at least so many steps"
            assert ask(process, order | {"step": NEVER}) == "done"
            assert [release.champion for release in releases.history(tiny)] == [1, 2, 1]
            assert releases.hold(tiny).startswith("version 2 was rolled back")
            assert served(tiny) == 1
            (newest,) = record.read(tiny, 2)
            assert newest.verdict.outcome == "harm"
            if outcome == "done":
                break


def fresh(home, folder) -> dict[str, str]:
    """Settings for a copy of all state but Triton's, as it is before the version is judged."""
    shutil.copytree(home / "lake", folder / "lake")
    shutil.copytree(home / "releases", folder / "releases")
    shutil.copyfile(home / "mlflow" / "mlflow.db", folder / "mlflow.db")
    return {
        "KREISLAUF_LAKE": str(folder / "lake"),
        "KREISLAUF_RELEASES": str(folder / "releases"),
        "KREISLAUF_MLFLOW_URL": f"sqlite:///{folder / 'mlflow.db'}",
    }


def served(model: str) -> int:
    """The version that answers."""
    return live.answer(model, {"price": np.array([[60.0]], np.float32)})[0]
