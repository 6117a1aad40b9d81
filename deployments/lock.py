"""Resolve pyproject.toml into constraints.txt, with hashes. `make lock`.

One lock holds for all Pythons that Kreislauf runs on. It is resolved from pip's index alone: what
lies in a wheel folder is not there for others. The CPU build of torch is no public release of its
own. Its hash is taken from pip's wheel folder, if there is one, and stands beside those of the
public build.
"""

import hashlib
import re
import sys
from pathlib import Path

from deployments import installer, interpreter

COMPILE = ("--universal", "--generate-hashes", "--no-header", "--no-annotate", "-q")
CONSTRAINTS = "constraints.txt"
TRITON = "deployments/triton/constraints.txt"
LOCKS = {
    CONSTRAINTS: ("pyproject.toml", "--extra", "dev"),
    TRITON: ("deployments/triton/requirements.in",),
}
"""What each file of constraints locks, as uv's arguments."""
LOCAL = ("find-links", "extra-index-url", "constraint")
"""Options of pip for what this machine has, and others may not."""


def main() -> None:
    """Lock both environments."""
    options = installer.pip_options()
    oldest, *_ = interpreter.VERSIONS
    for constraints, requirements in LOCKS.items():
        command = ["pip", "compile", *COMPILE, "--python-version", oldest, *requirements]
        code = installer.uv([*command, "-o", constraints], public(options))
        if code:
            sys.exit(code)
    for place in options.get("find-links", "").split():
        for wheel in Path(place).glob("torch-*+cpu-*.whl"):
            add_hash(wheel)


def public(options: dict[str, str]) -> dict[str, str]:
    """The options without those for what this machine has."""
    return {name: value for name, value in options.items() if name not in LOCAL}


def add_hash(wheel: Path) -> None:
    """Add the wheel's hash to those of its version. Ends the program if it is not locked."""
    version = wheel.name.split("-")[1].split("+")[0]
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    file = interpreter.ROOT / CONSTRAINTS
    text = file.read_text()
    head = re.search(rf"^torch=={re.escape(version)}\b.* \\\n", text, re.M)
    if not head:
        raise SystemExit(
            f"{wheel.name} is not the version that was resolved: torch=={version} is missing."
        )
    if digest not in text:
        line = f"    --hash=sha256:{digest} \\\n"
        file.write_text(text[: head.end()] + line + text[head.end() :])


if __name__ == "__main__":
    main()
