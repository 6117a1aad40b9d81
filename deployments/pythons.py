"""The Pythons beside the one of .venv: `make test-pythons`.

The quick tests run on each that is installed, in an environment of its own. For one that is not,
the lock has to resolve, and every wheel of it has to exist and to fit.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from deployments import installer, interpreter, lock

QUICK = (
    "tests/kreislauf/evaluation",
    "tests/kreislauf/sources/test_files.py",
    "tests/kreislauf/sources/test_parquet.py",
    "tests/models/test_metrics.py",
    "tests/models/test_session_recommender.py",
    "tests/operations/test_setup.py",
)
"""Tests that start no server."""
PLATFORM = "x86_64-manylinux_{}_{}".format(*interpreter.GLIBC)
WHEELS = ("-q", "--dry-run", "--only-binary", ":all:", "--python-platform", PLATFORM)


def main() -> None:
    """Test each Python but this one, and say how; ends the process where that fails."""
    own = "{}.{}".format(*sys.version_info)
    for version in interpreter.VERSIONS:
        program = installed(version)
        if version == own:
            print(f"Python {version}: the one of .venv, which `make test` tests.", flush=True)
        elif program:
            print(f"Python {version}: {program}, on which the quick tests run.", flush=True)
            test(version, program)
        else:
            check_wheels(version)
            print(
                f"Python {version}: not installed; the lock resolves, and every wheel exists, for "
                f"glibc {interpreter.GLIBC[0]}.{interpreter.GLIBC[1]}.",
                flush=True,
            )


def installed(version: str) -> str:
    """A Python of this version that runs: on the path, or one of pyenv's. Empty if none does."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    programs = [shutil.which(f"python{version}"), *pyenv.glob(f"{version}.*/bin/python")]
    return next((str(program) for program in programs if program and runs(program)), "")


def runs(program: str | Path) -> bool:
    """Whether it is a Python, and not a stand-in that asks which one is meant."""
    return subprocess.run([program, "-c", ""], capture_output=True).returncode == 0


def test(version: str, program: str) -> None:
    """Install what is locked with this Python, and run the quick tests."""
    environment = f".venv-{version}"
    python = f"{environment}/bin/python"
    options = installer.pip_options()
    install = ["pip", "install", "-q", "-p", python, "-c", lock.CONSTRAINTS, "-e", ".[dev]"]
    quick = [python, "-m", "pytest", "-q", "-n", "0", "-m", "not long and not system", *QUICK]
    failed = (
        installer.uv(["venv", "-q", "--allow-existing", "-p", program, environment], {})
        or installer.uv(install, options)
        or subprocess.call(quick, cwd=interpreter.ROOT)
    )
    if failed:
        sys.exit(f"Python {version}: the quick tests failed.")


def check_wheels(version: str) -> None:
    """End the process if a lock does not resolve for a Python, with wheels of a public index."""
    options = lock.public(installer.pip_options())
    for constraints, requirements in lock.LOCKS.items():
        with tempfile.TemporaryDirectory() as target:
            command = ["pip", "install", *WHEELS, "--python-version", version, "--target", target]
            if installer.uv([*command, "-c", constraints, "-r", *requirements], options):
                sys.exit(f"Python {version}: {constraints} does not hold.")


if __name__ == "__main__":
    main()
