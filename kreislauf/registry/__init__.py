"""MLflow's registry: versions, their files, tags and aliases. The only folder that imports
mlflow."""

from kreislauf.registry.runs import Lineage, RegistryError
from kreislauf.registry.versions import (
    Version,
    aliases,
    artifact,
    attach,
    call_challenger,
    close,
    curves,
    find,
    finished,
    get,
    lineages,
    mirror,
    onnx_file,
    record_decision,
    register,
    sha256,
    versions,
)

__all__ = [
    "Lineage", "RegistryError", "Version", "aliases", "artifact", "attach", "call_challenger", "close", "curves",
    "find", "finished", "get", "lineages", "mirror", "onnx_file", "record_decision", "register", "sha256", "versions",
]  # fmt: skip
