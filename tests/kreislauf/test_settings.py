"""Settings are read once, and anew after every change."""

import json
import os
from pathlib import Path

import pytest

from kreislauf.settings import WrongSetting, settings


def test_settings_are_read_anew_after_a_change_and_only_then(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    home.mkdir()
    first = settings()
    assert settings() is first, "nothing has changed"
    assert first.triton_url == ""

    record = home / "run.json"
    for url in ("127.0.0.1:1001", "127.0.0.1:1002"):
        draft = tmp_path / "draft"
        draft.write_text(json.dumps({"triton": {"grpc": url}}))
        draft.replace(record)
        assert settings().triton_url == url
    record.unlink()
    assert settings().triton_url == ""

    monkeypatch.setenv("KREISLAUF_TRITON_URL", "triton:8001")
    assert settings().triton_url == "triton:8001"
    monkeypatch.delenv("KREISLAUF_TRITON_URL")
    assert settings().triton_url == ""


@pytest.mark.parametrize("value", ["0.7", "5%", ""])
def test_a_value_that_a_variable_cannot_have_is_named(monkeypatch: pytest.MonkeyPatch, value: str):
    monkeypatch.setenv("KREISLAUF_HOLD_BACK", value)
    with pytest.raises(WrongSetting, match=rf"^KREISLAUF_HOLD_BACK is '{value}': Input should be"):
        settings()


def test_folders_follow_the_working_directory_and_the_users_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("KREISLAUF_HOME")
    for name in ("here", "there"):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        assert settings().home == Path(os.path.realpath(folder)) / ".kreislauf"
    monkeypatch.setenv("KREISLAUF_HOME", "~/shop")
    for name in ("anna", "ben"):
        monkeypatch.setenv("HOME", str(tmp_path / name))
        assert settings().home == tmp_path / name / "shop"
