"""What `make faults` draws and counts: each check has an offender that is planted here."""

import json
import statistics
from types import SimpleNamespace

import pytest

from benchmarks import fault_checks, fault_data, faults
from benchmarks.crowd import Response
from benchmarks.fault_points import POINTS
from kreislauf.release.releases import Release


def test_each_point_has_its_turn_and_a_run_can_be_repeated_alone():
    todo = faults.plans(2 * len(POINTS), 22, list(POINTS))
    assert [plan.number for plan in todo] == [*range(1, len(todo) + 1)]
    first, second = todo[: len(POINTS)], todo[len(POINTS) :]
    assert {plan.point for plan in first} == {plan.point for plan in second} == set(POINTS)
    assert [plan.point for plan in first] != [plan.point for plan in second]
    assert faults.plans(len(todo), 22, list(POINTS)) == todo
    (alone,) = faults.plans(1, todo[3].seed, [todo[3].point])
    assert (alone.seed, alone.point) == (todo[3].seed, todo[3].point)
    assert len({plan.seed for plan in todo}) == len(todo)


def test_the_line_has_what_was_stuck_and_what_was_violated():
    plans = faults.plans(3, 1, ["worker"])
    results = [
        faults.Outcome(plans[0], "RUNNING for 1.0 s", ["CRASHED", "COMPLETED"], 20.4),
        faults.Outcome(plans[1], "RUNNING for 2.0 s", seconds=31.0, violations=["a", "b"]),
        faults.Outcome(plans[2], "RUNNING for 3.0 s", problem="TimeoutError: the loop closes"),
    ]
    assert str(results[0]) == (
        "  1 seed 1 worker: RUNNING for 1.0 s; retrainings CRASHED COMPLETED; closed in 20 s; ok"
    )
    assert str(results[1]).endswith("closed in 31 s; a; b")
    assert str(results[2]).endswith("stuck; TimeoutError: the loop closes")
    result = faults.summary(results)
    assert (result["runs"], result["points"]) == (3, 1)
    assert (result["stuck"], result["violations"]) == (1, 2)
    assert result["seconds"] == {"worker": [20, 31]}
    assert result["median_seconds"] == statistics.median([20, 31])
    assert faults.summary(results[2:])["slowest_seconds"] is None


def test_the_shop_changes_with_each_arrival():
    shares = []
    for arrival in range(6):
        rows = [json.loads(line) for line in fault_data.orders(arrival).splitlines()]
        numbers = [row["order"] for row in rows]
        assert numbers == [*range(arrival * fault_data.ROWS, (arrival + 1) * fault_data.ROWS)]
        assert rows[-1]["ts"] == fault_data.order_time(numbers[-1])
        shares.append(sum(row["returned"] for row in rows) / len(rows))
    expected = (0.78, 0.5, 0.22, 0.64, 0.36, 0.78)
    assert shares == [pytest.approx(share, abs=0.05) for share in expected]


@pytest.mark.parametrize(
    ("types", "count"),
    [
        (("SCHEDULED", "PENDING", "RUNNING", "COMPLETED"), 0),
        (("SCHEDULED", "PENDING", "RUNNING", "CRASHED"), 0),
        (("RUNNING", "COMPLETED", "CRASHED", "COMPLETED"), 0),
        (("RUNNING", "COMPLETED", "CRASHED", "SCHEDULED", "PENDING", "RUNNING"), 1),
        (("RUNNING", "CANCELLING", "CANCELLED", "RUNNING"), 1),
    ],
)
def test_a_run_that_runs_again_after_its_end_is_counted(types, count):
    assert len(fault_checks.revived({"run": types})) == count


def notes(*seconds_and_processes: tuple[float, int]) -> list[dict]:
    """What processes of a training have written down."""
    return [
        {"time": time, "process": process, "training": "t"}
        for time, process in seconds_and_processes
    ]


def test_two_processes_on_one_training_are_counted():
    handed_over = notes((0, 1), (1, 1), (2, 2), (2.5, 1), (5, 2))
    assert fault_checks.overlaps(handed_over) == []
    assert len(fault_checks.overlaps([*handed_over, *notes((6, 1))])) == 1
    separate = [
        entry | {"training": str(entry["process"])} for entry in notes((0, 1), (1, 2), (9, 1))
    ]
    assert fault_checks.overlaps(separate) == []


def log(*champions: int) -> list[Release]:
    """A release log."""
    return [
        Release(model="m", number=n, champion=v, watermark=10 * v, reason="", who="")
        for n, v in enumerate(champions, 1)
    ]


def test_a_release_log_that_is_not_as_it_should_be_is_counted():
    assert fault_checks.log_errors(log(1, 2, 4), refused=[3]) == []
    assert len(fault_checks.log_errors(log(1, 2, 3), refused=[3])) == 1
    assert len(fault_checks.log_errors(log(1, 2, 2), refused=[])) == 1
    assert len(fault_checks.log_errors(log(2, 1), refused=[])) == 1
    assert len(fault_checks.log_errors(log(1, 2, 3)[1:], refused=[])) == 1


def test_a_request_may_fail_while_the_gateway_is_down_only():
    def respond(began: float, status: int, version: int = 1) -> Response:
        return Response(began, began + 1, 0, status, {"version": version, "variant": "fallback"})

    outages = [(10.0, 20.0)]
    excused = [respond(5, 200), respond(9.5, 0), respond(15, 0), respond(21, 503), respond(30, 200)]
    assert fault_checks.failed_requests(excused, outages, [1]) == []
    for offender in (respond(5, 0), respond(30, 503), respond(30, 200, version=2)):
        assert len(fault_checks.failed_requests([offender], outages, [1])) == 1


def test_a_slot_that_nobody_uses_is_counted():
    assert fault_checks.leaks({"retrain": (0, 0), "ingest": (1, 1)}) == []
    assert len(fault_checks.leaks({"retrain": (1, 0), "ingest": (0, 1)})) == 2


def test_an_account_names_a_problem_once(monkeypatch: pytest.MonkeyPatch):
    problems = ["a"]
    monkeypatch.setattr(fault_checks, "violations", lambda *_: problems)
    account = faults.Account(SimpleNamespace(), SimpleNamespace(responses=[]))
    assert account.violations() == ["a"]
    problems.append("b")
    assert account.violations() == ["b"]
