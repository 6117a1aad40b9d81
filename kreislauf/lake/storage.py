"""Where the lake's tables are, and what goes wrong when their storage does not answer."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import polars as pl
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from kreislauf import full_disk
from kreislauf.full_disk import DiskFull
from kreislauf.settings import settings

S3_OPTIONS = {"aws_allow_http": "true", "connect_timeout": "3s", "retry_timeout": "5s"}
"""Options of Delta and Polars, with which an unreachable S3 fails in seconds, not minutes.

Plain http is only spoken if AWS_ENDPOINT_URL says so."""
FILESYSTEM_LIMITS = {
    "connect_timeout": 3,
    "read_timeout": 20,
    "retries": {"total_max_attempts": 2},
}
"""Options of botocore, to the same end."""
ENCODED = re.compile("%[0-9A-Fa-f]{2}")
ATTEMPTS = 50
"""Maximum races against other writers that are lost before the error `too_busy`."""


class LakeError(ValueError):
    """A table is not there, or holds other things than asked for; the message says what to do."""


class LakeUnreachable(LakeError, ConnectionError):
    """The lake's storage does not answer: the same call may succeed later."""


def too_busy(name: str) -> LakeError:
    """The error of a writer that has lost `ATTEMPTS` races."""
    return LakeError(
        f"Table {name} is too busy: {ATTEMPTS} times another writer was faster. Run again."
    )


def uri(name: str) -> str:
    """Where a table is. Raises LakeError for a folder that Delta Lake takes for another one."""
    address = f"{settings().lake.rstrip('/')}/{name}"
    if options(address) is None:
        folder = os.path.realpath(address)
        if ENCODED.search(folder):
            raise LakeError(
                f"The lake cannot be in {folder}: Delta Lake takes % and two hexadecimal digits "
                "for another character. Rename the folder, or set KREISLAUF_LAKE to another one."
            )
    return address


def options(address: str) -> dict[str, str] | None:
    """Storage options for an address in the lake, None for a folder."""
    return S3_OPTIONS if address.startswith("s3://") else None


def filesystem(name: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a table, and the table's folder there."""
    address = uri(name)
    if options(address) is None:
        return fsspec.core.url_to_fs(address)
    return fsspec.core.url_to_fs(address, config_kwargs=FILESYSTEM_LIMITS)


@contextmanager
def answering(name: str) -> Iterator[None]:
    """Turn what the libraries raise when the storage does not answer into LakeUnreachable, or into
    DiskFull."""
    from botocore.exceptions import BotoCoreError

    try:
        with full_disk.named(_local_folders(name)):
            yield
    except (CommitFailedError, TableNotFoundError, LakeError, DiskFull):
        raise
    except (OSError, BotoCoreError) as error:
        raise _unreachable(name, error) from error
    except (DeltaError, pl.exceptions.ComputeError) as error:
        if "object" not in str(error).lower():
            raise
        raise _unreachable(name, error) from error


def _local_folders(name: str) -> dict[str | Path, str]:
    """Folders on this machine that are written to for a table, and the variables that move them."""
    address = uri(name)
    if options(address) is None:
        return {address: "KREISLAUF_LAKE"}
    return {settings().home: "KREISLAUF_HOME", tempfile.gettempdir(): "TMPDIR"}


def _unreachable(name: str, error: Exception) -> LakeUnreachable:
    return LakeUnreachable(
        f"The lake at {uri(name)} does not answer ({_in_one_line(error)}). "
        "Check KREISLAUF_LAKE, the AWS_* variables and the network."
    )


def _in_one_line(error: Exception) -> str:
    """The message of an error; Delta's has many coloured lines."""
    return " ".join(re.sub(r"\x1b\[\d*m|↳", "", str(error)).split())
