"""Resolve pyproject.toml into constraints.txt, with hashes. `make lock`.

The CPU build of torch is no public release of its own. Its hash is taken from the wheel folder that
pip uses, if there is one, and stands beside those of the public build.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

COMPILE = (
    "pip",
    "compile",
    "--generate-hashes",
    "--python-version",
    "3.11",
    "--no-header",
    "--no-annotate",
    "-q",
)
ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"


def main(links: list[str]) -> None:
    """Lock both environments; `links` are uv's arguments that name the wheel folders."""
    uv = Path(sys.executable).parent / "uv"
    subprocess.run(
        [uv, *COMPILE, "pyproject.toml", "--extra", "dev", "-o", CONSTRAINTS], cwd=ROOT, check=True
    )
    triton = ROOT / "deployments" / "triton"
    subprocess.run(
        [uv, *COMPILE, "requirements.in", "-o", "constraints.txt"], cwd=triton, check=True
    )
    folders = [Path(link) for link in links if link != "--find-links"]
    for folder in folders:
        for wheel in folder.glob("torch-*+cpu-*.whl"):
            add_hash(wheel)


def add_hash(wheel: Path) -> None:
    """Add the wheel's hash to those of its version. Ends the program if it is not locked."""
    version = wheel.name.split("-")[1].split("+")[0]
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    head = f"torch=={version} \\\n"
    text = CONSTRAINTS.read_text()
    if head not in text:
        raise SystemExit(
            f"{wheel.name} is not the version that was resolved: {head.strip()} is missing."
        )
    if digest not in text:
        CONSTRAINTS.write_text(text.replace(head, f"{head}    --hash=sha256:{digest} \\\n"))


if __name__ == "__main__":
    main(sys.argv[1:])
