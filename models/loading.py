"""Model types among all that there are, and their code."""

import hashlib
import inspect
from pathlib import Path

import polars as pl

from models import spec


def load_sound() -> tuple[list[spec.ModelSpec], dict[str, Exception]]:
    """The model types that can be loaded, and why each other one cannot: one that is broken must
    not stop the rest."""
    sound = []
    broken: dict[str, Exception] = {}
    for name in spec.names():
        try:
            sound.append(spec.load(name))
        except Exception as error:
            broken[name] = error
    return sound, broken


def twin_for_text(model_type: spec.ModelSpec) -> spec.ModelSpec | None:
    """The model type with the same columns whose ids are text, if this one's are not."""
    own = model_type.table
    if own.dtypes[own.group] == pl.String:
        return None
    sound, _ = load_sound()
    for twin in sound:
        dtypes = twin.table.dtypes
        if dtypes.names() == own.dtypes.names() and dtypes[own.group] == pl.String:
            return twin
    return None


def code_digest(model_type: spec.ModelSpec) -> str:
    """Digest of the code of the model type and of trainings: changed code is another training."""
    folder = Path(inspect.getfile(type(model_type))).parent
    shared = ("spec", "table", "runtime", "checkpoints", "onnx_export", "parity")
    files = [*sorted(folder.glob("*.py")), *(Path(__file__).with_stem(name) for name in shared)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
