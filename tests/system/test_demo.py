"""`make demo MODELS=all`, as a person gives it: each act is seen to happen."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from demo.plan import PLAN, STARTS, day, within
from demo.shop import simulate
from kreislauf.evaluation import scoring
from models.session_recommender import SPEC
from tests.conftest import ROOT

pytestmark = pytest.mark.system
PATIENCE = 1800
"""Seconds, also on a machine that is ten times slower than usual."""
PLAY = """
import json, sys
from pathlib import Path

import httpx
from demo.__main__ import Narrator, run_story, run_systems, started

home = Path(sys.argv[1])
narrator = Narrator()
with started(home, narrator) as everything:
    summary = run_story(home, narrator, everything)
    of_schedules = {"flow_runs": {"state": {"type": {"not_any_": ["SCHEDULED"]}}}}
    api = everything()["prefect"]["api"]
    runs = httpx.post(f"{api}/flow_runs/filter", json=of_schedules).json()
    summary["systems"] = run_systems(home, narrator, everything, 6)
    summary["scheduled_runs"] = sum(run["auto_scheduled"] for run in runs)
    print(json.dumps(summary))
"""


def test_the_story_happens_and_the_loop_pays(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PLAY, tmp_path / "home"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["acts"] == [True] * 6, done.stdout
    assert (summary["events"], summary["refused"]) == (1, 1)
    assert (summary["data_faults"], summary["rolled_back"]) == (1, 1)
    assert summary["scheduled_runs"] == 0
    for model in ("search_ranker", "support_answers"):
        assert summary["systems"][model]["happened"], done.stdout
    assert summary["live_recall"] >= 0.9 * recall_of_the_last_world()
    assert summary["frozen_recall"] <= 0.5 * summary["live_recall"]


def recall_of_the_last_world() -> float:
    """What the co-visitation table reaches in the last period, once it has learnt from three weeks
    of the same world, of which the loop has seen one."""
    shop = simulate(dataclasses.replace(PLAN, days=PLAN.days + 14))
    is_asked = within("mended")
    learnt = shop.filter((day() >= STARTS["season"]) & ~is_asked)
    examples = SPEC.examples(shop.filter(is_asked))
    return float(scoring.baseline_scores(SPEC, learnt, examples).mean())
