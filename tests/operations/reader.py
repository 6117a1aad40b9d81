"""Somebody who has a fresh clone, and does what the texts say, word for word."""

import os
import shutil
import subprocess
import time
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import ArtifactFilter, DeploymentFilter
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort

from deployments import lock
from tests import documented
from tests.conftest import ROOT

PATIENCE = 1200
"""Seconds after which a run will not end any more, also on a machine that is slow."""
AS_OF_OLD = ("pyproject.toml", *lock.LOCKS)
"""Files whose time says to make whether it has to install anew."""
GIVEN = (
    "make",
    "make up",
    "make status",
    'curl -s "$GATEWAY/v1/session_recommender/predict"',
    "make deploy",
    "make deploy RESET=1",
    "make explore",
    "make down",
    "prefect deployment run approve/approve",
    "prefect deployment run experiment/experiment --param challenger=3",
    "prefect deployment run experiment/experiment --param challenger=0",
    "prefect deployment run experiment/experiment",
    "prefect deployment run publish/publish",
    "prefect deployment run lift/lift",
    "prefect deployment run trust/trust",
    "prefect deployment run score/score --param start",
    "prefect deployment run score/score --param requests",
    "prefect deployment run backfill/backfill --param work=score",
    "prefect deployment run tune/tune",
    "export KREISLAUF_KAFKA",
    ".venv/bin/python -m serving.app",
    "KREISLAUF_BRIDGE_TOKEN=... .venv/bin/python -m deployments.bridge",
    ".venv/bin/python -m deployments.dashboards",
    "make worker",
    "prefect variable delete kreislauf_deployer",
)
"""Beginnings of the commands that the reader gives, each of one command."""
NOT_GIVEN = {
    r"make (demo|test(-[a-z]+)?|faults)\b.*": "many minutes; CI gives three of them",
    r"pip config list": "`make setup` has given it, with `deployments/installer.py`",
    r"make inspect( .*)?": "tests/sources/test_inspection.py looks at such files",
    r"make pictures": "it writes into docs what somebody has to look at",
    r"(TORCH_BACKEND=cpu )?make setup( PYTHON=.*)?": "gigabytes; who runs this has given it",
    r"make up DATA=.*": "minutes; tests/operations/test_first_model.py gives it",
    r"curl -s .*_text/predict.*": "of a model that only that command makes",
    r"make adopt( .*)?": "the page of a search says it with the study, and that is given",
    r"\.venv/bin/python -m benchmarks\..*": "up to hours; tests/test_benchmarks.py has short ones",
    r"PYTHONPATH=path/to/shop .*": "tests/models/test_recipe.py gives it",
    r"prefect deployment run": "a form",
    r"prefect deployment run backfill.* work=ingest .*": "tests/flows/test_backfill.py has folders",
    r"prefect deployment run retrain/retrain-search_ranker": "of a model that has no data there",
    r"prefect work-pool set-concurrency-limit .*": "the runs of the other commands would wait",
    r"prefect worker start|python -m deployments.worker": "what `make worker` does, which is given",
    r"mlflow models serve": "a rival's name, which tests/serving/test_measured.py starts",
    r"promtool .*": "tests/system/test_prometheus.py gives it, where it is installed",
    r"apt-get install .*": "`make test-system` has installed it",
    r"[A-Z_]+=\S*|KREISLAUF_TRAINER=.*": "variables for other commands",
}
"""Why the other commands are not given, by their pattern; tests/test_commands.py checks them."""


class Reader:
    """A clone in a folder with a space and an apostrophe, and a shell in it, behind a proxy that
    knows nobody."""

    def __init__(self, folder: Path, variables: dict[str, str]):
        self.clone = folder / "a reader's clone"
        self.given: set[str] = set()
        self.profile = ""
        self.env = {
            "HOME": str(folder),
            "PATH": os.environ["PATH"],
            "HTTP_PROXY": "http://127.0.0.1:9",
            "http_proxy": "http://127.0.0.1:9",
            **variables,
        }

    def clone_repository(self) -> None:
        """Copy the files of the repository, with the environments that `make setup` made."""
        command = ["git", "ls-files", "-co", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        for name in listed.stdout.splitlines():
            if not (ROOT / name).is_file():
                continue
            (self.clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.clone / name)
        for name in (".venv", ".venv-triton"):
            if not (self.clone / name).exists():
                (self.clone / name).symlink_to((ROOT / name).resolve())
        for name in AS_OF_OLD:
            os.utime(self.clone / name, (0, 0))

    def shell(self, text: str) -> str:
        """What lines print in a new shell in the clone, into which the profile was copied."""
        script = f"{self.profile}\n{text}"
        command = ["bash", "-ec", script]
        done = subprocess.run(command, cwd=self.clone, env=self.env, capture_output=True, text=True)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def give(self, beginning: str) -> str:
        """Give a command of `GIVEN` as the texts have it. Returns what it prints."""
        return self.shell(self.text(beginning))

    def text(self, beginning: str) -> str:
        """A command of `GIVEN` as the texts have it, which counts as given."""
        self.given.add(beginning)
        return of_texts(beginning)

    def python(self, place: str, beginning: str) -> str:
        """Run a block of Python of a page with the `python` of the shell."""
        (block,) = [
            block
            for page, block in documented.python_blocks()
            if page == place and beginning in block
        ]
        self.given.add(block)
        return self.shell(f"python - <<'END'\n{block}\nEND")

    def start(self, beginning: str, **changes: str) -> FlowRun:
        """Start a deployment as the texts say it, but for `changes` of parameters; its run, once it
        has completed."""
        text = self.text(beginning)
        for old, new in changes.items():
            text = text.replace(old, new)
        return self.completed(text)

    def completed(self, command: str) -> FlowRun:
        """The run that a command starts, once it has completed."""
        name = command.split()[3].split("/")[0]
        self.shell(command)
        wanted = DeploymentFilter.model_validate({"name": {"any_": [name]}})
        end = time.monotonic() + PATIENCE
        with self.client() as client:
            while time.monotonic() < end:
                runs = client.read_flow_runs(
                    deployment_filter=wanted, sort=FlowRunSort.START_TIME_DESC, limit=200
                )
                mine = [run for run in runs if not run.auto_scheduled]
                newest = max(mine, key=lambda run: run.created)
                if newest.state.is_final():
                    assert newest.state.is_completed(), f"{command}: {newest.state}"
                    return newest
                time.sleep(0.5)
        raise AssertionError(f"{command}: not within {PATIENCE} s")

    def client(self) -> SyncPrefectClient:
        """A client of the Prefect server that the profile names."""
        return SyncPrefectClient(self.shell('echo "$PREFECT_API_URL"').strip())

    def page(self, key: str) -> str:
        """The newest page of this name in Prefect's UI."""
        wanted = ArtifactFilter.model_validate({"key": {"any_": [key]}})
        with self.client() as client:
            artifacts = client.read_artifacts(artifact_filter=wanted)
        return str(max(artifacts, key=lambda artifact: artifact.created).data)


def of_texts(beginning: str) -> str:
    """The one command of the texts that begins so, or is it."""
    texts = {command.text for command in documented.of_pages()}
    if beginning in texts:
        return beginning
    (text,) = [text for text in texts if text.startswith(beginning)]
    return text


def of_page(page: str) -> list[str]:
    """The commands of a page, whole."""
    return [
        line
        for block in documented.unmarked(page + "\n")
        for line in documented.lines(block.replace("\n    ", "\n"))
        if documented.is_command(line)
    ]
