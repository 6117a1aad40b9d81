import pytest
from deltalake.exceptions import CommitFailedError
from pyarrow.parquet import ParquetFile
from s3fs import S3FileSystem

from deployments import processes
from kreislauf import lake
from kreislauf.lake import arrivals, compaction, data_files, delta, loading, quarantine
from kreislauf.lake import storage as lake_storage
from models.session_recommender.schema import EVENTS
from tests.conftest import moto, shop_on
from tests.kreislauf.lake.test_lake import T0, File, killed_in, line


def load(number):
    lines = [line(number, (number, number)), b"bad %d" % number]
    return lake.load_file(EVENTS, File(f"{number}.jsonl", lines))


def stored():
    """Names of all data files, whether a commit names them or not."""
    fs, root = lake_storage.filesystem("events")
    return {
        path.rsplit("/", 1)[1]
        for path in fs.find(root)
        if path.endswith(".parquet") and "_delta_log" not in path
    }


def test_compaction_merges_files_and_changes_no_row(storage):
    for n in range(5):
        load(n)
    before = lake.read(EVENTS)
    assert compaction.compact("events") == 4
    assert lake.read(EVENTS).equals(before)
    assert [a.version for a in lake.history(EVENTS)] == [1, 2, 3, 4, 5]
    assert load(2).already_loaded
    load(7)
    assert lake.rejects(EVENTS).height == 6
    assert compaction.compact("rejects") == 5
    assert lake.rejects(EVENTS).height == 6


def test_two_compactions_at_once_double_no_row(storage, monkeypatch):
    """deltalake's own left every row twice."""
    for n in range(4):
        load(n)
    put = data_files.put

    def compact_beside(*arguments):
        monkeypatch.setattr(data_files, "put", put)
        assert compaction.compact("events") == 3
        return put(*arguments)

    monkeypatch.setattr(data_files, "put", compact_beside)
    assert compaction.compact("events") == 0
    assert lake.read(EVENTS)["session"].to_list() == [0, 1, 2, 3]
    assert delta.files(delta.find("events")).height == 1


def test_compaction_loses_a_race_against_a_load_and_no_row(storage, monkeypatch):
    for n in range(3):
        load(n)
    put = data_files.put

    def load_beside(*arguments):
        monkeypatch.setattr(data_files, "put", put)
        load(9)
        return put(*arguments)

    monkeypatch.setattr(data_files, "put", load_beside)
    assert compaction.compact("events") == 2
    assert lake.read(EVENTS)["session"].to_list() == [0, 1, 2, 9]


def test_only_small_files_are_merged(monkeypatch):
    monkeypatch.setattr(compaction, "MAX_ROWS", 6)
    for n in range(5):
        load(n)
    assert compaction.compact("events") == 4
    assert compaction.compact("events") == 0, "the merged file has five of six rows"
    for n in range(5, 13):
        load(n)
    compaction.compact("events")
    heights = delta.files(delta.find("events"))["num_records"].to_list()
    assert max(heights) <= 6 + 2
    assert sum(heights) == 13


def test_rows_that_arrived_since_a_version_are_told_from_those_that_moved(storage):
    for n in range(3):
        load(n)
    since = lake.version(EVENTS)
    compaction.compact("events")
    assert arrivals.between(EVENTS, since, lake.version(EVENTS), T0 + 10**9).is_empty()
    late = [line(8, (80, 1)), line(9, (90, 10**5)), line(10, (100, 2 * 10**6))]
    lake.load_file(EVENTS, File("late.jsonl", late))
    lake.load_file(EVENTS, File("more.jsonl", [line(1, (1, 1), (11, 2))]))
    compaction.compact("events")
    arrived = arrivals.between(EVENTS, since, lake.version(EVENTS), T0 + 10**9)
    assert sorted(arrived["session"]) == [1, 8, 9], "those before the given time"
    assert arrived.columns == ["session", "aid", "ts", "type"]
    with pytest.raises(lake.LakeError, match="has no version 99"):
        arrivals.between(EVENTS, since, 99, T0)


def test_readers_need_not_hold_a_whole_file(storage, monkeypatch):
    monkeypatch.setattr(data_files, "ROW_GROUP", 2)
    for n in range(2):
        lake.load_file(
            EVENTS,
            File(
                f"{n}.jsonl", [line(number, (number, number)) for number in range(5 * n, 5 * n + 5)]
            ),
        )
    fs, root = lake_storage.filesystem("events")

    def row_groups():
        files = [
            ParquetFile(fs.open(f"{root}/{path}")).metadata
            for path in delta.files(delta.at("events", None))["path"]
        ]
        return [[file.row_group(i).num_rows for i in range(file.num_row_groups)] for file in files]

    assert row_groups() == [[2, 2, 1], [2, 2, 1]]
    compaction.compact("events")
    assert row_groups() == [[2] * 5]


