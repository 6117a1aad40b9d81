"""Which servers `make up` starts anew."""

import pytest

from deployments import renewal, stack

SERVERS = ("postgres", "prefect", "triton", "gateway", "worker")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with two files, of which the gateway is made."""
    (tmp_path / "models").mkdir()
    for name in ("a.py", "b.py"):
        (tmp_path / "models" / name).write_text("")
    monkeypatch.setattr(renewal, "CODE", {"gateway": (tmp_path / "models",)})
    return tmp_path / "models"


def recorded(*servers: str) -> dict[str, dict]:
    """Records of servers that were started just now."""
    return {server: {"environment": renewal.digests(server)} for server in servers}


def test_all_that_a_server_is_made_of_is_there():
    assert set(renewal.CODE) == set(stack.SERVICES) - {"postgres"}
    names = {name for server in renewal.CODE for name in renewal.files(server)}
    missing = [
        name for name in (*names, *renewal.DEPLOYMENTS) if not (renewal.ROOT / name).exists()
    ]
    assert missing == []


@pytest.mark.parametrize("change", ["edit", "new file", "deletion", "other name"])
def test_another_code_is_noticed(folder, change):
    record = recorded("gateway")["gateway"]
    assert renewal.changes("gateway", record) == []
    if change == "edit":
        (folder / "a.py").write_text("import os")
    if change == "new file":
        (folder / "c.py").write_text("")
    if change == "deletion":
        (folder / "b.py").unlink()
    if change == "other name":
        (folder / "b.py").rename(folder / "c.py")
    assert renewal.changes("gateway", record) == [renewal.VERSION]


def test_what_programs_and_people_keep_beside_the_code_is_not_code(folder):
    record = recorded("gateway")["gateway"]
    (folder / "README.md").write_text("Read me.")
    (folder / "__pycache__").mkdir()
    for name in ("a.cpython-311.pyc", "decode-7.py311.nbi", "a.cpython-311.pyc.140221"):
        (folder / "__pycache__" / name).write_bytes(b"code")
    assert renewal.changes("gateway", record) == []


def test_a_gateway_with_another_mapping_starts_anew(folder, tmp_path, monkeypatch):
    mapping = tmp_path / "shop.yaml"
    mapping.write_text("columns: {}")
    monkeypatch.setenv("KREISLAUF_MAPPING", str(mapping))
    record = recorded("gateway")["gateway"]
    mapping.write_text("columns: {ts: {}}")
    assert renewal.changes("gateway", record) == [renewal.VERSION]


def test_a_record_of_an_earlier_version_counts_as_changed():
    assert renewal.VERSION in renewal.changes("gateway", {})
    assert renewal.changes("postgres", {}) == []


def test_what_needs_a_server_starts_anew_with_it(folder, monkeypatch):
    monkeypatch.setattr(renewal, "CODE", {"triton": (folder,), "gateway": ()})
    running = recorded(*SERVERS)
    assert renewal.reasons(SERVERS, running, SERVERS) == {}
    (folder / "a.py").write_text("import os")
    assert renewal.reasons(SERVERS, running, SERVERS) == {
        "triton": "because of another version of Kreislauf",
        "gateway": "with triton",
    }
    assert renewal.reasons(SERVERS, running, ("gateway",)) == {}


def test_one_server_that_is_gone_takes_along_all_that_need_it():
    running = recorded("prefect", "triton", "gateway", "worker")
    assert renewal.reasons(SERVERS, running, SERVERS) == {
        "prefect": "with postgres",
        "worker": "with prefect",
    }
