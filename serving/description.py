"""The description of the API: OpenAPI, with what each model type takes and answers."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from models.spec import ModelSpec
from serving.messages import Asker, Prediction, Reaction

PREDICT = "/v1/{model}/predict"
FEEDBACK = "/v1/feedback"
LIFECYCLES = "/models/"
"""Beginning of the paths of the lifecycle pages, which take the token as a password, too."""
PAGE = f"{LIFECYCLES}{{model}}"
OPEN = ("/health", "/ready")
"""Paths that need no token, and that no limit holds up."""
STATIC = "/static"
"""Folder of the files of Swagger UI, which come from no other server."""
PAGES = ("/docs", "/openapi.json", f"{STATIC}/")
"""Beginnings of the paths of the description itself, which a browser gets without a token."""
REFERENCE = "#/components/schemas/{model}"
TOKEN = {"type": "http", "scheme": "bearer", "description": "KREISLAUF_GATEWAY_TOKEN"}
PASSWORD = {"type": "http", "scheme": "basic", "description": "any name; the token is the password"}


def describe(app: FastAPI, model_types: list[ModelSpec], needs_token: bool) -> dict[str, Any]:
    """The OpenAPI document of the gateway: a path for each model type, and one for any."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    schemas, definitions = models_json_schema(typed(model_types), ref_template=REFERENCE)
    document["components"]["schemas"] |= definitions["$defs"]
    paths = document["paths"]
    any_model = paths[PREDICT]["post"]
    asker = schemas[Asker, "validation"]
    any_model["requestBody"] = body(asker)
    paths[FEEDBACK]["post"]["requestBody"] = body(schemas[Reaction, "validation"])
    for model_type in model_types:
        request = {"allOf": [schemas[model_type.Request, "validation"], asker]}
        answer = content(schemas[prediction(model_type), "serialization"])
        operation = any_model | {
            "summary": f"Answer of {model_type.name}",
            "operationId": f"predict_{model_type.name}",
            "requestBody": body(request),
            "responses": any_model["responses"] | {"200": {"description": "An answer.", **answer}},
        }
        del operation["parameters"]
        paths[PREDICT.format(model=model_type.name)] = {"post": operation}
    if needs_token:
        document["components"]["securitySchemes"] = {"token": TOKEN, "password": PASSWORD}
    for path, operations in paths.items():
        for operation in operations.values():
            if not needs_token:
                operation["responses"].pop("401", None)
            elif path == PAGE:
                operation["security"] = [{"token": []}, {"password": []}]
            elif path not in OPEN:
                operation["security"] = [{"token": []}]
    return document


def typed(model_types: list[ModelSpec]) -> list[tuple[type[BaseModel], JsonSchemaMode]]:
    """All bodies, each once, as what is read or as what is written."""
    pairs: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        (Asker, "validation"),
        (Reaction, "validation"),
    ]
    for model_type in model_types:
        pairs += [(model_type.Request, "validation"), (prediction(model_type), "serialization")]
    return list(dict.fromkeys(pairs))


def prediction(model_type: ModelSpec) -> type[BaseModel]:
    """An answer of this model type, and who gave it."""
    return Prediction[model_type.Answer]  # type: ignore[name-defined]


def body(schema: dict) -> dict[str, Any]:
    """A request body that has to be there."""
    return {"required": True, **content(schema)}


def content(schema: dict) -> dict[str, Any]:
    """Content that is JSON of this schema."""
    return {"content": {"application/json": {"schema": schema}}}
