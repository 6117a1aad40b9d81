"""`make up DATA=... MAPPING=...`: from a shop's export to a model that answers and is watched."""

import subprocess
import sys
from pathlib import Path

import httpx
import polars as pl
import pytest
from prefect.client.orchestration import SyncPrefectClient

from demo.shop import Plan, simulate
from deployments import environment, first_model, processes, stack
from tests.conftest import ROOT
from tests.models.test_every_model import with_text_ids

MODEL = "session_recommender_text"
MAPPING = f"""
model: {MODEL}
columns:
  session: visit
  aid: sku
  ts: {{from: at, unit: s}}
  type: {{constant: clicks}}
"""


def run(home: Path, module: str, *words: str) -> subprocess.CompletedProcess[str]:
    """`python -m module words` in a new shell."""
    command = [sys.executable, "-m", module, *words]
    env = environment.without_prefect() | {"KREISLAUF_HOME": str(home)}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data", "nothing.csv"), "nothing.csv does not exist"),
        (("--mapping", "shop.yaml"), "MAPPING says how DATA is read: give DATA, too."),
        (("--data", "a.csv", "--mapping", "none.yaml"), "none.yaml cannot be read"),
    ],
)
def test_what_cannot_work_is_said_before_a_server_starts(tmp_path, words, message):
    done = run(tmp_path / "home", "deployments.stack", "up", *words)
    assert (done.returncode, message in done.stderr) == (1, True), done.stderr
    assert not (tmp_path / "home").exists()


def test_a_model_without_deployments_of_its_own_is_said_before_anything_is_loaded():
    assert first_model.deployment_of("retrain", "session_recommender") == "retrain/retrain"
    assert first_model.deployment_of("monitor", MODEL) == f"monitor/monitor-{MODEL}"
    with pytest.raises(first_model.NoFirstModel, match="no deployment of retrain for mine, so"):
        first_model.deployment_of("retrain", "mine")


@pytest.mark.system
def test_an_export_becomes_a_model_that_answers_and_is_watched(tmp_path):
    plan = Plan(days=14, sessions_per_day=200, articles=120, change_day=15)
    rows = with_text_ids(simulate(plan)).select(visit="session", sku="aid", at=pl.col("ts") / 1000)
    rows.write_csv(tmp_path / "export.csv")
    (tmp_path / "shop.yaml").write_text(MAPPING)
    home = tmp_path / "home"
    words = ("--data", str(tmp_path / "export.csv"), "--mapping", str(tmp_path / "shop.yaml"))
    try:
        done = run(home, "deployments.stack", "up", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"0 of {rows.height} lines were rejected" in done.stdout
        assert f"version 1 of {MODEL} is live: " in done.stdout
        running = processes.read(home)
        body = {"session": "new", "events": [{"aid": rows["sku"][0]}]}
        address = f"{running['gateway']['url']}/v1/{MODEL}/predict"
        answer = httpx.post(address, json=body).raise_for_status().json()
        assert answer["variant"] == "champion"
        assert set(answer["answer"]["article_ids"]) <= set(rows["sku"])
        assert run(home, "deployments.deploy").stdout == ""
        with SyncPrefectClient(running["prefect"]["api"]) as client:
            for flow in ("monitor", "retrain"):
                deployment = client.read_deployment_by_name(f"{flow}/{flow}-{MODEL}")
                assert deployment.parameters == {"model": MODEL}
                assert [schedule.active for schedule in deployment.schedules] == [True]
                default = client.read_deployment_by_name(f"{flow}/{flow}")
                assert default.parameters == {"model": "session_recommender"}
    finally:
        stack.down(home)
