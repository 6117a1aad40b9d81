"""The gateway shows the lifecycle page that the flows have drawn, and nothing else of that
folder."""

import base64
import shutil
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from kreislauf.release import lifecycle_page
from kreislauf.settings import settings
from models import spec
from serving.app import create


@pytest.fixture
def shop(tiny: str) -> TestClient:
    """A gateway before which nothing serves."""
    with TestClient(create(settings())) as client:
        yield client


def test_the_page_is_shown_as_it_was_drawn_without_scripts(shop: TestClient):
    assert shop.get("/models/tiny").status_code == 404
    assert shop.get("/models/tiny").json()["detail"] == (
        "tiny has no page yet. The first training draws it: run retrain."
    )
    lifecycle_page.write("tiny", "<h1>tiny ä</h1>")
    response = shop.get("/models/tiny")
    assert response.text == "<h1>tiny ä</h1>"
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["content-security-policy"].startswith("default-src 'none'; style-src")
    assert "script" not in response.headers["content-security-policy"]
    lifecycle_page.write("tiny", "<h1>tiny ö</h1>")
    assert shop.get("/models/tiny").text == "<h1>tiny ö</h1>", "what was drawn since is shown"
    assert shop.post("/models/tiny").status_code == 405


@pytest.mark.parametrize("model", spec.names())
def test_each_model_type_has_a_page_of_its_own(shop: TestClient, model: str):
    assert shop.get(f"/models/{model}").json()["detail"].startswith(f"{model} has no page yet.")
    lifecycle_page.write(model, f"<h1>{model}</h1>")
    assert shop.get(f"/models/{model}").text == f"<h1>{model}</h1>"
    assert shop.get("/models/tiny").status_code == 404, "of no other one"


def test_a_model_type_that_no_server_answers_for_has_a_page(
    tiny: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(type(spec.load(tiny)), "is_served", False)
    lifecycle_page.write(tiny, "<h1>tiny</h1>")
    with TestClient(create(settings())) as client:
        assert client.get("/models/tiny").text == "<h1>tiny</h1>"
        assert client.post("/v1/tiny/predict", json={}).status_code == 404


@pytest.mark.parametrize("name", ["nothing", "..", "%2e%2e", "tiny%2f1.json", "x" * 5_000])
def test_no_other_file_is_shown(shop: TestClient, name: str):
    lifecycle_page.write("nothing", "a page of no model type")
    response = shop.get(f"/models/{name}")
    assert response.status_code == 404
    assert len(response.text) < 200
    assert "a page of" not in response.text


def test_the_page_needs_the_token_where_one_is_set(tiny: str, monkeypatch: pytest.MonkeyPatch):
    lifecycle_page.write(tiny, "<h1>tiny</h1>")
    monkeypatch.setenv("KREISLAUF_GATEWAY_TOKEN", "secret")
    with TestClient(create(settings())) as client:
        assert client.get("/models/tiny").status_code == 401
        header = {"Authorization": "Bearer secret"}
        assert client.get("/models/tiny", headers=header).text == "<h1>tiny</h1>"


def test_a_browser_gives_the_token_as_a_password_for_the_page_and_for_nothing_else(
    tiny: str, monkeypatch: pytest.MonkeyPatch
):
    lifecycle_page.write(tiny, "<h1>tiny</h1>")
    token = "sécret: §"
    monkeypatch.setenv("KREISLAUF_GATEWAY_TOKEN", token)
    with TestClient(create(settings())) as client:
        refused = client.get("/models/tiny")
        assert refused.headers["www-authenticate"].startswith("Basic realm=")
        assert "any name, and the token as password" in refused.json()["detail"]
        assert token not in refused.text
        for name in ("Ada", ""):
            header = {"Authorization": basic(f"{name}:{token}")}
            assert client.get("/models/tiny", headers=header).text == "<h1>tiny</h1>"
        for path in ("/metrics", "/", "/modelstiny", "/v1/tiny/predict"):
            response = client.get(path, headers=header)
            assert response.status_code == 401, path
            assert "www-authenticate" not in response.headers
        assert client.post("/v1/tiny/predict", headers=header, json={}).status_code == 401
        assert client.post("/v1/feedback", headers=header, json={}).status_code == 401


@pytest.mark.parametrize(
    "header",
    [
        "Basic", "Basic ", "Basic =", "Basic ä", "Basic c2VjcmV0", "secret", "basic secret",
        "Bearer OnNlY3JldA==", "Basic OnNlY3JldA== ", "Digest OnNlY3JldA==",
    ],
)  # fmt: skip
def test_what_is_not_the_token_as_a_password_is_refused(
    tiny: str, header: str, monkeypatch: pytest.MonkeyPatch
):
    lifecycle_page.write(tiny, "<h1>tiny</h1>")
    monkeypatch.setenv("KREISLAUF_GATEWAY_TOKEN", "secret")
    with TestClient(create(settings())) as client:
        right = client.get("/models/tiny", headers={"Authorization": "Basic OnNlY3JldA=="})
        assert right.status_code == 200
        wrong = client.get("/models/tiny", headers={"Authorization": header.encode()})
        assert wrong.status_code == 401


def basic(credentials: str) -> str:
    """The header of HTTP Basic."""
    return f"Basic {base64.b64encode(credentials.encode()).decode()}"


def test_a_page_that_cannot_be_read_is_said_to_be_so(shop: TestClient):
    folder = Path(lifecycle_page.address("tiny"))
    folder.mkdir(parents=True)
    response = shop.get("/models/tiny")
    assert response.status_code == 503
    assert response.json()["detail"].startswith("The page of tiny cannot be read now")
    shutil.rmtree(folder)
    assert shop.get("/models/tiny").status_code == 404


def test_a_page_on_s3_is_shown(tiny: str, s3, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KREISLAUF_RELEASES", "s3://shop/releases")
    lifecycle_page.write(tiny, "<h1>far away</h1>")
    with TestClient(create(settings())) as client:
        assert client.get("/models/tiny").text == "<h1>far away</h1>"
