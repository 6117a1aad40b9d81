"""Ways to turn a file in OTTO's format into rows (session, aid, ts, type) on disk.

`python -m benchmarks.contenders NAME FILE FOLDER` measures one in this process, and prints a JSON
line. All write Parquet with zstd, except `duckdb_snappy`, which has DuckDB's default codec. Each
does a file of one line first. So imports, the start of engines and the loading of compiled code are
measured apart, as the start; the peak of the memory includes them.
"""

import importlib
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = "rows.parquet"
REJECTS = "rejects.parquet"
LINES = {
    "nested.jsonl": b'{"session":0,"events":[{"aid":0,"ts":1659304800000,"type":"clicks"}]}\n',
    "flat.jsonl": b'{"session":0,"aid":0,"ts":1659304800000,"type":"clicks"}\n',
    "flat.csv": b"session,aid,ts,type\n0,0,1659304800000,clicks\n",
}
"""A file of one event in each shape, by how the names of files in this shape end."""


def kreislauf(file: Path, folder: Path) -> None:
    """The load of the flow `ingest`: validation, quarantine, deduplication and a Delta commit."""
    from kreislauf import lake, sources
    from models.session_recommender import SPEC

    importlib.import_module("kreislauf.lake.fast_decode")  # Only a large file would need it.
    os.environ["KREISLAUF_HOME"] = str(folder)
    lake.load_file(SPEC.table, sources.open_file(str(file), SPEC.table), source_name="shop")


def kreislauf_given(file: Path, folder: Path) -> None:
    """The load of a CSV file into the table of text ids, with the sessions that the file has."""
    _load_text(file, folder, {"from": "session"})


def kreislauf_by_gap(file: Path, folder: Path) -> None:
    """The same, with the file's sessions for users, whose sessions are made by a gap."""
    _load_text(file, folder, {"user": "session", "gap_minutes": 30})


def _load_text(file: Path, folder: Path, session: dict) -> None:
    from kreislauf import lake, sources
    from models.mapping import Mapping
    from models.session_recommender_text import SPEC

    columns = {"session": session, "aid": {"from": "aid"}, "type": {"from": "type"}}
    columns["ts"] = {"from": "ts", "unit": "ms"}
    mapping = Mapping.model_validate({"columns": columns})
    os.environ["KREISLAUF_HOME"] = str(folder)
    lake.load_file(SPEC.table, sources.open_file(str(file), SPEC.table, mapping))


def duckdb(file: Path, folder: Path, codec: str = "zstd") -> None:
    """DuckDB as it comes: its settings, and as many threads as there are cores."""
    import duckdb

    columns = """{session: 'BIGINT', events: 'STRUCT(aid BIGINT, ts BIGINT, "type" VARCHAR)[]'}"""
    duckdb.connect().execute(
        f"""COPY (SELECT session, unnest(events, recursive := true)
                  FROM read_json('{file}', format = 'newline_delimited', columns = {columns}))
            TO '{folder / OUT}' (FORMAT parquet, COMPRESSION {codec})"""
    )


def duckdb_flat(file: Path, folder: Path) -> None:
    """DuckDB as it comes, on a file with a row for each event: CSV or JSON lines."""
    import duckdb

    columns = """{session: 'BIGINT', aid: 'BIGINT', ts: 'BIGINT', "type": 'VARCHAR'}"""
    source = f"read_json('{file}', format = 'newline_delimited', columns = {columns})"
    if file.suffix == ".csv":
        source = f"read_csv('{file}', header = true, columns = {columns})"
    duckdb.connect().execute(
        f"COPY (SELECT * FROM {source}) TO '{folder / OUT}' (FORMAT parquet, COMPRESSION zstd)"
    )


def duckdb_snappy(file: Path, folder: Path) -> None:
    """DuckDB as it comes, with its default codec."""
    duckdb(file, folder, "snappy")


def polars(file: Path, folder: Path) -> None:
    """Polars' streaming engine. Its peak includes the file, which it maps into memory."""
    import polars as pl

    event = pl.Struct({"aid": pl.Int64, "ts": pl.Int64, "type": pl.String})
    lines = pl.scan_ndjson(file, schema={"session": pl.Int64, "events": pl.List(event)})
    lines.explode("events").unnest("events").sink_parquet(folder / OUT, compression="zstd")


