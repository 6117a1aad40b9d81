"""A gateway in front of a real Triton that serves two versions of the tiny model type."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from starlette.testclient import TestClient

from deployments import processes
from kreislauf.release import releases
from kreislauf.release import triton as triton_task
from kreislauf.settings import settings
from models import spec
from serving.app import create, listen

RECOMMENDER = "session_recommender"


@pytest.fixture
def live(
    request: pytest.FixtureRequest, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., releases.Release]:
    """Puts versions of the tiny model type in force: version `v` says "returned" above the price
    `100 v`."""
    # A busy machine is no reason for a fallback here.
    monkeypatch.setenv("KREISLAUF_DEADLINE_MS", "10000")
    if "own_triton" not in request.fixturenames:
        request.getfixturevalue("triton")
    from models.tiny import write

    def put(champion: int, challenger: int | None = None, share: float = 0.0) -> releases.Release:
        after = releases.current(tiny)
        release = releases.append(
            tiny, champion, "a test", "a test", after, challenger, share, 1_700_000_000_000
        )
        for version in release.versions:
            triton_task.add_version(
                tiny, version, write(tmp_path / f"{version}.onnx", 100.0 * version)
            )
        triton_task.serve(tiny, release.versions)
        return release

    return put


@contextmanager
def running() -> Iterator[str]:
    """Address of a gateway that listens."""
    port = processes.free_port()
    server = uvicorn.Server(listen(settings(), "127.0.0.1", port))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def listening(live) -> Iterator[str]:
    """Address of a gateway that listens, a challenger in its shadow."""
    live(1, challenger=2, share=0.0)
    with running() as address:
        yield address


@pytest.fixture
def gateway(live, home: Path) -> Iterator[TestClient]:
    """A started gateway, version 1 being live."""
    live(1)
    with TestClient(create(settings())) as client:
        yield client


@pytest.fixture
def addresses(triton: dict, small_shop, tmp_path: Path) -> Iterator[dict[str, str]]:
    """GATEWAY, TRITON and VERSION, the recommender's table being live."""
    triton_task.add_version(RECOMMENDER, 1, spec.load(RECOMMENDER).baseline(small_shop, tmp_path))
    triton_task.serve(RECOMMENDER, [1])
    releases.append(RECOMMENDER, 1, "a test", "a test", after=None)
    with running() as gateway:
        yield {"GATEWAY": f"http://{gateway}", "TRITON": triton["grpc"], "VERSION": "1"}
