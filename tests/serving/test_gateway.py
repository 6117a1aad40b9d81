"""The gateway in front of a real Triton: answers, variants, fallbacks, what it keeps, and what it
refuses."""

import threading
import time
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import httpx
import msgspec
import numpy as np
import psutil
import pytest
from starlette.testclient import TestClient

from deployments import processes, stack
from kreislauf.exposures import COLLECTING, EXPOSURES, FEEDBACK, Exposure, Feedback
from kreislauf.monitoring import status
from kreislauf.release import releases
from kreislauf.settings import settings
from serving import follow
from serving.app import create
from tests.serving.conftest import running
from tests.waiting import until


def spooled(which: int, line_type: type) -> list:
    """Lines of exposures (0) or feedback (1), in the order they were written."""
    segments = sorted(settings().spools[which].iterdir())
    return [
        msgspec.json.decode(line, type=line_type)
        for path in segments
        for line in path.read_bytes().splitlines()
    ]


def ask(gateway: TestClient, price: float = 150, **more: object) -> dict:
    response = gateway.post("/v1/tiny/predict", json={"price": price, **more})
    assert response.status_code == 200, response.text
    return response.json()


def metric(gateway: TestClient, start: str) -> float:
    lines = [line for line in gateway.get("/metrics").text.splitlines() if line.startswith(start)]
    return sum(float(line.split()[-1]) for line in lines)


def test_the_live_version_answers_and_the_answer_is_remembered(gateway: TestClient):
    answer = ask(gateway, 150, user="anna")
    assert (answer["version"], answer["variant"], answer["answer"]) == (
        1,
        "champion",
        {"returned": True},
    )
    (line,) = spooled(0, Exposure)
    assert (line.request_id, line.model, line.version, line.items) == (
        answer["request_id"],
        "tiny",
        1,
        "[true]",
    )
    assert line.user not in ("", "anna")
    assert 0 < line.latency_ms < 1_000
    assert gateway.get("/ready").status_code == gateway.get("/health").status_code == 200


