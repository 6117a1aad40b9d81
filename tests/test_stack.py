"""The processes behind `make up`: found by id and start time, stopped with all they started."""

import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from deployments import processes, renewal, stack, status, worker
from tests.waiting import until

SLEEP = [
    sys.executable,
    "-c",
    "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(99)'])",
]


def test_a_process_is_stopped_with_its_children(home):
    record = processes.spawn("sleeper", SLEEP, home, os.environ)
    process = processes.find(record)
    child = child_of(process)
    processes.stop(record)
    assert processes.find(record) is None
    assert has_ended(child)


def test_what_a_killed_process_leaves_behind_is_stopped(home):
    record = processes.spawn("sleeper", SLEEP, home, os.environ)
    process = processes.find(record)
    child = child_of(process)
    process.kill()
    process.wait()
    assert processes.orphans(record) == [child.pid]
    assert processes.orphans(record | {"log": str(home / "another.log")}) == []
    processes.stop(record)
    psutil.wait_procs([child], timeout=10)
    assert has_ended(child)


def child_of(process: psutil.Process) -> psutil.Process:
    """The child that the process starts."""
    until(process.children)
    (child,) = process.children()
    return child


def has_ended(process: psutil.Process) -> bool:
    """Whether it does nothing any more."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_the_clients_of_the_embedded_server_read_one_certificate(home):
    running = {"prefect": {"api": "http://127.0.0.1:1/api"}}
    path = Path(stack.client_env(home, running)["PREFECT_API_SSL_CERT_FILE"])
    assert len(ssl.create_default_context(cafile=path).get_ca_certs()) == 1
    path.write_text("")
    stack.client_env(home, running)
    assert len(ssl.create_default_context(cafile=path).get_ca_certs()) == 1, "it is mended"
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_stranger_with_a_recycled_id_is_left_alone(home):
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)"])
    try:
        record = {"pid": stranger.pid, "started": time.time() - 3600, "log": ""}
        assert processes.find(record) is None
        processes.stop(record)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_server_that_dies_while_starting_is_reported_with_its_last_words(home):
    record = processes.spawn(
        "server",
        [sys.executable, "-c", "print('no licence'); raise SystemExit(3)"],
        home,
        os.environ,
    )
    with pytest.raises(
        processes.StartError, match=r"server ended while starting\.(.|\n)*no licence"
    ):
        processes.wait(record, "http://127.0.0.1:1", 10)


def test_a_stranger_that_speaks_no_http_does_not_answer():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def talk() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\r\n")

        talker = threading.Thread(target=talk)
        talker.start()
        assert not processes.answers(f"http://127.0.0.1:{server.getsockname()[1]}")
        talker.join()


def test_servers_that_are_still_starting_keep_their_ports(home, monkeypatch):
    """Until a server listens, its port looks free."""
    home.mkdir(parents=True, exist_ok=True)
    free = iter([4001, 4001, 4001, 4002])
    monkeypatch.setattr(processes, "free_port", lambda preferred=0: next(free))
    assert processes.lasting_port(home, "prefect") == 4001
    assert processes.lasting_port(home, "triton") == 4002


def test_a_second_start_keeps_what_runs_and_replaces_what_does_not(home):
    first = stack.up(home, ("triton",))["triton"]
    try:
        assert stack.up(home, ("triton",))["triton"] == first
        processes.find(first).kill()
        psutil.wait_procs([psutil.Process(first["pid"])], timeout=5)
        second = stack.up(home, ("triton",))["triton"]
        assert second["pid"] != first["pid"]
        assert processes.answers(f"{second['url']}/v2/health/live")
    finally:
        stack.down(home)
    assert processes.read(home) == {}
    assert not processes.answers(f"{second['url']}/v2/health/live")


@pytest.mark.slow
def test_servers_that_were_started_with_other_settings_start_anew(home, monkeypatch, capsys):
    services = ("triton", "gateway")
    first = stack.up(home, services)
    try:
        monkeypatch.setenv("KREISLAUF_GATEWAY_TOKEN", "secret-token")
        second = stack.up(home, services)
        assert second["triton"] == first["triton"]
        assert second["gateway"]["pid"] != first["gateway"]["pid"]
        message = "gateway starts anew, because of another KREISLAUF_GATEWAY_TOKEN."
        assert message in capsys.readouterr().out
        assert "secret-token" not in (home / "run.json").read_text()
        assert stack.up(home, services) == second
        monkeypatch.setenv("AWS_REGION", "eu-central-1")
        third = stack.up(home, services)
        assert third["triton"]["pid"] != second["triton"]["pid"]
        assert third["gateway"]["pid"] != second["gateway"]["pid"]
    finally:
        stack.down(home)


@pytest.mark.slow
def test_servers_whose_code_is_another_start_anew(home, tmp_path, monkeypatch, capsys):
    (tmp_path / "serving").mkdir()
    (tmp_path / "serving" / "app.py").write_text("")
    monkeypatch.setattr(renewal, "CODE", {"triton": (), "gateway": (tmp_path / "serving",)})
    services = ("triton", "gateway")
    first = stack.up(home, services)
    try:
        assert stack.up(home, services) == first
        (tmp_path / "serving" / "app.py").write_text("import os")
        second = stack.up(home, services)
        assert second["triton"] == first["triton"]
        assert second["gateway"]["pid"] != first["gateway"]["pid"]
        message = "gateway starts anew, because of another version of Kreislauf."
        assert capsys.readouterr().out == f"{message}\n"
        assert stack.up(home, services) == second
    finally:
        stack.down(home)


def test_other_deployments_are_put_in_place_while_the_worker_goes_on(home, tmp_path, monkeypatch):
    (tmp_path / "prefect.yaml").write_text("")
    resets = []
    monkeypatch.setattr(renewal, "DEPLOYMENTS", (tmp_path / "prefect.yaml",))
    monkeypatch.setattr(stack, "deploy", lambda home, running, reset: resets.append(reset))
    monkeypatch.setattr(stack, "start", lambda name, home, running: {"pid": 1})
    running: dict[str, dict] = {}
    stack.put_worker(home, running, reset=False)
    monkeypatch.delattr(stack, "start")
    stack.put_worker(home, running, reset=False)
    assert resets == [False]
    (tmp_path / "prefect.yaml").write_text("name: kreislauf")
    stack.put_worker(home, running, reset=False)
    stack.put_worker(home, running, reset=True)
    assert resets == [False, False, True]
    assert running["worker"]["pid"] == 1


def test_the_status_names_every_address_as_the_examples_need_it(tmp_path):
    running = {
        "prefect": {"pid": 1, "started": 0, "url": "http://p:1", "api": "http://p:1/api"},
        "triton": {
            "pid": 1,
            "started": 0,
            "url": "http://t:2",
            "grpc": "t:3",
            "metrics": "http://t:4/metrics",
        },
        "gateway": {"pid": 1, "started": 0, "url": "http://g:5"},
        "worker": {"pid": 1, "started": 0},
    }
    *_, triton, gateway, worker, export = status.show(running).splitlines()
    assert triton == "triton       gone  http://t:2  t:3  http://t:4/metrics"
    assert (gateway, worker) == ("gateway      gone  http://g:5", "worker       gone")
    shell = f'{export}; echo "$GATEWAY $TRITON $PREFECT_API_URL"; command -v prefect'
    done = subprocess.run(["sh", "-ec", shell], capture_output=True, text=True)
    assert done.stdout.splitlines()[0] == "http://g:5 t:3 http://p:1/api"
    assert done.stdout.splitlines()[1] == str(Path(sys.executable).parent / "prefect")
    assert status.show({}) == ""


def test_the_shell_of_the_status_asks_this_machine_without_a_proxy(monkeypatch):
    record = {"pid": 1, "started": 0, "url": "http://g:5"}
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.setenv(name, "intranet,127.0.0.1")
    assert "proxy" not in status.export({"gateway": record})
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    shell = f'{status.export({"gateway": record})}; echo "$no_proxy $NO_PROXY $no_grpc_proxy"'
    done = subprocess.run(["sh", "-ec", shell], env={}, capture_output=True, text=True)
    assert done.stdout.split() == ["intranet,127.0.0.1"] * 3


def test_the_shell_of_the_status_has_the_programs_of_a_checkout_with_an_odd_name(monkeypatch):
    record = {"pid": 1, "started": 0, "url": "http://g:5"}
    monkeypatch.setattr(sys, "executable", '/home/a/$USER\'s "shop"/.venv/bin/python')
    shell = f'{status.export({"gateway": record})}; echo "$PATH"'
    done = subprocess.run(
        ["sh", "-ec", shell], env={"PATH": "/bin"}, capture_output=True, text=True
    )
    assert done.stdout.strip() == '/home/a/$USER\'s "shop"/.venv/bin:/bin'


def test_a_worker_needs_no_folder_of_another_user(home, tmp_path, monkeypatch):
    home.mkdir()
    monkeypatch.setattr(worker.tempfile, "gettempdir", lambda: str(tmp_path))
    assert worker.scratch(home) == {}
    shared = tmp_path / "runner_storage"
    shared.mkdir()
    assert worker.scratch(home) == {}
    # Nobody forbids root anything: whether the folder is closed is what the system would say.
    monkeypatch.setattr(worker.os, "access", lambda path, _: path != shared)
    assert worker.scratch(home) == {"TMPDIR": str(home / "tmp")}
    assert (home / "tmp").is_dir()


def test_what_a_crashed_triton_leaves_running_is_ended():
    crash = """
import ctypes, subprocess, psutil
from deployments import triton_server
ctypes.CDLL(None).prctl(triton_server.ADOPT_ORPHANS, 1)
subprocess.run(["sh", "-c", "sleep 1000 & kill -SEGV $$"])
(orphan,) = psutil.Process().children()
triton_server.end_orphans()
assert not orphan.is_running()
"""
    subprocess.run([sys.executable, "-c", crash], check=True)
