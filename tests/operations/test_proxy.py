"""A proxy in the environment is never asked for this machine's own servers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deployments import processes, stack
from kreislauf import settings

pytestmark = pytest.mark.slow

DEAD_PROXY = "http://127.0.0.1:9"
"""Nothing listens on the port for discarding."""
PROXIES = ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy")
ASKS = """
import sys, urllib.request
import httpx, requests
from kreislauf.settings import settings
from kreislauf.registry import runs
from tritonclient.grpc import InferenceServerClient
url = settings().mlflow_url
assert urllib.request.urlopen(f"{url}/health", timeout=5).status == 200
assert httpx.get(f"{url}/health", timeout=5).status_code == 200
assert requests.get(f"{url}/health", timeout=5).status_code == 200
assert runs.experiment("shop")
assert InferenceServerClient(settings().triton_url).is_server_live(client_timeout=5)
"""


@pytest.fixture
def behind_a_proxy(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A proxy that does not answer, and what the environment says of hosts without one."""
    for name in PROXIES:
        monkeypatch.setenv(name, DEAD_PROXY)
        monkeypatch.setenv(name.upper(), DEAD_PROXY)
    for name in settings.NO_PROXY:
        monkeypatch.delenv(name, raising=False)
    if request.param:
        monkeypatch.setenv("no_proxy", request.param)


@pytest.mark.parametrize("behind_a_proxy", ["", "localhost"], indirect=True)
@pytest.mark.usefixtures("behind_a_proxy")
def test_the_stack_starts_and_is_asked_behind_a_proxy(home: Path, monkeypatch):
    # As at the start of a process.
    settings.exempt_loopback_from_proxies()
    try:
        stack.up(home, ("mlflow", "triton"))
        asked = subprocess.run(
            [sys.executable, "-c", ASKS], cwd=stack.ROOT, capture_output=True, text=True
        )
        assert asked.returncode == 0, asked.stderr
    finally:
        stack.down(home)


def test_hosts_that_need_no_proxy_are_kept_whatever_variable_names_them(monkeypatch):
    monkeypatch.setenv("no_proxy", "git.shop.example, 127.0.0.1")
    monkeypatch.setenv("NO_PROXY", "lake.shop.example")
    monkeypatch.delenv("no_grpc_proxy", raising=False)
    settings.exempt_loopback_from_proxies()
    settings.exempt_loopback_from_proxies()
    expected = "git.shop.example,127.0.0.1,lake.shop.example,localhost,::1"
    assert {os.environ[name] for name in settings.NO_PROXY} == {expected}


def test_a_home_keeps_its_ports_and_takes_another_one_from_a_stranger(home: Path):
    port = processes.lasting_port(home, "gateway")
    assert processes.lasting_port(home, "gateway") == port
    assert processes.lasting_port(home, "mlflow") != port
    server = subprocess.Popen(
        [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)],
        stderr=subprocess.DEVNULL,
    )
    try:
        processes.wait(
            {
                "pid": server.pid,
                "started": processes.psutil.Process(server.pid).create_time(),
                "log": "server.log",
            },
            f"http://127.0.0.1:{port}",
            20,
        )
        replacement = processes.lasting_port(home, "gateway")
        assert replacement != port
    finally:
        server.kill()
        server.wait()
    assert processes.lasting_port(home, "gateway") == replacement, "clients have its address by now"
