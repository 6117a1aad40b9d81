"""The glossary has every word that the UI, the metrics and the tables show; the words are taken
from the code."""

import importlib
import inspect
import re
from collections.abc import Collection
from pathlib import Path
from typing import get_args

import numpy as np
import polars as pl
import pytest
import yaml

from kreislauf import exposures
from kreislauf.clock import DAY_MS
from kreislauf.evaluation import decision, gate
from kreislauf.evaluation.intervals import Interval
from kreislauf.lake import approvals, exclusions, quarantine
from kreislauf.monitoring import diagnosis, feedback, inputs, probe, renamed, tables, window
from kreislauf.registry import studies
from models import spec
from models.session_recommender.schema import EVENT_TYPES
from serving import metrics
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "glossary.md").read_text()
ENTRIES = [row for row in re.findall(r"^\| (.+?) \| (.+) \|$", PAGE, re.M) if row[0] != "word"]
WORDS = {
    re.sub(r" \(.+\)", "", word).strip("`") for words, _ in ENTRIES for word in words.split(", ")
}


def explained(words: Collection[str]) -> None:
    assert words
    assert set(words) <= WORDS


def test_verdicts_outcomes_variants_and_states_are_explained():
    explained(get_args(diagnosis.Verdict))
    explained(get_args(gate.Outcome))
    explained(exposures.VARIANTS)
    explained(exposures.KINDS)
    explained(set(studies.STATUS))


def test_tables_are_explained():
    explained({*exposures.TABLES, quarantine.REJECTS, exclusions.DISTRUSTED, decision.DECISIONS})
    explained({exclusions.VERDICTS, approvals.APPROVALS})
    explained({tables.WINDOWS, tables.SLICES, tables.ALARMS})


def test_parameters_of_deployments_are_explained():
    names = set()
    for deployment in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]:
        module, name = deployment["entrypoint"].rsplit(".", 1)
        names |= set(
            inspect.signature(getattr(importlib.import_module(module), name).fn).parameters
        )
    explained(names - set(renamed.PARAMETERS))


def test_labels_of_the_metrics_are_explained():
    series = [item for item in vars(metrics.Metrics()).values() if hasattr(item, "_labelnames")]
    explained({label for item in series for label in item._labelnames})
    explained(metrics.REASONS)
    explained(metrics.SIGNAL_FIELDS)


def test_signals_of_the_monitor_are_explained(tmp_path: Path):
    model_type = spec.load("session_recommender")
    times = 10**12 + np.arange(400) * (2 * DAY_MS // 400)
    rows = pl.DataFrame(
        {"session": np.arange(400) // 4, "aid": np.arange(400) % 23, "ts": times, "type": "clicks"},
        schema_overrides={"type": pl.Enum(EVENT_TYPES)},
    )
    profile = model_type.training_profile(rows.lazy()).collect()
    trusted = window.TrustedRows.of(model_type.table, rows)
    newest = window.read_window(model_type, trusted, profile, int(times[0]), int(times[-1]))
    baseline = model_type.baseline(rows, tmp_path)
    version = probe.Probe(
        model_type, baseline, baseline, profile, rows, Interval(mean=0.5, low=0.4, high=0.6)
    )
    names = set(version.signals(newest, profile, rows.height))
    assert {"volume", "coverage", "refit_baseline", "unseen"} <= names
    explained(names)
    # Those that need loads and a gateway are measured, each by name, in files of their own.
    source = inspect.getsource(inputs.rejected_share) + inspect.getsource(
        feedback.clicks_per_answer
    )
    others = re.findall(r'return \{"(\w+)": ', source)
    assert sorted(others) == ["clicks", "rejected"]
    explained({*others, *renamed.SIGNALS.values()})


def test_the_entries_of_each_part_are_in_alphabetical_order_and_end_as_sentences():
    for part in PAGE.split("\n## ")[1:]:
        rows = re.findall(r"^\| (.+?) \| (.+) \|$", part, re.M)
        words = [word.strip("`").lower() for word, _ in rows[1:]]
        assert words == sorted(words)
    assert all(meaning.endswith(".") for _, meaning in ENTRIES)


@pytest.mark.parametrize("old", [*renamed.VERDICTS, *renamed.SIGNALS])
def test_no_former_name_is_explained(old: str):
    assert old not in WORDS
