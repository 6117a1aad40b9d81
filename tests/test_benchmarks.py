"""The benchmarks measure what they say: the generated files, what each contender makes of them, the JSON line."""

import shutil
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from benchmarks import contenders, ingest, scale
from benchmarks.contenders import Measured
from benchmarks.otto import EVENTS_PER_SESSION, KINDS, generate
from models.session_recommender import SPEC
from tasks import lake, source


def rows(path: Path) -> pl.DataFrame:
    """Rows of a file without bad lines, by the plainest way there is."""
    return pl.read_ndjson(path).explode("events").unnest("events")


def test_the_same_arguments_make_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("benchmarks.otto.CHUNK", 150)
    first, second = (generate(tmp_path / name, 400, seed=3, bad_share=0.1) for name in ("a", "b"))
    assert first == second
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    generate(tmp_path / "c", 400, seed=4, bad_share=0.1)
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


def test_the_file_is_shaped_like_otto_s(tmp_path: Path):
    written = generate(tmp_path / "raw.jsonl", 20_000)
    found = rows(tmp_path / "raw.jsonl")
    sessions = found.group_by("session", maintain_order=True).agg(pl.len(), pl.col("ts").is_sorted(), pl.first("aid"))
    assert sessions["session"].to_list() == list(range(20_000))
    assert sessions["ts"].all()
    assert sessions["len"].mean() == pytest.approx(EVENTS_PER_SESSION, rel=0.03)
    assert sessions["len"].quantile(0.5) == 6
    assert sessions["len"].quantile(0.95) == pytest.approx(68, rel=0.1)
    assert (sessions["len"].min(), sessions["len"].max()) == (2, 500)
    assert (found["type"] == "clicks").mean() == pytest.approx(0.898, abs=0.005)
    assert found["ts"].max() - found["ts"].min() < 28 * 86_400_000
    assert (written.lines, written.events, written.distinct) == (20_000, found.height, found.n_unique())
    assert 0 < written.events - written.distinct < 0.001 * written.events


def test_each_kind_of_bad_line_is_rejected_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("benchmarks.otto.CHUNK", 100)
    generate(tmp_path / "good.jsonl", 300)
    written = generate(tmp_path / "raw.jsonl", 300, bad_share=0.2)
    assert len(written.bad) > len(KINDS)
    good, lines = ((tmp_path / name).read_bytes().split(b"\n") for name in ("good.jsonl", "raw.jsonl"))
    assert written.bad == [(i, b) for i, (a, b) in enumerate(zip(good, lines, strict=True), start=1) if a != b]
    accounts = load(tmp_path / "raw.jsonl")
    assert accounts.rows_kept == written.distinct
    assert accounts.rows_duplicate == written.events - written.distinct
    kinds = dict(zip((number for number, _ in written.bad), list(KINDS) * 9, strict=False))
    rejected = lake.rejects(SPEC.table).select("line", "raw").rows()
    assert [kinds[number] for number, _ in written.bad if number not in dict(rejected)] == []
    assert sorted(rejected) == written.bad


@pytest.mark.parametrize(("sessions", "share"), [(0, 0), (10, -0.1), (10, 1.1)])
def test_a_file_that_cannot_be_is_refused(tmp_path: Path, sessions: int, share: float):
    with pytest.raises(ValueError, match="at least 1, and a share from 0 to 1"):
        generate(tmp_path / "raw.jsonl", sessions, bad_share=share)


def test_all_contenders_write_the_same_rows(tmp_path: Path):
    generate(tmp_path / "raw.jsonl", 2_000)
    expected = rows(tmp_path / "raw.jsonl")
    for name, work in contenders.CONTENDERS.items():
        if name == "kreislauf":
            continue
        work(tmp_path / "raw.jsonl", tmp_path)
        assert_frame_equal(pl.read_parquet(tmp_path / contenders.OUT), expected, check_row_order=name != "polars")
    load(tmp_path / "raw.jsonl")
    ours = lake.read(SPEC.table).with_columns(pl.col("type").cast(pl.String))
    assert_frame_equal(ours, expected.unique(), check_row_order=False, check_column_order=False)


def test_the_ingest_benchmark_ends_with_its_ratios(tmp_path: Path):
    result = ingest.run(tmp_path, 300, 1, 2)
    ratios = {"cpu_over_duckdb_copy", "python_loop_over_ours", "peak_memory_10x_over_1x", "dirty_over_clean"}
    assert all(result[name] > 0 for name in ratios)
    assert result["bad_lines"] == result["bad_lines_recovered"] > 0
    assert result["cpu_seconds"].keys() == result["peak_mb"].keys() >= contenders.CONTENDERS.keys()
    assert [path.name for path in tmp_path.iterdir()] == ["bytecode"]


def test_the_scale_benchmark_finds_a_straight_line():
    runs = {n * 1_000_000: [Measured(3.0, 2.0 + 0.5 * n, 1.0 + 0.25 * n, 400.0, n)] * 3 for n in (10, 30, 100)}
    result = scale.summary(runs)
    assert result["cpu_seconds_per_million_events"] == 0.5
    assert result["full_otto_cpu_seconds_extrapolated"] == round(2 + 0.5 * 216.716096)
    assert result["full_otto_peak_mb_extrapolated"] == 400
    assert result["exponent"] == pytest.approx(1, abs=0.15)


def test_lost_and_invented_lines_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    written = generate(tmp_path / "raw.jsonl", 300, bad_share=0.2)

    def pretend(found: list[tuple[int, bytes]], count: int):
        def measured(name: str, file: Path, folder: Path) -> Measured:
            pl.DataFrame(found, {"line": pl.Int64, "raw": pl.Binary}, orient="row").write_parquet(
                folder / contenders.REJECTS
            )
            return Measured(1, 1, 1, 1, count)

        monkeypatch.setattr(ingest, "measure", measured)
        return ingest.once("kreislauf", tmp_path / "raw.jsonl", written)

    assert pretend(written.bad, written.distinct)[1] == len(written.bad)
    assert pretend(written.bad[1:], written.distinct)[1] == len(written.bad) - 1
    assert f"1 bad lines are not in the quarantine, such as line {written.bad[0][0]}" in capsys.readouterr().out
    for wrong in ((written.bad[0][0], b"changed"), (1, b"good"), written.bad[1]):
        with pytest.raises(RuntimeError, match="1 rejected lines were never so, or are there twice"):
            pretend([*written.bad[1:], wrong], written.distinct)
    with pytest.raises(RuntimeError, match="rows of"):
        pretend(written.bad, written.distinct - 1)


def test_too_small_a_folder_is_said_before_anything_is_written(monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(ingest.shutil, "disk_usage", lambda _: usage._replace(free=10**9))
    with pytest.raises(SystemExit, match=r"25 GB needed in .*, 1 GB free: set TMPDIR"), ingest.workplace(10_000_000):
        pass
    with ingest.workplace(300_000) as work:
        assert work.is_dir()
    assert not work.exists()


def load(path: Path) -> lake.Accounts:
    """Load a file as the flow's task does."""
    return lake.load_file(SPEC.table, source.open_file(str(path), SPEC.table.line))
