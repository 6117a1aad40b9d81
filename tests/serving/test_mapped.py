"""The gateway reads requests and feedback in a shop's own words, by a mapping."""

import pytest
from starlette.testclient import TestClient

from kreislauf.settings import settings
from serving import app
from serving.app import create
from tests.models.test_mapped_requests import NUMBERS


def test_the_gateway_reads_by_the_mapping_and_says_what_is_wrong(home, tmp_path, monkeypatch):
    (tmp_path / "shop.yaml").write_text(NUMBERS)
    monkeypatch.setenv("KREISLAUF_MAPPING", str(tmp_path / "shop.yaml"))
    monkeypatch.setenv("KREISLAUF_TRITON_URL", "127.0.0.1:9")
    with TestClient(create(settings())) as gateway:
        address = "/v1/session_recommender/predict"
        wrong = gateway.post(address, json={"events": [{"aid": 1}]})
        assert (wrong.status_code, "unknown field `aid`" in wrong.text) == (422, True)
        right = gateway.post(address, json={"events": [{"itemid": 1, "event": "view"}]})
        assert (right.status_code, "Nothing of session_recommender is live" in right.text) == (
            503,
            True,
        )
        unmapped = gateway.post(
            "/v1/session_recommender_text/predict", json={"events": [{"aid": "a"}]}
        )
        assert unmapped.status_code == 503, "the mapping is of another model type"


def test_a_gateway_whose_mapping_is_wrong_does_not_start(tmp_path, monkeypatch):
    monkeypatch.setenv("KREISLAUF_MAPPING", str(tmp_path / "none.yaml"))
    monkeypatch.setattr("sys.argv", ["serving.app", "--port", "1"])
    with pytest.raises(SystemExit, match=r"The mapping .*none\.yaml cannot be read"):
        app.main()
