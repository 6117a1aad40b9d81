"""MLflow's registry: versions, their files, tags and aliases. Only this folder imports mlflow."""

from kreislauf.registry.artifacts import (
    artifact,
    attach,
    attached,
    curves,
    detach,
    onnx_file,
    sha256,
)
from kreislauf.registry.lineage import Lineage, digest_inputs
from kreislauf.registry.marks import call_challenger, close, mirror, record_decision
from kreislauf.registry.registration import delete, register
from kreislauf.registry.runs import RegistryError
from kreislauf.registry.versions import Version, find, finished, get, lineages, lookup, versions

__all__ = [
    "Lineage",
    "RegistryError",
    "Version",
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
