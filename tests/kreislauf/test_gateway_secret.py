"""The gateway's secret is made once, for its owner's eyes, and found by who needs it."""

import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from kreislauf import exposures, gateway_secret
from kreislauf.settings import settings

GIVEN = "given-" + 30 * "s"


def key(purpose: str = "a purpose") -> bytes:
    return gateway_secret.key(settings(), purpose)


def test_a_home_gets_a_secret_that_only_its_owner_can_read_and_keeps_it(home: Path):
    first = key()
    file = home / "gateway" / "secret"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(file.read_text()) == 64
    assert key() == first != key("another purpose")
    assert os.listdir(file.parent) == ["secret"]


def test_all_who_start_at_once_have_the_same_secret(tmp_path: Path):
    start = threading.Barrier(8)

    def key_of(home: Path) -> bytes:
        here = settings().model_copy(update={"home": home})
        start.wait()
        return gateway_secret.key(here, "a purpose")

    with ThreadPoolExecutor(8) as pool:
        for turn in range(20):
            assert len(set(pool.map(key_of, [tmp_path / str(turn)] * 8))) == 1


def test_a_secret_in_the_environment_is_taken_and_shown_nowhere(home, monkeypatch):
    monkeypatch.setenv("KREISLAUF_GATEWAY_SECRET", GIVEN)
    assert key() == gateway_secret.key(settings(), "a purpose")
    assert not (home / "gateway").exists()
    assert GIVEN not in f"{settings()!r} {settings()} {settings().model_dump()}"


@pytest.mark.parametrize("source", ["KREISLAUF_GATEWAY_SECRET", "gateway/secret"])
def test_a_secret_that_can_be_guessed_is_refused_without_being_shown(home, monkeypatch, source):
    if source.startswith("KREISLAUF"):
        monkeypatch.setenv(source, "hunter2")
    else:
        (home / "gateway").mkdir(parents=True)
        (home / source).write_text("hunter2\n")
    with pytest.raises(gateway_secret.SecretError) as error:
        key()
    assert f"{source} has 7 characters, and needs 32" in str(error.value)
    assert "openssl rand -hex 32" in str(error.value)
    assert "hunter2" not in str(error.value)


def test_the_secret_of_another_user_is_named_with_the_cure(home: Path):
    key()
    here = settings()
    (home / "gateway" / "secret").chmod(0)
    with another_user(), pytest.raises(gateway_secret.SecretError, match="Run as the same user"):
        gateway_secret.key(here, "a purpose")


@contextmanager
def another_user():
    """Without root's rights, which a file's mode does not bind."""
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if was_root:
            os.seteuid(0)


def test_pseudonyms_of_integer_users_are_found_by_nobody_without_the_secret():
    shown = exposures.pseudonym("4711", key(exposures.PSEUDONYMS))
    mark, name = shown.split("-")
    assert name not in {exposures.unkeyed_pseudonym(str(user)) for user in range(5_000)}
    guesses = {exposures.pseudonym(str(user), b"").split("-")[1] for user in range(5_000)}
    assert name not in guesses
    assert mark == exposures.key_mark(key(exposures.PSEUDONYMS))
    assert shown == exposures.pseudonym("4711", key(exposures.PSEUDONYMS))