def test_prometheus_sees_what_the_monitor_last_said(
    gateway: TestClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(follow, "POLLS_PER_STATUS", 1)
    monitor_status = status.MonitorStatus(
        model="tiny", version=1, end=5_000, at=9_000, verdict="stable"
    )
    status.write(
        monitor_status.model_copy(
            update={"signals": {"volume": status.SignalStatus(value=6.0, mean=5.0, tolerance=0.5)}}
        )
    )
    until(lambda: metric(gateway, 'kreislauf_monitor_verdict{model="tiny",verdict="stable"}') == 1)
    assert (
        metric(gateway, 'kreislauf_monitor_signal{model="tiny",part="value",signal="volume"}') == 6
    )
    assert metric(gateway, "kreislauf_monitor_run_seconds") == 9
    status.write(monitor_status.model_copy(update={"verdict": "concept drift"}))
    until(
        lambda: (
            metric(gateway, 'kreislauf_monitor_verdict{model="tiny",verdict="concept drift"}') == 1
        )
    )
    assert metric(gateway, 'kreislauf_monitor_verdict{model="tiny",verdict="stable"}') == 0
    assert metric(gateway, "kreislauf_monitor_signal") == 0, "a signal that is no more is not shown"
    (Path(settings().releases) / "tiny" / "monitor.json").write_text("{")
    time.sleep(3 * follow.POLL_SECONDS)
    assert gateway.get("/ready").status_code == 200, "answers do not depend on it"


def test_feedback_is_counted_by_variant_and_kept(gateway: TestClient):
    answer = ask(gateway)
    feedback = {"request_id": answer["request_id"], "model": "tiny", "kind": "click", "item": True}
    assert gateway.post("/v1/feedback", json=feedback).status_code == 204
    (line,) = spooled(1, Feedback)
    assert (line.request_id, line.version, line.variant, line.item) == (
        answer["request_id"],
        1,
        "champion",
        "true",
    )
    assert (
        metric(
            gateway,
            'kreislauf_feedback_total{kind="click",model="tiny",variant="champion",version="1"}',
        )
        == 1
    )


def test_counters_are_there_before_they_count(gateway: TestClient):
    ask(gateway)
    text = gateway.get("/metrics").text
    for line in (
        'kreislauf_feedback_total{kind="order",model="tiny",variant="champion",version="1"} 0.0',
        'kreislauf_fallbacks_total{model="tiny",reason="deadline"} 0.0',
        'kreislauf_release_errors_total{model="tiny"} 0.0',
        'kreislauf_lost_lines_total{table="feedback"} 0.0',
    ):
        assert line in text


def test_what_it_keeps_is_loaded_with_accounts_that_balance(
    gateway: TestClient, prefect_harness, mlflow_store
):
    from flows.collect import collect
    from kreislauf import lake

    ids = [ask(gateway, price, user="u")["request_id"] for price in range(5)]
    gateway.post(
        "/v1/feedback", json={"request_id": ids[0], "model": "tiny", "kind": "cart", "item": False}
    )
    done = collect()
    assert (
        done["exposures"].lines_in,
        done["exposures"].rows_kept,
        done["exposures"].lines_rejected,
    ) == (5, 5, 0)
    assert done["feedback"].rows_kept == 1
    joined = lake.read(EXPOSURES).join(lake.read(FEEDBACK), on="request_id")
    assert joined["request_id"].to_list() == ids[:1]
    assert not any(settings().spools[0].iterdir()), "what is loaded is off the disk"
    assert collect() == {}


def test_a_segment_that_no_gateway_closes_waits_and_is_named(
    gateway: TestClient, prefect_harness, mlflow_store, monkeypatch, caplog
):
    from flows import collect

    monkeypatch.setattr(collect, "CLOSING_SECONDS", 0.1)
    segment = settings().spools[0] / "1-of-a-gateway-that-is-gone.open"
    segment.write_bytes(b"{}")
    assert collect.collect() == {}
    assert [path.name for path in segment.parent.iterdir()] == [segment.name]
    assert f"The gateway has not closed 1 of its segments in {segment.parent}" in caplog.text
    segment.unlink()
    caplog.clear()
    collect.collect()
    assert "has not closed" not in caplog.text


def test_open_segments_of_both_folders_are_waited_for_at_once(
    gateway: TestClient, prefect_harness, mlflow_store, monkeypatch, caplog
):
    from flows import collect

    segments = [folder / "1-of-a-gateway-that-is-gone.open" for folder in settings().spools]
    for segment in segments:
        segment.write_bytes(b"{}")
    wishes = []

    def sleep(_: float) -> None:
        wishes.append([(segment.parent / COLLECTING).exists() for segment in segments])
        time.sleep(0.02)

    monkeypatch.setattr(collect, "CLOSING_SECONDS", 0.1)
    monkeypatch.setattr(collect, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    collect.collect()
    assert wishes
    assert all(wish == [True, True] for wish in wishes)
    assert all(
        [path.name for path in segment.parent.iterdir()] == [segment.name] for segment in segments
    )
    assert caplog.text.count("The gateway has not closed 1 of its segments in") == 2


def test_a_torn_line_is_kept_aside_and_stops_nothing(
    gateway: TestClient, prefect_harness, mlflow_store
):
    from flows.collect import collect
    from kreislauf import lake

    folder = settings().spools[0]
    (folder / "1-killed.jsonl").write_bytes(b'{"request_id": "torn')
    (folder / "2-killed-before-its-first-line.jsonl").touch()
    (settings().spools[1] / "._3.jsonl").write_bytes(b"of a file browser")
    done = collect()
    assert (done["exposures"].lines_in, done["exposures"].lines_rejected) == (1, 1)
    assert lake.rejects(EXPOSURES)["raw"].to_list() == [b'{"request_id": "torn']
    assert not list(folder.glob("*.jsonl"))


def test_segments_that_were_loaded_from_another_folder_are_deleted(
    prefect_harness, mlflow_store, tmp_path, monkeypatch
):
    from flows.collect import collect
    from flows.ingest import ingest
    from kreislauf import lake

    folder = settings().spools[0]
    folder.mkdir(parents=True)
    (folder / "1.jsonl").write_bytes(b'{"request_id": "torn')
    # A kill came between the load and the deletion; then the spool was moved.
    ingest(str(folder), table="exposures", max_reject_share=1)
    moved = tmp_path / "moved"
    Path(settings().spool).rename(moved)
    monkeypatch.setenv("KREISLAUF_SPOOL", str(moved))
    done = collect()
    assert (done["exposures"].files_loaded, done["exposures"].files_already_loaded) == (0, 1)
    assert not list(moved.rglob("*.jsonl"))
    assert len(lake.rejects(EXPOSURES)) == 1


def test_a_segment_that_cannot_be_loaded_stays_and_keeps_no_other_one(
    prefect_harness, mlflow_store, monkeypatch
):
    from flows import collect
    from kreislauf import lake

    folder = settings().spools[0]
    folder.mkdir(parents=True)
    for name in ("bad", "good"):
        (folder / f"{name}.jsonl").write_bytes(b'{"request_id": "' + name.encode())
    load_file = lake.load_file

    def load_only_good(table, file, *arguments):
        if "bad" in str(file.path):
            raise lake.LakeError("It cannot be loaded.")
        return load_file(table, file, *arguments)

    monkeypatch.setattr("tasks.lake.lake.load_file", load_only_good)
    with pytest.raises(collect.IngestError, match="1 of 2 files could not be loaded"):
        collect.collect()
    assert [path.name for path in folder.glob("*.jsonl")] == ["bad.jsonl"]
    assert len(lake.rejects(EXPOSURES)) == 1


def test_segments_are_closed_again_when_their_folder_is_back(gateway: TestClient):
    inner = gateway.app.state.gateway
    inner.exposures.seconds = 0
    ask(gateway)
    folder = settings().spools[0]
    folder.rename(folder.with_name("gone"))
    until(lambda: inner.exposures._file < 0)
    folder.mkdir()
    ask(gateway)
    until(lambda: list(folder.glob("*.jsonl")))


def test_a_new_release_is_followed_without_a_restart(gateway: TestClient, live):
    assert ask(gateway, 150)["answer"] == {"returned": True}
    live(2)
    until(lambda: ask(gateway, 150)["version"] == 2)
    assert ask(gateway, 150)["answer"] == {"returned": False}
    assert (
        metric(gateway, 'kreislauf_release{model="tiny"}')
        == metric(gateway, "kreislauf_champion")
        == 2
    )


def test_two_releases_between_two_looks_into_the_log_cost_no_answer(live, monkeypatch):
    monkeypatch.setattr("serving.follow.POLL_SECONDS", 60)
    live(1)
    with TestClient(create(settings())) as gateway:
        live(2)
        live(3)
        # Version 1 is no longer resident.
        answer = ask(gateway, 150)
    assert (answer["version"], answer["variant"]) == (3, "champion")


def test_a_slow_release_log_does_not_delay_an_answer(live, monkeypatch):
    monkeypatch.setattr("serving.follow.POLL_SECONDS", 60)
    monkeypatch.setenv("KREISLAUF_DEADLINE_MS", "500")
    live(1)
    with TestClient(create(settings())) as gateway:
        live(2)
        live(3)
        current = releases.current
        monkeypatch.setattr(
            "kreislauf.release.releases.current", lambda name: time.sleep(4) or current(name)
        )
        began = time.monotonic()
        assert ask(gateway)["variant"] == "fallback"
        assert time.monotonic() - began < 2


def test_a_release_log_that_is_gone_leaves_in_force_what_was(gateway: TestClient, home: Path):
    (home / "releases").rename(home / "unmounted")
    until(lambda: metric(gateway, 'kreislauf_release_errors_total{model="tiny"}') > 0)
    assert ask(gateway)["variant"] == "champion"


def test_releases_are_followed_although_no_fallback_can_be_stored(
    gateway: TestClient, live, home: Path
):
    (home / "gateway" / "tiny.tmp").mkdir()
    live(2)
    until(lambda: gateway.app.state.gateway.follower.models["tiny"].fallback_version == 2)
    live(3)
    until(lambda: metric(gateway, 'kreislauf_release{model="tiny"}') == 3)


def test_half_a_stored_fallback_does_not_keep_a_gateway_from_starting(live, home: Path):
    live(1)
    (home / "gateway").mkdir(parents=True)
    (home / "gateway" / "tiny.json").write_text('{"return')
    with TestClient(create(settings())) as gateway:
        assert gateway.get("/ready").status_code == 200


def test_users_keep_their_variant_and_a_share_of_them_gets_the_challenger(
    gateway: TestClient, live
):
    live(1, challenger=2, share=0.5)
    until(lambda: gateway.app.state.gateway.follower.models["tiny"].release.challenger == 2)
    first = [ask(gateway, 150, user=user)["variant"] for user in range(60)]
    assert first == [ask(gateway, 150, user=user)["variant"] for user in range(60)]
    assert set(first) == {"champion", "challenger"}
    answers = {
        answer["variant"]: answer["answer"]["returned"]
        for answer in (ask(gateway, 150, user=u) for u in range(60))
    }
    assert answers == {"champion": True, "challenger": False}
    lines = spooled(0, Exposure)
    assert [line.arm for line in lines[:60]] == first
    number = gateway.app.state.gateway.follower.models["tiny"].release.number
    assert {line.release for line in lines} == {number}


def test_users_of_the_arm_without_a_model_get_what_is_good_for_everyone(live):
    live(1)
    after = releases.current("tiny")
    more = {"challenger": releases.NO_MODEL, "share": 0.5, "is_hold_back": True}
    releases.append("tiny", 1, "a test", "a test", after, **more)
    with TestClient(create(settings())) as gateway:
        answers = [ask(gateway, 150, user=f"user {number}") for number in range(40)]
        by_arm = Counter((each["version"], each["variant"]) for each in answers)
        assert set(by_arm) == {(1, "champion"), (0, "challenger")}
        for each in answers:
            assert each["answer"] == {"returned": each["version"] == 1}
        without = next(each for each in answers if each["version"] == 0)
        click = {"request_id": without["request_id"], "model": "tiny", "kind": "click"}
        assert gateway.post("/v1/feedback", json=click | {"item": False}).status_code == 204
        assert metric(gateway, "kreislauf_fallbacks_total") == 0
    assert spooled(1, Feedback)[0].version == 0
    lines = spooled(0, Exposure)
    assert Counter((line.version, line.arm) for line in lines) == by_arm


def test_who_gets_the_fallback_stays_in_the_arm(gateway: TestClient, live, monkeypatch):
    live(1, challenger=2, share=1.0)
    follower = gateway.app.state.gateway.follower
    until(lambda: follower.models["tiny"].release.challenger == 2)
    monkeypatch.setattr(gateway.app.state.gateway, "deadline", 0.0)
    answer = ask(gateway, 150)
    assert (answer["variant"], answer["version"]) == ("fallback", 1)
    (line,) = spooled(0, Exposure)
    assert (line.variant, line.arm, line.release) == (
        "fallback",
        "challenger",
        follower.models["tiny"].release.number,
    )


def test_a_challenger_without_a_share_is_asked_in_the_shadow_and_never_shown(
    gateway: TestClient, live
):
    live(1, challenger=2, share=0.0)
    until(lambda: gateway.app.state.gateway.follower.models["tiny"].release.challenger == 2)
    assert {ask(gateway, price, user=price)["version"] for price in (50, 150)} == {1}
    until(lambda: metric(gateway, "kreislauf_shadow_overlap_count") == 2)
    assert metric(gateway, "kreislauf_shadow_overlap_sum") == 1


@pytest.mark.slow
def test_a_dead_triton_is_answered_for_and_its_return_is_noticed(
    own_triton, gateway: TestClient, live, home: Path
):
    assert ask(gateway)["variant"] == "champion"
    processes.stop(own_triton)
    began = time.monotonic()
    answer = ask(gateway, 150)
    assert time.monotonic() - began < 1
    assert (answer["variant"], answer["answer"]) == ("fallback", {"returned": False})
    assert metric(gateway, 'kreislauf_fallbacks_total{model="tiny",reason="unavailable"}') == 1
    assert [line.variant for line in spooled(0, Exposure)] == ["champion", "fallback"]
    with TestClient(create(settings())) as restarted:
        assert restarted.get("/ready").status_code == 200
        assert ask(restarted)["variant"] == "fallback"
    again = stack.up(home, ("triton",))["triton"]
    try:
        assert again["grpc"] == own_triton["grpc"]
        until(lambda: ask(gateway)["variant"] == "champion")
    finally:
        processes.stop(again)


@pytest.mark.slow
def test_triton_killed_under_load_costs_no_answer_and_no_exposure(
    own_triton, live, home: Path, monkeypatch
):
    monkeypatch.setenv("KREISLAUF_DEADLINE_MS", "500")
    live(1)
    responses: list[tuple[float, httpx.Response]] = []
    over = threading.Event()

    def client() -> None:
        with httpx.Client(timeout=30) as http:
            while not over.is_set():
                began = time.monotonic()
                response = http.post(
                    f"http://{address}/v1/tiny/predict", json={"price": 150, "user": "anna"}
                )
                responses.append((time.monotonic() - began, response))

    def count(variant: str) -> int:
        return sum(response.json().get("variant") == variant for _, response in list(responses))

    with running() as address, ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(client) for _ in range(8)]
        try:
            until(lambda: count("champion") > 50)
            psutil.Process(own_triton["pid"]).kill()
            until(lambda: count("fallback") > 50)
            again = stack.up(home, ("triton",))["triton"]
            try:
                before = count("champion")
                until(lambda: count("champion") > before + 50, seconds=60)
            finally:
                processes.stop(again)
        finally:
            over.set()
        for done in clients:
            done.result()
    commands = [process.info["cmdline"] for process in psutil.process_iter(["cmdline"])]
    backends = f"{home / 'triton-backends'}/"
    assert not [command for command in commands if command and command[0].startswith(backends)]
    assert {response.status_code for _, response in responses} == {200}
    # Half a second of deadline; the rest is eight clients and a server on a busy machine.
    assert max(seconds for seconds, _ in responses) < 3
    assert Counter(line.request_id for line in spooled(0, Exposure)) == Counter(
        response.json()["request_id"] for _, response in responses
    )


def test_a_late_answer_is_replaced_at_the_deadline(live, monkeypatch):
    live(1)
    monkeypatch.setenv("KREISLAUF_DEADLINE_MS", "0")
    with TestClient(create(settings())) as gateway:
        assert ask(gateway)["variant"] == "fallback"
        assert metric(gateway, 'kreislauf_fallbacks_total{model="tiny",reason="deadline"}') == 1


def test_an_answer_of_nan_is_replaced(live, monkeypatch):
    live(1)
    with TestClient(create(settings())) as gateway:
        monkeypatch.setattr(
            "tritonclient.grpc.InferResult.as_numpy", lambda *_: np.array([[np.nan]], np.float32)
        )
        assert ask(gateway)["variant"] == "fallback"
        assert metric(gateway, 'kreislauf_fallbacks_total{model="tiny",reason="unavailable"}') == 1


def test_nothing_live_is_said(gateway: TestClient):
    response = gateway.post("/v1/session_recommender/predict", json={"events": []})
    assert response.status_code == 503
    assert "run the flow retrain" in response.json()["detail"]
    assert response.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/v1/tiny/predict", b"{", 400, "no JSON"),
        ("/v1/tiny/predict", b'{"price": NaN}', 400, "no JSON"),
        ("/v1/tiny/predict", b"[" * 100_000, 400, "no JSON"),
        ("/v1/tiny/predict", b'{"price": "\xff"}', 400, "no JSON"),
        ("/v1/tiny/predict", b"", 400, "no JSON"),
        ("/v1/tiny/predict", b"[1]", 422, "Send an object"),
        ("/v1/tiny/predict", b'{"price": "dear"}', 422, '"price" must be a number'),
        ("/v1/tiny/predict", b'{"price": 1, "user": true}', 422, "user must be"),
        ("/v1/tiny/predict", b'{"price": 1, "user": "' + b"x" * 201 + b'"}', 422, "user must be"),
        ("/v1/tiny/predict", b" " * 1_000_001, 413, "longer than"),
        (
            "/v1/nothing/predict",
            b"{}",
            404,
            "session_recommender_text, support_answers, tiny.",
        ),
        ("/v1/feedback", b"{}", 422, "is missing or unknown"),
        (
            "/v1/feedback",
            b'{"request_id":"a","model":"tiny","kind":"click","item":1}',
            422,
            "send it back",
        ),
        (
            "/v1/feedback",
            b'{"request_id":7,"model":["tiny"],"kind":"click","item":1}',
            404,
            "Known",
        ),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(
    gateway: TestClient, path: str, body: bytes, status: int, says: str
):
    response = gateway.post(path, content=body)
    assert (response.status_code, says in response.json()["detail"]) == (status, True), (
        response.text
    )
    assert "Traceback" not in response.text
    assert spooled(0, Exposure) == []


def test_no_depth_of_nesting_is_an_error_of_the_server(gateway: TestClient):
    start = (
        b'{"request_id":"%s","model":"tiny","kind":"click","item":'
        % ask(gateway)["request_id"].encode()
    )
    statuses = {
        gateway.post("/v1/feedback", content=start + b"[" * depth + b"]" * depth + b"}").status_code
        for depth in range(900, 1000)
    }
    assert statuses == {400, 422}


def test_a_parsed_request_is_not_kept_while_triton_is_asked(gateway: TestClient, monkeypatch):
    class Parsed(dict):
        pass

    parsed: list[weakref.ref] = []

    def parse(body: bytes) -> dict:
        content = Parsed(msgspec.json.decode(body))
        parsed.append(weakref.ref(content))
        return content

    async def asked(*_: object) -> dict:
        assert parsed[0]() is None
        return {"returned": np.array([[True]])}

    monkeypatch.setattr("serving.parsing.parse", parse)
    monkeypatch.setattr(gateway.app.state.gateway.triton, "ask", asked)
    ask(gateway)
    assert len(parsed) == 1


def test_a_token_is_wanted_where_one_is_set(live, monkeypatch):
    live(1)
    monkeypatch.setenv("KREISLAUF_GATEWAY_TOKEN", "secret")
    with TestClient(create(settings())) as gateway:
        for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}):
            assert (
                gateway.post("/v1/tiny/predict", json={"price": 1}, headers=header).status_code
                == 401
            )
            assert gateway.get("/metrics", headers=header).status_code == 401
        right = {"Authorization": "Bearer secret"}
        assert gateway.post("/v1/tiny/predict", json={"price": 1}, headers=right).status_code == 200
        assert gateway.get("/health").status_code == 200
