"""An MLflow as companies run it: behind a login, below a path, of another version."""

import base64
import logging
import os
import subprocess
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.request import Request, urlopen

import pytest

from deployments import stack
from kreislauf import registry
from kreislauf.registry import runs
from tests.conftest import ROOT
from tests.kreislauf.registry.test_registry import register

pytestmark = pytest.mark.slow

SECRET = "s3cr+t/word"


@contextmanager
def in_front_of(mlflow: str, prefix: str = "", login: str = "", version: str = "") -> Iterator[str]:
    """The address (without scheme) of a proxy in front of MLflow, below a path, with a login, and
    without a page that says whether the server is well."""
    expected = "Basic " + base64.b64encode(login.encode()).decode()

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if login and self.headers["Authorization"] != expected:
                return self.answer(401, b"login, please")
            if not self.path.startswith(prefix) or self.path.endswith("/health"):
                return self.answer(404, b"no such page")
            if version and self.path.endswith("/version"):
                return self.answer(200, version.encode())
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))) or None
            request = Request(mlflow + self.path.removeprefix(prefix), body, method=self.command)
            request.add_header("Content-Type", self.headers.get("Content-Type", ""))
            try:
                with urlopen(request) as response:
                    return self.answer(response.status, response.read())
            except OSError as error:
                return self.answer(getattr(error, "code", 502), error.read())

        do_POST = do_GET

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}{prefix}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def mlflow_home(tmp_path_factory) -> Path:
    """What the server keeps."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def mlflow(mlflow_home) -> Iterator[str]:
    """Address of a server."""
    yield stack.up(mlflow_home, ("mlflow",))["mlflow"]["url"]
    stack.down(mlflow_home)


@pytest.fixture(autouse=True)
def no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's variables are as before after the test."""
    for name in ("USERNAME", "PASSWORD", "TOKEN"):
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", "")
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}")


def test_an_mlflow_behind_a_login_and_a_path_is_used_and_no_message_has_the_password(
    mlflow, monkeypatch, caplog
):
    caplog.set_level(logging.DEBUG)
    quoted = SECRET.replace("/", "%2F").replace("+", "%2B")
    with in_front_of(mlflow, "/tools/mlflow", f"ada:{SECRET}") as address:
        monkeypatch.setenv("KREISLAUF_MLFLOW_URL", f"http://ada:{quoted}@{address}")
        assert runs.experiment("behind a login")
        with pytest.raises(registry.RegistryError, match="has no m version 9 to give") as missing:
            registry.get("m", 9)
        monkeypatch.setenv("KREISLAUF_MLFLOW_URL", f"http://ada:{quoted}x@{address}")
        with pytest.raises(registry.RegistryError, match="wants another login") as refused:
            registry.versions("m")
    with pytest.raises(registry.RegistryError, match="does not answer") as silence:
        registry.versions("m")
    texts = [*caplog.messages]
    for error in (missing, refused, silence):
        texts += traceback.format_exception(error.value)
    everything = "\n".join(texts)
    assert f"MLflow at http://{address}" in everything
    assert SECRET not in everything
    assert quoted not in everything


def test_who_has_no_login_is_told_which_variables_to_set(mlflow, monkeypatch):
    with in_front_of(mlflow, login="ada:word") as address:
        monkeypatch.setenv("KREISLAUF_MLFLOW_URL", f"http://{address}")
        with pytest.raises(registry.RegistryError, match="Set MLFLOW_TRACKING_USERNAME"):
            registry.versions("m")
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "word")
        assert registry.versions("m") == []


@pytest.mark.parametrize(("version", "refused"), [("2.9.1", True), ("3.0.0", False)])
def test_a_server_of_another_major_version_is_named_before_a_training(
    mlflow, monkeypatch, version, refused
):
    with in_front_of(mlflow, version=version) as address:
        monkeypatch.setenv("KREISLAUF_MLFLOW_URL", f"http://{address}")
        if not refused:
            assert runs.experiment("of a version")
            return
        with pytest.raises(registry.RegistryError, match=r"is version 2\.9\.1, and this client"):
            runs.experiment("of a version")


def test_a_deleted_experiment_is_named_with_the_command_that_restores_it(mlflow, monkeypatch):
    monkeypatch.setenv("KREISLAUF_MLFLOW_URL", mlflow)
    number = runs.experiment("deleted")
    runs.client().delete_experiment(number)
    with pytest.raises(registry.RegistryError) as refusal:
        runs.experiment("deleted")
    command = str(refusal.value).split("`")[1]
    assert command.endswith(f"restore --experiment-id {number}")
    # A person's shell does not have what MLflow sets in this process.
    shell = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    subprocess.run(["sh", "-c", command], cwd=ROOT, env=shell, check=True)
    assert runs.experiment("deleted") == number


def test_a_server_that_is_slow_is_named_within_seconds(monkeypatch):
    monkeypatch.setattr(runs, "PROBE_SECONDS", 0.5)

    class Silent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(3)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Silent)
    server.daemon_threads = True
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("KREISLAUF_MLFLOW_URL", f"http://127.0.0.1:{server.server_port}")
    began = time.monotonic()
    with pytest.raises(registry.RegistryError, match="does not answer"):
        registry.versions("m")
    assert time.monotonic() - began < 3
    server.shutdown()
    server.server_close()


def test_a_version_is_deleted_with_its_files_on_a_server_too(
    mlflow, mlflow_home, monkeypatch, tmp_path
):
    monkeypatch.setenv("KREISLAUF_MLFLOW_URL", mlflow)
    first = register(tmp_path / "a", "key a")
    second = register(tmp_path / "b", "key b", threshold=7.0)
    registry.delete(first)
    assert [version.number for version in registry.versions("m")] == [second.number]
    stored = [path.name for path in (mlflow_home / "mlflow").rglob("*") if path.is_file()]
    assert (stored.count("model.onnx"), stored.count("weights.safetensors")) == (1, 1)
