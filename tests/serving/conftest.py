"""A gateway in front of a real Triton that serves two versions of the tiny model type."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from deployments import processes, stack
from serving.app import create
from tasks import releases
from tasks import triton as triton_task
from tasks.settings import settings


@pytest.fixture
def own_triton(home: Path) -> Iterator[dict]:
    """A Triton that a test may kill."""
    record = stack.up(home, ("triton",))["triton"]
    yield record
    processes.stop(record)


@pytest.fixture
def live(request: pytest.FixtureRequest, tiny: str, tmp_path: Path) -> Callable[..., releases.Release]:
    """Puts versions of the tiny model type in force: version `v` says "returned" above the price `100 v`."""
    if "own_triton" not in request.fixturenames:
        request.getfixturevalue("triton")
    from models.tiny import write

    def put(champion: int, challenger: int | None = None, share: float = 0.0) -> releases.Release:
        after = releases.current(tiny)
        release = releases.append(tiny, champion, "a test", "a test", after, challenger, share, 1_700_000_000_000)
        for version in release.versions:
            triton_task.add_version(tiny, version, write(tmp_path / f"{version}.onnx", 100.0 * version))
        triton_task.serve(tiny, release.versions)
        return release

    return put


@pytest.fixture
def gateway(live, home: Path) -> Iterator[TestClient]:
    """A started gateway, version 1 being live."""
    live(1)
    with TestClient(create(settings())) as client:
        yield client
