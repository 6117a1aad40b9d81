"""A batch: which requests are asked, and which version answers them."""

from pydantic import BaseModel, ConfigDict

from models.mapping import Mapping


class Batch(BaseModel):
    """The requests of a window of a table, or of a file, and the version that answers them."""

    model_config = ConfigDict(frozen=True)

    name: str
    """`place`, and a digest of all that the answers depend on."""
    place: str
    """Model, version, and a digest of where the requests are: of the batches of one place, one is
    in the table, the newest."""
    model: str
    version: int
    onnx: str
    """SHA-256 of the file that answers."""
    source: str
    """Name of the table, or path of the file of requests."""
    table_version: int | None = None
    """Version of the table whose rows are asked; None for a file."""
    start: int | None = None
    """Beginning of the window, ms since 1970 UTC; None for a file."""
    end: int | None = None
    """End of the window, exclusive, ms since 1970 UTC; None for a file."""
    mapping: Mapping | None = None
    """How the words of a file's requests become the model type's; None: they are these already."""
    stamp: str | None = None
    """Digest of path, size and time of change of the file; None for a window."""
    ts: int
    """Time of the answers, in the data's time: ms since 1970 UTC."""
    units: int
    """What is dealt out to shards: groups, for lasting groups their times, or lines."""
    shards: int = 1
