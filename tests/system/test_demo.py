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
    servers = everything()

    def runs(which):
        url = f"{servers['prefect']['api']}/flow_runs/filter"
        return httpx.post(url, json=which).raise_for_status().json()

    summary["scheduled_runs"] = sum(run["auto_scheduled"] for run in runs(of_schedules))
    retrainings = of_schedules | {
        "flows": {"name": {"any_": ["retrain"]}},
        "deployments": {"tags": {"all_": ["kreislauf"]}},
    }
    before = {run["id"] for run in runs(retrainings)}
    summary["systems"] = run_systems(home, narrator, everything, 6)
    summary["retrainings"] = [
        {name: run[name] for name in ("state_type", "parameters")}
        for run in runs(retrainings)
        if run["id"] not in before
    ]
    summary["pages"] = {
        model: httpx.get(f"{servers['gateway']['url']}/models/{model}").raise_for_status().text
        for model in ("search_ranker", "support_answers")
    }
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
    assert "NOT AS IT SHOULD" not in done.stdout
    retrained = sorted(run["parameters"]["model"] for run in summary["retrainings"])
    assert retrained == ["search_ranker", "support_answers"], "each once, and nobody else"
    for model in retrained:
        assert summary["systems"][model]["happened"], done.stdout
        check_season(summary, model)
    assert summary["live_recall"] >= 0.9 * recall_of_the_last_world()
    assert summary["frozen_recall"] <= 0.5 * summary["live_recall"]


def check_season(summary: dict, model: str) -> None:
    """A season was noticed, and its event led to a better version on Triton, of this model type
    alone."""
    season = summary["systems"][model]
    assert (season["stable"], season["season"]) == ("stable", "concept drift")
    assert (season["events"], season["live_version"]) == (1, 2)
    assert season["before"] > 0.85
    assert season["frozen"] < season["before"] - 0.2, "the season hurts"
    assert season["live"] > season["frozen"] + 0.15, "and learnt"
    (run,) = [run for run in summary["retrainings"] if run["parameters"]["model"] == model]
    assert run["state_type"] == "COMPLETED"
    assert "live model" in run["parameters"]["reason"], "the words of the event"
    assert "concept drift" in summary["pages"][model]


def recall_of_the_last_world() -> float:
    """What the co-visitation table reaches in the last period, once it has learnt from three weeks
    of the same world, of which the loop has seen one."""
    shop = simulate(dataclasses.replace(PLAN, days=PLAN.days + 14))
    is_asked = within("mended")
    learnt = shop.filter((day() >= STARTS["season"]) & ~is_asked)
    examples = SPEC.examples(shop.filter(is_asked))
    return float(scoring.baseline_scores(SPEC, learnt, examples).mean())
