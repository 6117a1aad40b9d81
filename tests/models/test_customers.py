"""A model type whose groups last: customers are cut in time, and lose hours, not their history."""

import json
import math
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks import row_reads
from kreislauf import lake, registry
from kreislauf.clock import DAY_MS, HOUR_MS
from kreislauf.evaluation import gate, split
from kreislauf.evaluation.intervals import Interval
from kreislauf.lake import exclusions
from kreislauf.monitoring import suspicion
from kreislauf.monitoring.probe import Probe
from kreislauf.monitoring.tail_probe import TailProbe
from kreislauf.monitoring.window import TrustedRows, read_window
from kreislauf.training import inputs
from models import spec
from tests.conftest import ROOT
from tests.kreislauf.lake.test_lake import File

T0 = 1_700_000_000_000
CUSTOMERS = 400
DAYS = 20
PER_DAY = 200
"""Purchases a day: each customer buys every other day."""


@pytest.fixture
def customers(other_models: Path, tiny: str, monkeypatch: pytest.MonkeyPatch) -> spec.ModelSpec:
    """The model type, with its purchases in the lake."""
    folder = other_models / "customers"
    folder.mkdir()
    shutil.copyfile(ROOT / "tests" / "models" / "customers.py", folder / "__init__.py")
    model_type = spec.load("customers")
    lines = [purchase(number) for number in range(DAYS * PER_DAY)]
    lake.load_file(model_type.table, File("shop/purchases.jsonl", lines))
    return model_type


def purchase(number: int) -> bytes:
    price = number * 37 % 199
    values = {
        "order": number,
        "customer": number % CUSTOMERS,
        "ts": T0 + number * DAY_MS // PER_DAY,
        "price": float(price),
        "returned": price > 50,
    }
    return json.dumps(values).encode()


def test_customers_of_old_are_judged_in_the_hold_out_and_learnt_from_before_it(customers):
    data = inputs.read_newest(customers)
    needed = split.groups_needed(customers.policy)
    assert needed <= data.cut.groups <= CUSTOMERS
    judged = split.started(data.rows, customers.table, data.cut.holdout, data.cut.watermark)
    learnt = data.rows.filter(pl.col("ts") < data.cut.holdout)
    assert judged.height + learnt.height == data.rows.height, "no row is lost, none is in both"
    assert set(judged["customer"]) <= set(learnt["customer"])
    assert judged["customer"].n_unique() == data.cut.groups


@pytest.mark.usefixtures("mlflow_store")
def test_the_gate_judges_them(customers, monkeypatch):
    monkeypatch.setattr(row_reads, "MODEL", "customers")
    row_reads.retrain(customers)
    version = registry.get("customers", 1)
    decision = gate.Decision.model_validate_json(version.decision)
    assert decision.outcome == "promote"
    assert decision.groups == version.lineage.groups >= split.groups_needed(customers.policy)


def test_the_monitor_asks_for_all_who_bought_in_the_window(customers):
    rows = lake.read(customers.table)
    profile = customers.training_profile(rows.lazy()).collect()
    trusted = TrustedRows.of(customers.table, rows)
    start = T0 + 15 * DAY_MS
    window = read_window(customers, trusted, profile, start, T0 + DAYS * DAY_MS)
    assert window.sample.equals(rows.filter(pl.col("ts") >= start))


def test_a_window_says_no_more_of_them_the_longer_it_is(customers):
    rows = lake.read(customers.table)
    profile = customers.training_profile(rows.lazy()).collect()
    trusted = TrustedRows.of(customers.table, rows)
    end = T0 + 15 * DAY_MS
    short, long = (
        read_window(customers, trusted, profile, end - days * DAY_MS, end - 1) for days in (1, 10)
    )
    assert short.groups == PER_DAY < long.groups == CUSTOMERS
    assert not {"rows_per_group", "duration"} & set(short.statistics)
    volumes = [window.statistics["volume"] for window in (short, long)]
    assert volumes == pytest.approx([math.log(PER_DAY)] * 2), "purchases a day"


def test_who_buys_a_lot_is_no_robot_because_a_tail_is_longer_than_the_hold_out(customers, tmp_path):
    holdout = often(0, 1)
    onnx = customers.baseline(holdout, tmp_path)
    profile = customers.training_profile(holdout.lazy()).collect()
    reference = Interval(mean=1.0, low=1.0, high=1.0)
    probe = TailProbe(Probe(customers, onnx, onnx, profile, holdout, reference))
    tails = partial(probe.tails, end=T0 + 3 * DAY_MS - 1, length=8 * DAY_MS, histories={})
    rows = often(1, 3)
    assert tails(rows)[-1].groups == 40
    assert suspicion.fault(tails(rows)) is None
    robots = pl.concat([rows, *[rows.filter(pl.col("customer") < 12).tail(200)] * 5])
    robots = robots.with_columns(order=pl.int_range(pl.len()))
    assert "robots?" in suspicion.fault(tails(robots)).evidence


def often(first: int, last: int) -> pl.DataFrame:
    """Purchases from a day to another of 40 customers, of whom each buys 30 times a day."""
    rng = np.random.default_rng(first)
    count = 40 * 30 * (last - first)
    return pl.DataFrame(
        {
            "order": range(count),
            "customer": rng.integers(0, 40, count),
            "ts": T0 + np.sort(rng.integers(first * DAY_MS, last * DAY_MS, count)),
            "price": 10.0,
            "returned": False,
        }
    )


def test_a_distrusted_hour_costs_its_rows_and_no_customer(customers):
    start = T0 + 10 * DAY_MS
    end = start + HOUR_MS - 1
    everything = lake.read(customers.table)
    exclusions.exclude(customers.table.name, start, end, "noise")
    data = inputs.read_newest(customers)
    lost = everything.filter(pl.col("ts").is_between(start, end))
    assert lost.height == 9
    assert data.rows.equals(everything.join(lost, on="order", how="anti", maintain_order="left"))