@pytest.mark.slow
def test_of_many_loads_a_bounded_number_is_read_to_learn_what_was_rejected(storage, monkeypatch):
    for n in range(12):
        load(n)
    every = lake.rejected_shares(EVENTS, 8)
    assert every["version"].to_list() == list(range(1, 13))
    assert every.select("share", "lines").unique().rows() == [(0.5, 2)]
    monkeypatch.setattr(loading, "MAX_COMMITS", 3)
    read = []
    commits_metadata = delta.commits_metadata
    monkeypatch.setattr(
        delta,
        "commits_metadata",
        lambda *args: [read.extend(args[1]), *commits_metadata(*args)][1:],
    )
    for version, versions in {
        8: [1, 4, 8, 9, 10, 12],
        10: [1, 6, 10, 11, 12],
        0: [1, 6, 12],
        12: [1, 6, 12],
    }.items():
        read.clear()
        assert lake.rejected_shares(EVENTS, version)["version"].to_list() == versions
        assert read == versions, "and no other commit"


def test_vacuum_keeps_the_versions_that_it_is_told_to_keep(storage):
    for n in range(5):
        load(n)
    third = lake.read(EVENTS, version=3)
    compaction.compact("events")
    load(7)
    assert delta.vacuum("events", 0, [3, 99]) == 2
    assert lake.read(EVENTS, version=3).equals(third)
    assert lake.read(EVENTS).height == 6
    with pytest.raises(Exception, match=r"(?i)not found|no such file"):
        lake.read(EVENTS, version=5)


def test_compaction_and_vacuum_in_the_middle_of_a_load_do_no_harm(storage, monkeypatch):
    for n in range(3):
        load(n)
    commit = delta.commit

    def tidy_first(*args):
        monkeypatch.setattr(delta, "commit", commit)
        assert compaction.compact("events") == 2
        assert delta.vacuum("events", 1, []) == 0
        commit(*args)

    monkeypatch.setattr(delta, "commit", tidy_first)
    lines = [line(n, (n, n)) for n in range(5)]
    accounts = lake.load_file(EVENTS, File("all.jsonl", lines))
    assert (accounts.rows_kept, accounts.rows_duplicate, accounts.version) == (2, 3, 5)
    assert lake.read(EVENTS)["session"].to_list() == [0, 1, 2, 3, 4]
    assert delta.vacuum("events", 0, []) == 3


def test_what_a_killed_load_leaves_is_swept_but_not_while_it_may_still_be_wanted(
    storage, monkeypatch
):
    load(1)
    wanted = stored()
    killed_in(monkeypatch, "commit", [line(2, (2, 2))])
    assert len(stored()) == 2
    assert delta.vacuum("events", 1, []) == 0
    assert delta.vacuum("events", 0, []) == 1
    assert stored() == wanted
    assert lake.read(EVENTS).rows() == [(1, 1, T0 + 1000, "clicks")]


@pytest.mark.parametrize(
    ("step", "name"), [("find", "events"), ("put", "rejects"), ("commit", "events")]
)
def test_storage_that_falls_silent_within_a_load_is_unreachable_and_nothing_else(
    step, name, tmp_path, monkeypatch
):
    # A client of an earlier test would talk to that test's S3.
    S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("KREISLAUF_LAKE", "s3://shop/lake")
    module = data_files if step == "put" else delta
    inner = getattr(module, step)
    with moto(tmp_path) as (url, record):
        shop_on(url, monkeypatch)
        load(1)

        def silent(*args):
            processes.stop(record)
            return inner(*args)

        monkeypatch.setattr(module, step, silent)
        with pytest.raises(
            lake.LakeUnreachable, match=f"The lake at s3://shop/lake/{name} does not answer"
        ):
            load(2)
    S3FileSystem.clear_instance_cache()


def test_a_table_is_not_made_where_nothing_answers_and_the_error_says_so(s3_lake, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(
        lake.LakeUnreachable, match=r"The lake at s3://shop/lake/events does not answer"
    ):
        delta.create("events", EVENTS.dtypes, "session")


def test_rejects_that_cannot_follow_because_others_are_always_faster_raise_and_follow_later(
    monkeypatch,
):
    commit = delta.commit

    def faster(table, *args):
        if table.table_uri.rstrip("/").endswith("/rejects"):
            raise CommitFailedError("another writer was faster")
        commit(table, *args)

    with monkeypatch.context() as patch:
        patch.setattr(delta, "commit", faster)
        with pytest.raises(
            lake.LakeError, match="Table rejects is too busy: 50 times another writer was faster"
        ):
            load(1)
    assert lake.read(EVENTS).height == 1
    assert load(1).already_loaded
    assert lake.rejects(EVENTS)["raw"].to_list() == [b"bad 1"]


def test_rejects_of_more_loads_than_races_may_be_lost_follow_at_once(monkeypatch):
    monkeypatch.setattr(lake_storage, "ATTEMPTS", 2)
    with monkeypatch.context() as patch:
        patch.setattr(quarantine, "publish_rejects", lambda _: None)
        for n in range(4):
            load(n)
    quarantine.publish_rejects(EVENTS)
    assert lake.rejects(EVENTS).height == 4


def test_files_are_strings_and_carry_statistics_that_skip_them(storage):
    load(1)
    files = delta.files(delta.find("events"))
    assert files.select("num_records", "min.ts", "max.ts", "min.session").rows() == [
        (1, T0 + 1000, T0 + 1000, 1)
    ]
    assert lake.watermark(EVENTS) == T0 + 1000
