"""The examples in docs/serving.md, run as they stand there against a real gateway and Triton."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kreislauf.release import releases
from kreislauf.release import triton as triton_task
from models import spec
from tests.conftest import ROOT
from tests.serving.conftest import running

DOCS = (ROOT / "docs" / "serving.md").read_text()
MODEL = "session_recommender"


@pytest.fixture
def addresses(triton: dict, small_shop, tmp_path: Path) -> Iterator[dict[str, str]]:
    """GATEWAY, TRITON and VERSION, the recommender's table being live."""
    triton_task.add_version(MODEL, 1, spec.load(MODEL).baseline(small_shop, tmp_path))
    triton_task.serve(MODEL, [1])
    releases.append(MODEL, 1, "a test", "a test", after=None)
    with running() as gateway:
        yield {"GATEWAY": f"http://{gateway}", "TRITON": triton["grpc"], "VERSION": "1"}


@pytest.mark.parametrize("language", ["sh", "python"])
def test_the_examples_of_the_documentation_work(addresses: dict[str, str], language: str):
    if language == "sh" and not shutil.which("curl"):
        pytest.skip("no curl on this machine")
    examples = re.findall(rf"```{language}\n(.*?)```", DOCS, re.S)
    assert examples
    for example in examples:
        command = (
            [sys.executable, "-c", example] if language == "python" else ["sh", "-ec", example]
        )
        done = subprocess.run(command, env=os.environ | addresses, capture_output=True, text=True)
        assert (done.returncode, done.stderr if language == "python" else "") == (0, ""), (
            done.stderr
        )
        assert "champion" in done.stdout or "[[" in done.stdout
