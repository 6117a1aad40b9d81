"""A source has one name, whatever of it is ingested, and it gives nothing away."""

import os

import pytest

from kreislauf.sources import find, names


@pytest.mark.parametrize(
    ("place", "is_file", "expected"),
    [
        ("s3://shop/raw/", False, "s3://shop/raw"),
        ("s3://shop/raw/2026-11/", False, "s3://shop/raw"),
        ("s3://shop/raw/2026/11/28/", False, "s3://shop/raw"),
        ("s3://shop/raw/day=2026-11-28/hour=03", False, "s3://shop/raw"),
        ("s3://shop/2026-11", False, "s3://shop"),
        ("s3://shop/raw/2026-11-28.jsonl.gz", True, "s3://shop/raw"),
        ("s3://shop/raw/2026-11-28/part-0.parquet", True, "s3://shop/raw"),
        ("s3://key:secret@shop/raw?versionId=7#x", False, "s3://shop/raw"),
        ("/data/shop v2/", False, "/data/shop v2"),
        ("/data/web/20261128", False, "/data/web"),
        ("/data/web/a?b.jsonl", True, "/data/web"),
        ("/2026", False, "/"),
    ],
)
def test_a_source_is_named_by_its_folder_without_dates_and_secrets(place, is_file, expected):
    assert names.name(place, is_file) == expected


def test_a_listing_has_the_name_of_what_was_asked_for(tmp_path, monkeypatch):
    folder = tmp_path / "web" / "2026-11"
    folder.mkdir(parents=True)
    (folder / "a.jsonl").write_text("{}\n")
    monkeypatch.chdir(tmp_path)
    expected = os.path.realpath(tmp_path / "web")
    assert find("web").name == expected
    assert find("web/2026-11/").name == expected
    assert find("web/2026-11/a.jsonl").name == expected
    assert find(".").name == os.path.realpath(tmp_path)
