"""The file of a model type's lifecycle page, beside its release log, where the gateway reads it."""

import fsspec

from kreislauf import object_store
from kreislauf.settings import settings


def write(model: str, html: str) -> None:
    """Replace the page; a reader sees the one before or this one, whole."""
    fs, path = _locate(model)
    object_store.replace(fs, path, html.encode())


def read(model: str) -> bytes | None:
    """The page; None if none was drawn yet."""
    fs, path = _locate(model)
    try:
        return fs.cat_file(path)
    except FileNotFoundError:
        return None


def address(model: str) -> str:
    """Path or s3:// address of the page."""
    return "/".join([settings().releases.rstrip("/"), model, "lifecycle.html"])


def _locate(model: str) -> tuple[fsspec.AbstractFileSystem, str]:
    return object_store.locate(settings().releases, model, "lifecycle.html")
