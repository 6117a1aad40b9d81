"""The API is described as it is, and its page needs no other server."""

import json
import re
from collections import Counter

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import response_schema_conformance
from starlette.testclient import TestClient

from kreislauf.settings import settings as gateway_settings
from serving.app import create

PATHS = {
    "/health",
    "/ready",
    "/metrics",
    "/v1/{model}/predict",
    "/v1/search_ranker/predict",
    "/v1/session_recommender/predict",
    "/v1/session_recommender_text/predict",
    "/v1/support_answers/predict",
    "/v1/tiny/predict",
    "/v1/feedback",
    "/models/{model}",
}


def test_every_route_has_schemas_of_what_it_takes_and_gives(gateway: TestClient):
    document = gateway.get("/openapi.json").json()
    schemathesis.openapi.from_dict(document).validate()
    assert set(document["paths"]) == PATHS
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if path != "/v1/feedback":
                (content,) = operation["responses"]["200"]["content"].values()
                assert content["schema"], path
            if method == "post":
                body = operation["requestBody"]["content"]["application/json"]["schema"]
                assert set(body) & {"$ref", "allOf"}, path
            assert "401" not in operation["responses"]
    schemas = document["components"]["schemas"]
    assert schemas["SessionEvent"]["required"] == ["aid"]
    assert schemas["Reaction"]["properties"]["kind"]["enum"] == ["click", "cart", "order"]
    assert schemas["Reaction"]["additionalProperties"] is False
    references = set(re.findall(r"#/components/schemas/([^\"]+)", str(document).replace("'", '"')))
    assert references <= set(schemas)


def test_the_page_comes_from_the_gateway_alone(gateway: TestClient):
    page = gateway.get("/docs").text
    addresses = re.findall(r"""(?:src|href|url)[=:] ?["']([^"']+)""", page)
    assert {"/openapi.json", "/static/swagger-ui.css"} <= set(addresses)
    for address in addresses:
        assert address.startswith("/")
        assert gateway.get(address).status_code == 200
    assert "https://" not in page


def test_where_a_token_is_wanted_the_description_says_so_and_needs_none(live, monkeypatch):
    live(1)
    monkeypatch.setenv("KREISLAUF_GATEWAY_TOKEN", "secret")
    with TestClient(create(gateway_settings())) as gateway:
        for path in ("/docs", "/openapi.json", "/static/swagger-ui-bundle.js"):
            assert gateway.get(path).status_code == 200, path
        for path in ("/metrics", "/models/tiny", "/doc", "/static", "/"):
            assert gateway.get(path).status_code == 401, path
        document = gateway.get("/openapi.json").json()
    schemes = document["components"]["securitySchemes"]
    assert [schemes[name]["scheme"] for name in ("token", "password")] == ["bearer", "basic"]
    (page,) = [path for path in document["paths"] if "password" in str(document["paths"][path])]
    assert page == "/models/{model}"
    free = {
        path
        for path, operations in document["paths"].items()
        if not any("security" in operation for operation in operations.values())
    }
    assert free == {"/health", "/ready"}
    assert "secret" not in str(document)


@pytest.mark.parametrize(
    ("path", "taken"), [("/v1/tiny/predict", 200), ("/v1/session_recommender/predict", 503)]
)
@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
def test_what_is_described_is_taken_and_nothing_else(
    listening: str, path: str, taken: int, mode: str
):
    # Nothing of the recommender is live: what it takes is answered with 503.
    schema = schemathesis.openapi.from_url(f"http://{listening}/openapi.json")
    strategy = schema[path]["POST"].as_strategy(generation_mode=schemathesis.GenerationMode[mode])
    statuses = Counter()

    @settings(
        max_examples=100,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    @given(case=strategy)
    def send(case: schemathesis.Case) -> None:
        if mode == "POSITIVE":
            case.body = with_integers(case.body)
        response = case.call()
        case.validate_response(response, checks=[response_schema_conformance])
        body = case.body
        is_named = isinstance(body, dict) and body.get("user") is not None
        if mode == "POSITIVE":
            assert response.status_code == taken, response.text
        elif not is_named:  # Else the session is not looked at.
            assert response.status_code in (400, 422), body
        statuses[response.status_code] += 1

    send()
    assert statuses.total() >= 50


def with_integers(body: dict) -> dict:
    """The body with 1 for 1.0: to JSON Schema both are integers, to the gateway only the first."""

    def number(digits: str) -> int | float:
        value = float(digits)
        if value.is_integer():
            return int(value)
        return value

    return json.loads(json.dumps(body), parse_float=number)
