"""The shop's search results and support answers on the whole stack: a season is planted, the
monitor's event starts a worker's retraining, and a real Triton answers with the better version.

Both are in one stack, which takes half a minute to start.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from demo.__main__ import start_all
from deployments import stack

MODELS = ["search_ranker", "support_answers"]
PLAY = """
import json, sys
from pathlib import Path
from demo import systems

(system,) = [system for system in systems.SYSTEMS if system.model == sys.argv[1]]
season = systems.play(system, Path(sys.argv[2]))
print(json.dumps(season.summary() | {"line": season.act().line(7)}))
"""


@dataclass
class Stack:
    """A running stack, whose schedules are paused."""

    home: Path
    running: dict[str, dict]

    def play(self, model: str) -> dict:
        """What came of a system, which is played by another process."""
        env = stack.client_env(self.home, self.running) | {"PREFECT_LOGGING_LEVEL": "ERROR"}
        folder = str(self.home / "raw" / model)
        command = [sys.executable, "-W", "ignore", "-c", PLAY, model, folder]
        done = subprocess.run(command, env=env, cwd=stack.ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def retrainings(self) -> dict[str, list[dict]]:
        """Runs of the deployments of `retrain` that no schedule has created, by model."""
        api = self.running["prefect"]["api"]
        runs = httpx.post(f"{api}/flow_runs/filter", json={}).raise_for_status().json()
        mine = [run for run in runs if run["deployment_id"] and not run["auto_scheduled"]]
        return {
            model: [run for run in mine if run["parameters"].get("model") == model]
            for model in MODELS
        }

    def page(self, model: str) -> str:
        """The lifecycle page of a model type, as the gateway shows it."""
        url = f"{self.running['gateway']['url']}/models/{model}"
        return httpx.get(url).raise_for_status().text


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("stack") / "home"
    try:
        yield Stack(home, start_all(home))
    finally:
        stack.down(home)


@pytest.mark.parametrize("model", MODELS)
def test_a_season_is_noticed_and_its_event_leads_to_a_better_version_on_triton(shop, model):
    before = {name: len(runs) for name, runs in shop.retrainings().items()}
    season = shop.play(model)
    assert season["happened"], season["line"]
    assert (season["stable"], season["season"]) == ("stable", "concept drift")
    assert (season["events"], season["live_version"]) == (1, 2)
    assert season["before"] > 0.85
    assert season["frozen"] < season["before"] - 0.2, "the season hurts"
    assert season["live"] > season["frozen"] + 0.15, "and learnt"
    after = shop.retrainings()
    assert [run["state_type"] for run in after[model]] == ["COMPLETED"]
    assert "live model" in after[model][0]["parameters"]["reason"], "the words of the event"
    others = [name for name in MODELS if name != model]
    assert {name: len(after[name]) for name in others} == {name: before[name] for name in others}
    assert "concept drift" in shop.page(model)
    assert "NOT AS IT SHOULD" not in season["line"]
