"""Start, find and stop server processes.

They are recorded by process id and start time, so that no stranger is ever killed.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil


class StartError(RuntimeError):
    """A server did not come up; the message ends with the last lines of its log."""


def free_port(preferred: int = 0) -> int:
    """A TCP port on 127.0.0.1 that nobody listens on: the `preferred` one, if it is free."""
    for port in (preferred, 0):  # 0: the operating system chooses.
        with socket.socket() as s, suppress(OSError):
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("127.0.0.1", port))
            return s.getsockname()[1]
    raise OSError("127.0.0.1 has no free port")


def lasting_port(home: Path, name: str) -> int:
    """The port of a server of this home, chosen once: who wrote its address down still finds it
    after `make down` and `make up`. Another one if a stranger listens there by now."""
    path = home / "ports.json"
    ports = {}
    if path.exists():
        ports = json.loads(path.read_text())
    reserved_ports = {port for server, port in ports.items() if server != name}
    port = free_port(ports.get(name, 0))
    while port in reserved_ports:  # Its server is still starting, and does not listen yet.
        port = free_port()
    ports[name] = port
    _replace(path, ports)
    return ports[name]


def spawn(name: str, command: Sequence[str | Path], home: Path, env: Mapping[str, str]) -> dict:
    """Start `command` in a session of its own, its output appended to `home/logs/<name>.log`.

    Returns the record that `find`, `wait` and `stop` want: pid, started (seconds since 1970) and
    log.
    """
    log = home / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        child = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=dict(env),
            start_new_session=True,
        )
    return {"pid": child.pid, "started": psutil.Process(child.pid).create_time(), "log": str(log)}


def find(record: Mapping) -> psutil.Process | None:
    """The recorded process if it still runs.

    The id is not enough: the system could have given it to another process by now.
    """
    try:
        process = psutil.Process(record["pid"])
        is_same = abs(process.create_time() - record["started"]) < 1
        if is_same and process.status() != psutil.STATUS_ZOMBIE:
            return process
    except psutil.NoSuchProcess:
        return None
    return None


def wait(record: Mapping, url: str, seconds: float) -> None:
    """Return when `url` answers 200. Raises StartError when the process dies or the time is up."""
    name = Path(record["log"]).stem
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not find(record):
            raise StartError(f"{name} ended while starting. {_log_end(record)}")
        if answers(url):
            return
        time.sleep(0.1)
    raise StartError(f"{name} did not answer at {url} within {seconds:.0f} s. {_log_end(record)}")


def answers(url: str) -> bool:
    """Whether a GET of `url` returns 200 within two seconds. A stranger that speaks no HTTP does
    not."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return response.status == 200
    except (OSError, http.client.HTTPException):  # urllib's errors are OSErrors.
        return False


def stop(record: Mapping, seconds: float = 10) -> None:
    """End the recorded process and its children: SIGTERM, after `seconds` SIGKILL. If it was
    killed, its children may still serve, and are ended."""
    members = family(record)
    if not members:
        for pid in orphans(record):
            kill(pid)
        return
    process = members[-1]
    process.terminate()
    _, left = psutil.wait_procs([process], timeout=seconds)
    for survivor in {*left, *(p for p in members if p.is_running())}:
        kill(survivor.pid)
    psutil.wait_procs(members, timeout=seconds)


def family(record: Mapping) -> list[psutil.Process]:
    """The recorded process, last, after all that it has started; empty if it does not run."""
    process = find(record)
    if not process:
        return []
    return [*process.children(recursive=True), process]


def orphans(record: Mapping) -> list[int]:
    """Ids of processes that the recorded one has left behind: they are of its session, and write
    into its log, as no stranger does."""
    log = os.path.realpath(record["log"])
    members = []
    for pid in psutil.pids():
        try:
            if os.getsid(pid) == record["pid"] and os.readlink(f"/proc/{pid}/fd/1") == log:
                members.append(pid)
        except OSError:  # It has ended, or belongs to somebody else.
            continue
    return members


def kill(pid: int) -> None:
    """Send SIGKILL; a process that has already ended is fine."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def read(home: Path) -> dict[str, dict]:
    """`run.json`: what was started, by service name."""
    path = home / "run.json"
    if not path.exists():
        return {}
    return json.loads(path.read_text())


def write(home: Path, running: Mapping[str, Mapping]) -> None:
    """Replace `run.json` at once, so that no reader sees half of it."""
    _replace(home / "run.json", running)


def _replace(path: Path, content: Mapping) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.tmp")
    draft.write_text(json.dumps(content, indent=1))
    draft.replace(path)


def _log_end(record: Mapping) -> str:
    lines = Path(record["log"]).read_text(errors="replace").splitlines()[-15:]
    return f"The end of {record['log']}:\n" + "\n".join(lines)
