"""MLflow's registry: versions, their files, tags and aliases. The only folder that imports
mlflow."""

from kreislauf.registry.artifacts import (
    amend,
    artifact,
    attach,
    attached,
    curves,
    detach,
    onnx_file,
    sha256,
)
from kreislauf.registry.marks import call_challenger, close, mirror, record_decision
from kreislauf.registry.registration import delete, register
from kreislauf.registry.runs import Lineage, RegistryError, digest_inputs
from kreislauf.registry.versions import Version, find, finished, get, lineages, lookup, versions

__all__ = [
    "Lineage",
    "RegistryError",
    "Version",
    "amend",
    "artifact",
    "attach",
    "attached",
    "call_challenger",
    "close",
    "curves",
    "delete",
    "detach",
    "digest_inputs",
    "find",
    "finished",
    "get",
    "lineages",
    "lookup",
    "mirror",
    "onnx_file",
    "record_decision",
    "register",
    "sha256",
    "versions",
]
