"""What `make setup` says about a Python or a machine before it installs anything."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deployments import interpreter, pythons
from tests.conftest import ROOT

OWN = "{}.{}".format(*sys.version_info)


@pytest.mark.parametrize("version", ["3.10", "3.13", "2.7"])
def test_another_python_is_refused_with_one_sentence(version: str):
    sentence = interpreter.version_problem(version)
    assert sentence.count(". ") == 0
    assert f"Python {version}" in sentence
    assert "it needs Python 3.11 or 3.12" in sentence
    assert "`make setup PYTHON=python3.1" in sentence


@pytest.mark.parametrize("library", ["glibc 2.31", "glibc 2.34", "", "musl"])
def test_another_c_library_is_refused(library: str):
    assert "it needs glibc 2.35 or newer" in interpreter.glibc_problem(library)
    assert library in interpreter.glibc_problem(library)


@pytest.mark.parametrize("library", ["glibc 2.35", "glibc 2.36", "glibc 2.41", "glibc 3.0.1"])
def test_a_newer_glibc_is_taken(library: str):
    assert not interpreter.glibc_problem(library)


def test_another_machine_is_refused():
    assert "Darwin on arm64" in interpreter.platform_problem("Darwin", "arm64")


def test_a_python_without_its_library_or_without_venv_is_refused(monkeypatch: pytest.MonkeyPatch):
    assert "lacks" not in interpreter.module_problem(OWN)
    assert not interpreter.library_problem(OWN)
    assert "comes without libpython3.99.so.1.0" in interpreter.library_problem("3.99")
    monkeypatch.setattr(sys, "path", [])
    assert f"python{OWN}-venv" in interpreter.module_problem(OWN)


def test_this_python_is_taken(tmp_path: Path):
    copy(tmp_path)
    program = [sys.executable, "-m", "deployments.interpreter"]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def copy(folder: Path) -> None:
    """The files of a clone that `make setup` reads before it installs anything."""
    (folder / "deployments").mkdir()
    for name in ("Makefile", "deployments/__init__.py", "deployments/interpreter.py"):
        shutil.copy(ROOT / name, folder / name)


def test_make_says_that_a_python_does_not_run(tmp_path: Path):
    copy(tmp_path)
    setup = ["make", "setup", "PYTHON=python3.99"]
    done = subprocess.run(setup, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode
    sentence, *_ = done.stderr.splitlines()
    assert sentence.startswith("Kreislauf cannot be installed: python3.99 does not run; install")
    assert "make setup PYTHON=" in sentence
    assert not (tmp_path / ".venv").exists()


def test_environments_of_another_python_are_removed(tmp_path: Path, capsys: pytest.CaptureFixture):
    for name in interpreter.ENVIRONMENTS:
        (tmp_path / name / "bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").touch()
    (tmp_path / ".venv/pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.12.1\n")
    interpreter.remove_environments(tmp_path, "3.12")
    assert (tmp_path / ".venv").exists()
    assert not capsys.readouterr().out
    interpreter.remove_environments(tmp_path, "3.11")
    assert "anew with Python 3.11: it was made with Python 3.12" in capsys.readouterr().out
    assert not list(tmp_path.glob(".venv*"))


def test_an_environment_whose_python_is_gone_is_removed_and_a_link_only_as_a_link(tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/pyvenv.cfg").write_text(f"version = {OWN}.1\n")
    (tmp_path / ".venv").symlink_to(tmp_path / "elsewhere")
    interpreter.remove_environments(tmp_path, OWN)
    assert not (tmp_path / ".venv").exists()
    assert (tmp_path / "elsewhere/pyvenv.cfg").exists()


def test_a_stand_in_is_no_python_and_one_of_pyenv_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    stand_in = tmp_path / "python3.99"
    stand_in.write_text("#!/bin/sh\nexit 127\n")
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert not pythons.installed("3.99")
    program = tmp_path / "versions/3.99.1/bin/python"
    program.parent.mkdir(parents=True)
    program.symlink_to(sys.executable)
    assert pythons.installed("3.99") == str(program)
