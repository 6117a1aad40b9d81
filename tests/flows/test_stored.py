"""A lake, a registry, a release log and a status file of commit 46dd79c, whose names were others.

tests/stored/make.py says what is in them.
"""

import sqlite3
import tarfile
from pathlib import Path

import msgspec
import polars as pl
import pytest

from flows.ingest import ingest
from flows.monitor import monitor
from flows.retrain import retrain
from kreislauf import lake, registry
from kreislauf.evaluation import gate
from kreislauf.exposures import EXPOSURES, Exposure
from kreislauf.lake import exclusions, journal
from kreislauf.monitoring import alarms, calibration, renamed, status, tables
from kreislauf.pages import life
from kreislauf.registry import studies
from kreislauf.release import releases
from models import spec
from models.spec import Policy
from tests.conftest import ROOT

MODEL = "session_recommender"
OLD_HOME = "/tmp/pytest-of-root/pytest-4/test_make0/home"
"""Where the artifacts were: MLflow stores whole paths."""
OLD_NAMES = {*renamed.VERDICTS, *renamed.SIGNALS}


@pytest.fixture
def stored(home: Path) -> Path:
    """The state, unpacked, with MLflow's paths to where it is now."""
    home.mkdir(parents=True, exist_ok=True)
    with tarfile.open(ROOT / "tests" / "stored" / "46dd79c.tar.xz") as archive:
        archive.extractall(home, filter="data")
    with sqlite3.connect(home / "mlflow" / "mlflow.db") as database:
        names = database.execute("select name from sqlite_master where type = 'table'").fetchall()
        for (table,) in names:
            for _, column, kind, *_ in database.execute(f"pragma table_info('{table}')").fetchall():
                if kind.upper().startswith(("VARCHAR", "TEXT")):
                    replaced = f'replace("{column}", ?, ?)'
                    database.execute(
                        f'update "{table}" set "{column}" = {replaced} where "{column}" like ?',
                        (OLD_HOME, str(home), f"%{OLD_HOME}%"),
                    )
    return home


def test_exposures_of_yesterday_get_the_columns_of_today(stored, tmp_path):
    before = lake.read(EXPOSURES)
    assert before["arm"].null_count() == before.height
    newest = before["ts"].max() + 1
    line = Exposure("new", newest, MODEL, 1, "fallback", "u", "[]", 1.0, 7, "challenger")
    old_line = {**msgspec.to_builtins(line), "request_id": "old gateway"}
    del old_line["release"], old_line["arm"]
    lines = [msgspec.json.encode(each) for each in (line, old_line)]
    segment = tmp_path / "segment.jsonl"
    segment.write_bytes(b"\n".join(lines) + b"\n")
    ingest(str(segment), table=EXPOSURES.name)
    rows = lake.read(EXPOSURES).sort("ts", "request_id").select("request_id", "release", "arm")
    assert rows.tail(2).rows() == [("new", 7, "challenger"), ("old gateway", 0, None)]
    assert rows.height == before.height + 2


def test_the_lake_of_yesterday_is_read(stored):
    table = spec.load(MODEL).table
    assert lake.read(table).height == sum(load.rows_kept for load in lake.history(table))
    assert sorted(lake.rejects(table)["reason"]) == ["bad-json", "out-of-range"]
    assert len(exclusions.intervals("events")) == 1
    version = registry.get(MODEL, 3)
    lineage = version.lineage
    rows = lake.rebuild(
        table, lineage.table_version, lineage.watermark, lineage.digest, lineage.without
    )
    assert lineage.without == exclusions.intervals("events")
    assert rows["ts"].max() == lineage.watermark


def test_the_registry_and_the_release_log_of_yesterday_are_read(stored):
    assert [release.champion for release in releases.history(MODEL)] == [1, 2]
    assert [version.number for version in registry.versions(MODEL)] == [3, 2, 1]
    champion = registry.get(MODEL, 2)
    assert gate.Decision.model_validate_json(champion.decision).outcome == "promote"
    assert champion.closed
    assert champion.proven
    profile = pl.read_parquet(registry.artifact(champion, "training_profile"))
    assert profile.columns == ["aid", "ts", "seen"]
    (study,) = {trial.state for trial in studies.trials(studies.get(MODEL, study_name()))}
    assert study == "finished"


