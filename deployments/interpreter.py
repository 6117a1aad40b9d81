"""Whether Kreislauf can be installed with a Python: `PYTHON -m deployments.interpreter`.

`make setup` asks before it installs anything. Pythons as old as 3.7 can run this file, so that they
too get a sentence that says what is wrong. It removes environments that another Python made.
"""

import ctypes
import importlib.util
import os
import platform
import shutil
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ("3.11", "3.12")
"""Triton's wheel speaks to numpy 1 only, which has no wheel for a newer Python."""
GLIBC = (2, 35)
"""The oldest that the wheels of Postgres and Triton run on."""
ENVIRONMENTS = (".venv", ".venv-triton")


def main() -> None:
    """End the process with one sentence if this Python does not fit."""
    version = "{}.{}".format(*sys.version_info)
    problem = (
        version_problem(version)
        or platform_problem(platform.system(), platform.machine())
        or glibc_problem(libc())
        or module_problem(version)
        or library_problem(version)
    )
    if problem:
        sys.exit("Kreislauf cannot be installed: " + problem)
    remove_environments(ROOT, version)


def version_problem(version: str) -> str:
    """A sentence if the Python is not one of `VERSIONS`, with those that are installed."""
    if version in VERSIONS:
        return ""
    programs = [f"python{number}" for number in reversed(VERSIONS)]
    installed = [program for program in programs if shutil.which(program)]
    remedy = "choose another" if installed else "install one of them, and choose it"
    example = (installed or programs)[0]
    return (
        f"it needs Python {' or '.join(VERSIONS)}, and {sys.executable} is Python {version}; "
        f"{remedy} with `make setup PYTHON={example}`."
    )


def platform_problem(system: str, machine: str) -> str:
    """A sentence if the machine is not one that Triton's wheel is made for."""
    if (system, machine) == ("Linux", "x86_64"):
        return ""
    return f"it needs Linux on x86-64, and this is {system} on {machine}."


def libc() -> str:
    """Name and version of the C library, such as `glibc 2.36`; empty if it is not glibc."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except ValueError:
        return ""


def glibc_problem(library: str) -> str:
    """A sentence if the C library, as `libc` names it, is older than `GLIBC`, or another one."""
    _name, _space, version = library.partition(" ")
    numbers = version.split(".")[:2]
    if version and tuple(map(int, numbers)) >= GLIBC:
        return ""
    return (
        "it needs glibc 2.35 or newer, as Debian 12 and Ubuntu 22.04 have it, "
        f"and this system has {library or 'another C library'}."
    )


def module_problem(version: str) -> str:
    """A sentence if this Python makes no virtual environments, as Debian's without a package."""
    if importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip"):
        return ""
    return (
        f"{sys.executable} lacks the modules venv and ensurepip; "
        f"install them, in Debian the package python{version}-venv."
    )


def library_problem(version: str) -> str:
    """A sentence if there is no shared library of this Python, which Triton's models run in."""
    name = f"libpython{version}.so.1.0"
    folder = Path(sysconfig.get_config_var("LIBDIR") or "")
    for library in (str(folder / name), name):
        try:
            ctypes.CDLL(library)
        except OSError:
            continue
        return ""
    return (
        f"{sys.executable} comes without {name}, which Triton needs; "
        f"install it, in Debian the package libpython{version}."
    )


def remove_environments(root: Path, version: str) -> None:
    """Remove what another Python has made, or one that is gone, so that it is made anew."""
    folder = root / ENVIRONMENTS[0]
    if not folder.exists():
        return
    former = environment_version(folder)
    if former == version and (folder / "bin/python").exists():
        return
    print(f"{folder} is made anew with Python {version}: it was made with Python {former}.")
    for name in ENVIRONMENTS:
        folder = root / name
        if folder.is_symlink():
            folder.unlink()
        else:
            shutil.rmtree(str(folder), ignore_errors=True)


def environment_version(folder: Path) -> str:
    """Version of the Python that made a virtual environment, such as `3.11`; empty if unclear."""
    configuration = folder / "pyvenv.cfg"
    lines = configuration.read_text().splitlines() if configuration.exists() else []
    for line in lines:
        key, _sign, value = line.partition("=")
        if key.strip() in ("version", "version_info"):
            return ".".join(value.strip().split(".")[:2])
    return ""


if __name__ == "__main__":
    main()
