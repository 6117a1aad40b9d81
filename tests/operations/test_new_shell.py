"""Flows that are called from a new shell find the stack, or say that there is none."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow

CODE = """
import flows
from prefect.settings import PREFECT_API_URL
print(PREFECT_API_URL.value())
"""


@pytest.fixture
def api(home: Path):
    """The address of a server that listens, and that the home has on record."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        api = f"http://127.0.0.1:{server.getsockname()[1]}/api"
        home.mkdir()
        (home / "run.json").write_text(json.dumps({"prefect": {"api": api}}))
        yield api


def shell(code: str, **variables: str) -> tuple[str, str]:
    """What code prints in a new process, and what it complains of."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    return done.stdout.strip(), done.stderr.strip()


def test_flows_run_on_the_stack_of_the_home(api):
    assert shell(CODE) == (api, "")


def test_another_server_comes_first(api):
    assert shell(CODE, PREFECT_API_URL="http://127.0.0.1:1/api") == ("http://127.0.0.1:1/api", "")


def test_the_server_of_the_active_profile_comes_first(api, tmp_path):
    address = "http://127.0.0.1:1/api"
    profiles = tmp_path / "profiles.toml"
    profiles.write_text(f'active = "team"\n[profiles.team]\nPREFECT_API_URL = "{address}"\n')
    assert shell(CODE, PREFECT_PROFILES_PATH=str(profiles)) == (address, "")


def test_without_a_stack_it_is_said_once_that_nobody_hears_the_events(home):
    answer, complaint = shell(CODE + "import flows.retrain, flows.monitor")
    assert answer == "None"
    assert complaint.count("No Prefect server") == 1
    assert f"no stack of {home} runs (`make up`)" in complaint
    assert "nobody hears their events" in complaint


def test_a_stack_that_has_ended_is_none(home):
    home.mkdir()
    record = {"prefect": {"api": "http://127.0.0.1:1/api"}}
    (home / "run.json").write_text(json.dumps(record))
    answer, complaint = shell(CODE)
    assert answer == "None"
    assert "No Prefect server" in complaint


def test_a_temporary_server_ends_with_a_process_that_is_killed(home, tmp_path):
    code = """
import time
import flows
from prefect.server.api.server import SubprocessASGIServer
server = SubprocessASGIServer()
server.start()
print(server.server_process.pid, flush=True)
time.sleep(600)
"""
    variables = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    env = {**variables, "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE) as caller:
        assert caller.stdout is not None
        server = psutil.Process(int(caller.stdout.readline()))
        caller.kill()
    server.wait(timeout=60)


def test_prefect_before_flows_is_named(api):
    answer, complaint = shell("import prefect\n" + CODE)
    assert answer == "None"
    assert f"prefect was imported before flows: import it later, or set PREFECT_API_URL={api}" in (
        complaint
    )


def test_the_bridge_finds_the_stack(api):
    code = """
import uvicorn
from deployments import bridge
from prefect.client.orchestration import get_client
uvicorn.run = lambda *_, **__: print(get_client().api_url)
bridge.main()
"""
    answer, _ = shell(code, KREISLAUF_BRIDGE_TOKEN="t" * 32)
    assert answer == f"{api}/"