def study_name() -> str:
    """The name of the only search."""
    from mlflow import MlflowClient

    from kreislauf.settings import settings

    client = MlflowClient(settings().mlflow_url)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments)
    names = {run.data.tags["mlflow.runName"] for run in runs}
    (name,) = {name for name in names if len(name) == 12 and int(name, 16)}
    return name


def test_the_monitor_s_tables_and_status_of_yesterday_have_today_s_names(stored):
    raw = journal.read(tables.WINDOWS)
    assert OLD_NAMES & {*raw["verdict"], *raw["signal"]}, "there is something to rename"
    windows = tables.read(tables.WINDOWS)
    assert not OLD_NAMES & {*windows["verdict"], *windows["signal"]}
    assert windows.height == raw.height
    assert windows["length_bin"].to_list() == raw["octave"].to_list()
    assert set(windows["verdict"]) == {"calibration", "stable", "concept drift"}
    drift = windows.filter(pl.col("verdict") == "concept drift")
    start, end = drift.select("start", "end").unique().row(0)
    reference = calibration.reference_windows(windows, MODEL, 1, start, end)
    assert {"refit_baseline", "label_correlation", "sample_rows"} <= set(reference["signal"])
    assert set(reference["verdict"]) == {"calibration", "stable"}

    recorded = tables.read(tables.ALARMS)
    assert recorded["verdict"].to_list() == ["concept drift"] * 2
    alarms.resolve(MODEL, end, "once more")
    assert tables.read(tables.ALARMS).height == 2, "it was resolved yesterday"

    newest = status.read(MODEL)
    assert newest.verdict == "concept drift"
    assert {"refit_baseline", "refit_baseline_tail", "label_correlation"} <= set(newest.signals)
    live = newest.signals["recall@20"]
    assert live.mean - live.value > 0.3
    assert live.tolerance > 0


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_harness", "triton")
def test_the_loop_goes_on_from_yesterday(stored, monkeypatch):
    model_type = spec.load(MODEL)
    policy = Policy(min_effect=0.1, baseline_margin=0.05, min_groups=100)
    monkeypatch.setattr(type(model_type), "policy", policy)
    # A deployment of yesterday still gives the former names.
    finding = monitor(window_days=3, cost=0.0, needed=1, of=1)
    assert finding.version == 2
    assert finding.verdict != "not enough data", finding.reason
    windows = tables.read(tables.WINDOWS)
    assert windows.filter(version=2, verdict="calibration").height > 0
    assert windows["length_bin"].null_count() == 0
    result = retrain(MODEL, params=model_type.Params.tiny().model_dump())
    assert result.version == 4
    page = life.read(model_type)
    assert page.windows["flow_run"].is_null().to_list() == [True] * 2 + [False], "of yesterday"
    assert page.decisions["flow_run"].is_null().to_list() == [True] * 2 + [False]
    assert not any(release.flow_run for release in page.log[:2])
    version = registry.get(MODEL, 4)
    assert version.lineage.parent == 2, "it started from yesterday's weights"
    assert version.lineage.without == exclusions.intervals("events")
    assert "training_profile" in version.digests


@pytest.mark.parametrize(("former", "name"), renamed.PARAMETERS.items())
def test_a_parameter_under_its_former_name_counts(former, name):
    given = renamed.parameters({name: 1}, {former: 0.5})
    assert given == {name: 0.5}
    assert renamed.parameters({name: 1}, {former: None}) == {name: 1}


def test_rows_of_yesterday_and_of_today_stand_in_one_table():
    rows = pl.DataFrame(
        {
            "octave": [28, None],
            "length_bin": [None, 29],
            "verdict": ["world changed", "concept drift"],
            "signal": ["fresh", "refit_baseline"],
        }
    )
    merged = renamed.table(rows)
    assert merged["length_bin"].to_list() == [28, 29]
    assert merged["verdict"].to_list() == ["concept drift"] * 2
    assert merged["signal"].to_list() == ["refit_baseline"] * 2
    assert "octave" not in merged.columns
