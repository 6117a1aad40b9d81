"""How many functions of ours are between a flow and the library that does the work.

`depths` follows calls from a flow and gives the longest chain of our functions, the flow included,
whose last one calls a library of `WORK`. A chain of 3 is a flow, a task, and a function that asks
the library. `python -m benchmarks.call_depth` prints the longest to each library. How it counts:

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

from benchmarks.call_graph import OURS, Code
from benchmarks.sources import Offender, Source, sources

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


def libraries_of(code: Code, name: str) -> set[str]:
    """Libraries of `WORK` whose operations a function calls itself."""
    calls = code.calls[name]
    libraries = set()
    for called in calls.foreign:
        library, _, rest = called.partition(".")
        if library in WORK and rest.startswith(WORK[library][0]):
            libraries.add(library)
    for imported in code.functions[name].module.imports.values():
        library = imported.split(".")[0]
        if library in WORK and not set(WORK[library][1]).isdisjoint(calls.methods):
            libraries.add(library)
    return libraries


Chains = dict[str, list[str]]
"""Library to the longest chain to it, as dotted names of functions."""


def chains_from(
    code: Code, name: str, computed: dict[str, Chains], above: frozenset[str] = frozenset()
) -> Chains:
    """The longest chain from a function to each library that it reaches."""
    if name in computed or name not in code.functions:
        return computed.get(name, {})
    longest = {library: [name] for library in libraries_of(code, name)}
    for called in code.calls[name].ours:
        if called in above or called == name:
            continue
        for library, chain in chains_from(code, called, computed, above | {name}).items():
            if len(chain) >= len(longest.get(library, [])):
                longest[library] = [name, *chain]
    computed[name] = longest
    return longest


def all_chains(files: Iterable[Source]) -> dict[str, Chains]:
    """The longest chain from each flow of `FLOWS` to each library."""
    code = Code(files)
    computed: dict[str, Chains] = {}
    return {flow: chains_from(code, f"flows.{flow}.{flow}", computed) for flow in FLOWS}


def chains(files: Iterable[Source]) -> dict[str, list[str]]:
    """The longest chain of each flow; empty for one that reaches no library."""
    return {
        flow: max(by_library.values(), key=len, default=[])
        for flow, by_library in all_chains(files).items()
    }


def depths(files: Iterable[Source]) -> dict[str, int]:
    """How many functions are in the longest chain of each flow."""
    return {flow: len(chain) for flow, chain in chains(files).items()}


def deep_flows(files: Iterable[Source]) -> list[Offender]:
    """Flows whose longest chain has more than `MAX_DEPTH` functions, or whose work is not found."""
    return [
        Offender("call_depth", f"flows/{flow}.py", 1, f"{len(chain)}: {' > '.join(chain)}")
        for flow, chain in chains(files).items()
        if not 1 <= len(chain) <= MAX_DEPTH
    ]


def lost_calls(files: Iterable[Source]) -> list[Offender]:
    """Calls of functions of ours that are not there: they would end a chain too early."""
    code = Code(files)
    return [
        Offender("lost_calls", code.functions[name].module.path, code.functions[name].line, called)
        for name, calls in code.calls.items()
        for called in calls.foreign
        if called.split(".")[0] in OURS and code.is_lost(called)
    ]


def main() -> None:
    """Print the longest chain from each flow to each library."""
    for flow, by_library in all_chains(sources()).items():
        for library, chain in sorted(by_library.items()):
            print(f"{flow}, {library}, {len(chain)}: {' > '.join(chain)}")


if __name__ == "__main__":
    main()
