"""How many functions of ours are between a flow and the library that does the work.

`depths` follows calls from a flow and gives the longest chain of our functions, the flow included,
whose last one calls a library of `WORK`. A chain of 3 is a flow, a task, and a function that asks
the library. How it counts:

- Our functions are those of flows, tasks, kreislauf and models. A call is resolved by its name:
  imported or defined in the module, reached through a module, or a method of an object whose class
  is known from an annotation, a constructor or a return annotation. Properties are calls.
- A model type, annotated as `ModelSpec`, is the session recommender.
- Nested functions and lambdas belong to the function that they are written in.
- A function that is handed to somebody as a value is not called here: callbacks of Lightning, pools
  and retries do not count. Constructors count where we wrote `__init__` or `__post_init__`.
- Recursion ends a chain.
- Only operations count as work: to open, read, write, compute, fit, answer or send. Arithmetic with
  NumPy and Polars expressions is everywhere; a helper of such lines is a word, no room.

All work counts, not what is named after the flow only, so a chain may end in a log of Delta Lake.
"""

from collections.abc import Iterable

from benchmarks.call_graph import Code
from benchmarks.sources import Offender, Source

FLOWS = ("ingest", "train", "promote", "publish", "monitor")
"""Flows whose depth is measured."""
MAX_DEPTH = 6
"""Maximum functions in a chain."""
WORK: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "deltalake": (("",), ()),
    "evidently": ((), ("run",)),
    "lightning": (("Trainer",), ("fit",)),
    "mlflow": (("",), ()),
    "msgspec": (("json", "convert"), ()),
    "onnx": (("save", "checker"), ()),
    "onnxruntime": (("InferenceSession",), ("run",)),
    "optuna": (("create_study", "load_study"), ("ask", "tell", "optimize")),
    "pandera": ((), ("validate",)),
    "polars": (("read_", "scan_", "collect_all"), ("collect", "collect_batches", "sink_parquet")),
    "prefect": (("events.emit_event",), ()),
    "scipy": (("",), ()),
    "torch": (("onnx.export",), ()),
    "tritonclient": (("grpc.InferenceServerClient",), ("load_model", "unload_model", "infer")),
}
"""Libraries; beginnings of the names of their functions that do work, and methods that do so, in a
module that imports the library."""


def does_work(code: Code, name: str) -> bool:
    """Whether a function itself calls an operation of `WORK`."""
    calls = code.calls[name]
    for called in calls.foreign:
        library, _, rest = called.partition(".")
        if rest.startswith(WORK.get(library, ((), ()))[0]):
            return True
    imports = code.functions[name].module.imports.values()
    libraries = {imported.split(".")[0] for imported in imports} & set(WORK)
    return any(method in WORK[library][1] for library in libraries for method in calls.methods)


def longest_chain(
    code: Code, name: str, computed: dict[str, list[str]], above: frozenset[str] = frozenset()
) -> list[str]:
    """The longest chain from a function to one that does work; empty if it reaches none."""
    if name in computed:
        return computed[name]
    longest = [name] if does_work(code, name) else []
    for called in code.calls[name].ours:
        if called in above or called == name:
            continue
        chain = longest_chain(code, called, computed, above | {name})
        if chain and len(chain) >= len(longest):
            longest = [name, *chain]
    computed[name] = longest
    return longest


def chains(files: Iterable[Source]) -> dict[str, list[str]]:
    """The longest chain of each flow of `FLOWS`, as dotted names."""
    code = Code(files)
    computed: dict[str, list[str]] = {}
    return {flow: longest_chain(code, f"flows.{flow}.{flow}", computed) for flow in FLOWS}


def depths(files: Iterable[Source]) -> dict[str, int]:
    """How many functions are in the longest chain of each flow."""
    return {flow: len(chain) for flow, chain in chains(files).items()}


def deep_flows(files: Iterable[Source]) -> list[Offender]:
    """Flows whose longest chain has more than `MAX_DEPTH` functions."""
    return [
        Offender("call_depth", f"flows/{flow}.py", 1, f"{len(chain)}: {' > '.join(chain)}")
        for flow, chain in chains(files).items()
        if len(chain) > MAX_DEPTH
    ]
