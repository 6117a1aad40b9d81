"""Folders as people name them: with a space, an umlaut, `%` and `#`, with `~`, relative; the tests
in tests/e2e have such a home."""

import subprocess

import pytest

from deployments import stack
from kreislauf import lake, plain_names, sources
from kreislauf.settings import settings
from models import spec
from tests.conftest import ROOT


def test_a_tilde_is_the_home_folder_and_relative_folders_do_not_move(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KREISLAUF_HOME", "~/kh")
    monkeypatch.setenv("KREISLAUF_SPOOL", "~/spool")
    monkeypatch.setenv("KREISLAUF_LAKE", "lake")
    monkeypatch.setenv("KREISLAUF_RELEASES", "s3://shop/releases")
    monkeypatch.chdir(tmp_path)
    here = settings()
    assert here.home == tmp_path / "kh"
    assert here.spool == str(tmp_path / "spool")
    assert here.lake == str(tmp_path / "lake")
    assert here.releases == "s3://shop/releases"
    assert here.training == str(tmp_path / "kh" / "training")


@pytest.mark.parametrize("data", ["a b.jsonl", "größer #1 100%.jsonl"])
def test_the_demo_takes_data_with_any_name(tmp_path, data):
    line = ["make", "-n", "demo", f"DATA={tmp_path / data}"]
    printed = subprocess.run(line, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    command = next(line for line in printed.splitlines() if "-m demo" in line)
    words = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {command.lstrip('@')}"],
        check=True, capture_output=True, text=True,
    ).stdout.splitlines()  # fmt: skip
    assert words[words.index("--data") + 1] == str(tmp_path / data)


def test_postgres_starts_from_a_checkout_with_an_odd_name(home, tmp_path):
    checkout = tmp_path / "a reader's clone"
    checkout.mkdir()
    (checkout / ".venv").symlink_to((ROOT / ".venv").resolve())
    code = f"from deployments import stack; stack.up(stack.Path({str(home)!r}), ('postgres',))"
    try:
        command = [checkout / ".venv" / "bin" / "python", "-c", code]
        subprocess.run(command, cwd=ROOT, check=True)
    finally:
        stack.down(home)


def test_a_lake_in_a_folder_with_an_odd_name(tmp_path, monkeypatch):
    folder = tmp_path / "größer #1 100%"
    monkeypatch.setenv("KREISLAUF_LAKE", str(folder / "lake"))
    table = spec.load("session_recommender").table
    folder.mkdir()
    raw = folder / "a b?.jsonl"
    raw.write_text(
        '{"session": 1, "events": [{"aid": 5, "ts": 1661724000000, "type": "clicks"}]}\n'
    )
    for _ in range(2):
        lake.load_file(table, sources.open_file(str(raw), table))
    assert lake.read(table).height == 1
    assert lake.watermark(table) == 1_661_724_000_000
    assert (folder / "lake" / "events" / "_delta_log").is_dir()


def test_a_name_that_delta_lake_takes_for_another_one_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("KREISLAUF_LAKE", str(tmp_path / "a%20b"))
    with pytest.raises(lake.LakeError, match="a%20b/events: Delta Lake takes % and two"):
        lake.watermark(spec.load("session_recommender").table)


def test_a_home_with_an_odd_name_has_a_plain_link(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    odd = tmp_path / "mein größer #1 Laden 100%"
    monkeypatch.setenv("KREISLAUF_HOME", str(odd))
    home = settings().home
    assert plain_names.PLAIN.fullmatch(str(home))
    assert home.resolve() == odd
    assert settings().home == home
    monkeypatch.setenv("KREISLAUF_HOME", str(home))
    assert settings().home == home
    monkeypatch.setenv("KREISLAUF_HOME", str(tmp_path / "plain"))
    assert settings().home == tmp_path / "plain"
