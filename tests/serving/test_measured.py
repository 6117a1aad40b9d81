"""The benchmarks of serving measure what they say, on a small shop."""

import json
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from benchmarks import crowd, serving, swap
from benchmarks.rollback import MODEL, PLAN
from models import spec
from tests.serving.conftest import running

pytestmark = pytest.mark.slow

SMALL = replace(PLAN, days=14, sessions_per_day=60, articles=120)
TINY = spec.load(MODEL).Params.tiny().model_dump()


def test_the_serving_benchmark_asks_all_four(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    # It sets these itself; the test puts them back.
    for name in ("KREISLAUF_HOME", "KREISLAUF_DEADLINE_MS"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setattr(serving, "CONCURRENCY", (1, 2))
    result = serving.measure(SMALL, TINY, 1, 0.2, tmp_path)
    for name in ("ort", "triton", "gateway", "mlflow_serve"):
        assert 0 < result[f"{name}_1_p50"] <= result[f"{name}_1_p99"]
        assert result[f"{name}_2_per_second"] > 0
    assert result["triton_minus_ort_p50_ms"] == pytest.approx(
        result["triton_1_p50"] - result["ort_1_p50"], abs=0.02
    )
    assert result["gateway_over_mlflow_serve"] == pytest.approx(
        result["gateway_2_per_second"] / result["mlflow_serve_2_per_second"], abs=0.02
    )
    json.dumps(result)


def test_the_swap_benchmark_swaps_and_refuses(
    home, prefect_harness, mlflow_store, triton, tmp_path: Path, monkeypatch
):
    monkeypatch.setenv("KREISLAUF_DEADLINE_MS", "10000")
    with running() as gateway:
        url = f"http://{gateway}/v1/{MODEL}/predict"
        result = swap.measure(SMALL, TINY, 2, 2, tmp_path, url)
        assert httpx.post(url, json={"events": []}).status_code == 200
    assert (
        result["swaps"],
        result["broken"],
        result["failed_requests"],
        result["unapproved_answers"],
    ) == (2, 2, 0, 0)
    assert result["versions_seen"] == 3
    assert result["requests"] > 100


def test_an_answer_of_another_version_is_noticed(capsys: pytest.CaptureFixture[str]):
    class Shelf:
        answers = ([[1], [2]], [[3], [4]])

    def response(
        version: int, articles: list[int], status: int = 200, variant: str = "champion"
    ) -> crowd.Response:
        body = {"version": version, "variant": variant, "answer": {"article_ids": articles}}
        return crowd.Response(0.0, 0.0, 0, status, body)

    right = response(1, [1])
    file = response(2, [1])
    unknown = response(9, [1])
    late = response(1, [7], variant="fallback")
    failed = crowd.Response(0.0, 0.0, 0, 503, {"detail": "gone"})
    responses = [right, file, unknown, late, failed]
    result = swap.summary(responses, Shelf(), {1: 0, 2: 1}, [1, 2], 0)  # type: ignore[arg-type]
    assert (
        result["unapproved_answers"],
        result["fallbacks"],
        result["failed_requests"],
        result["swaps"],
    ) == (2, 1, 1, 1)
    assert "question 0: 503" in capsys.readouterr().out
