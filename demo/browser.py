"""Web pages as pictures, seen by a headless Chromium: the program `chromium`, as Debian has it."""

import subprocess
import tempfile
from pathlib import Path

from PIL import Image

BARS = 200
"""Pixels of a window that the browser may leave empty, for bars that nobody sees."""
DARK = "--force-dark-mode"
"""Makes the browser prefer dark colours."""
COLOURS = 64
"""Of a picture; pages are text on plain ground."""
LOADING_MS = 15_000
"""Time that a page has for its scripts; it passes quickly while the page waits for nothing."""
SECONDS = 120
"""Seconds after which the browser will not end any more."""
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    # The stack answers on this machine, and no page may ask anybody else.
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    f"--virtual-time-budget={LOADING_MS}",
)


def photograph(url: str, path: Path, width: int, height: int, dark: bool = False) -> None:
    """Write the top of the page at `url`, `width` times `height` pixels, as a small PNG; `dark` is
    how somebody sees it whose screen is dark.

    Raises RuntimeError if Chromium makes no picture, and FileNotFoundError if there is no Chromium.
    """
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.png"
        command = ["chromium", *FLAGS, f"--user-data-dir={folder}/profile"]
        command += [f"--window-size={width},{height + BARS}", f"--screenshot={picture}"]
        if dark:
            command.append(DARK)
        command.append(url)
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        if not picture.exists():
            raise RuntimeError(f"Chromium made no picture of {url}: {done.stderr.strip()}")
        with Image.open(picture) as photo:
            # The default method drops colours of few pixels: red signs became brown.
            top = photo.crop((0, 0, width, height)).convert("RGB")
            few = top.quantize(COLOURS, Image.Quantize.MAXCOVERAGE)
            few.save(path, optimize=True)
