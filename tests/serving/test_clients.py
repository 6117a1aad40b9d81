"""The examples in docs/serving.md, run as they stand there against a real gateway and Triton."""

import os
import re
import shutil
import subprocess
import sys

import httpx
import polars as pl
import pytest

from tests.conftest import ROOT

DOCS = (ROOT / "docs" / "serving.md").read_text()
MODEL = "session_recommender"


@pytest.mark.parametrize("language", ["sh", "python"])
def test_the_examples_of_the_documentation_work(addresses: dict[str, str], language: str):
    if language == "sh" and not shutil.which("curl"):
        pytest.skip("no curl on this machine")
    blocks = re.findall(rf"```{language}\n(.*?)```", DOCS, re.S)
    examples = [block for block in blocks if "prefect deployment" not in block]
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


def test_a_session_is_answered_as_it_was_learnt_whatever_its_order(
    addresses: dict[str, str], small_shop: pl.DataFrame
):
    longest = small_shop["session"].mode().min()
    rows = small_shop.filter(session=longest).sort("ts").select("aid", "ts", "type")
    events = rows.with_columns(pl.col("type").cast(pl.String)).to_dicts()
    assert len({event["aid"] for event in events}) > 2

    def ask(events: list[dict]) -> httpx.Response:
        url = f"{addresses['GATEWAY']}/v1/{MODEL}/predict"
        return httpx.post(url, json={"session": 7, "events": events})

    assert ask(events).json()["answer"] == ask(events[::-1]).json()["answer"]
    refusal = ask([event | {"ts": event["ts"] // 1000} for event in events])
    assert refusal.status_code == 422
    assert "Send ms since 1970, not seconds" in refusal.json()["detail"]