def python_loop(file: Path, folder: Path) -> None:
    """A loop over `json.loads`, as in src/preprocessing.py of https://github.com/otto-de/TRON.

    It writes Parquet in row groups.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [("session", pa.int64()), ("aid", pa.int64()), ("ts", pa.int64()), ("type", pa.string())]
    )
    columns: dict[str, list] = {name: [] for name in schema.names}
    with file.open() as lines, pq.ParquetWriter(folder / OUT, schema, compression="zstd") as writer:
        for line in lines:
            session = json.loads(line)
            events = session["events"]
            columns["session"] += [session["session"]] * len(events)
            for name in ("aid", "ts", "type"):
                columns[name] += [event[name] for event in events]
            if len(columns["session"]) > 250_000:
                writer.write_table(pa.table(columns, schema=schema))
                columns = {name: [] for name in schema.names}
        writer.write_table(pa.table(columns, schema=schema))


CONTENDERS = {
    work.__name__: work for work in (kreislauf, duckdb, duckdb_snappy, polars, python_loop)
}
FLAT_CONTENDERS = {work.__name__: work for work in (kreislauf, duckdb_flat)}
SESSION_CONTENDERS = {work.__name__: work for work in (kreislauf_given, kreislauf_by_gap)}
OURS = {"kreislauf": "session_recommender"} | dict.fromkeys(
    SESSION_CONTENDERS, "session_recommender_text"
)
"""The contenders that are Kreislauf, and the model type into whose table each loads."""


@dataclass(frozen=True)
class Measured:
    """One run of a contender."""

    start: float
    """CPU seconds before the file: imports, and another file of one line."""
    cpu: float
    """Seconds of all threads, in user and kernel mode."""
    wall: float
    """Seconds."""
    peak: float
    """Peak memory of the process, in MB of 2^20 bytes."""
    rows: int
    """Rows written."""


def measure(name: str, file: Path, folder: Path) -> Measured:
    """Run a contender in a fresh process that writes to `folder`, which must be empty.

    Python's bytecode is kept beside it: after a first run, the start is the same on every machine's
    settings.
    """
    # A lake that the environment names is somebody's.
    left_out = ("KREISLAUF_", "PYTHONDONTWRITEBYTECODE")
    env = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    env |= {"TMPDIR": str(folder), "PYTHONPYCACHEPREFIX": str(folder.parent / "bytecode")}
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.contenders"]
    command += [name, str(file), str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"{name} failed on {file}: see above.")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def cpu() -> float:
    """CPU seconds of this process and its children."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usage)


def peak() -> float:
    """Peak memory in MB.

    It is not getrusage's ru_maxrss, which begins with the memory of the parent process.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _rows(name: str, folder: Path) -> int:
    """Rows that lie in `folder`, counted without trusting the contender.

    Puts Kreislauf's rejects beside them.
    """
    import polars as pl

    if name not in OURS:
        return pl.scan_parquet(folder / OUT).select(pl.len()).collect().item()
    from kreislauf import lake
    from kreislauf.settings import settings
    from models import spec

    table = spec.load(OURS[name]).table
    lake.rejects(table).select("line", "raw").write_parquet(folder.parent / REJECTS)
    return pl.scan_delta(f"{settings().lake}/{table.name}").select(pl.len()).collect().item()


def main() -> None:
    """Measure the contender, and print the result."""
    work = (CONTENDERS | FLAT_CONTENDERS | SESSION_CONTENDERS)[sys.argv[1]]
    file = Path(sys.argv[2])
    folder = Path(sys.argv[3])
    first = folder / "first"
    result = folder / "result"
    first.mkdir()
    result.mkdir()
    shape = next((shape for shape in LINES if file.name.endswith(shape)), "nested.jsonl")
    (folder / shape).write_bytes(LINES[shape])
    work(folder / shape, first)
    start = cpu()
    began = time.monotonic()
    work(file, result)
    measured = Measured(
        start=start,
        cpu=cpu() - start,
        wall=time.monotonic() - began,
        peak=peak(),
        rows=_rows(work.__name__, result),
    )
    print(json.dumps(asdict(measured)))


if __name__ == "__main__":
    main()
