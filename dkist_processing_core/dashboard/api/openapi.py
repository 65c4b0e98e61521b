"""
The OpenAPI document of the API, from the declarations of its endpoints and the types of their answers.

Not here: the endpoints (endpoints).
"""

from typing import Any

import msgspec

from dkist_processing_core.dashboard.api.endpoint import ROOT, Endpoint, Parameter
from dkist_processing_core.dashboard.api.endpoints import ENDPOINTS
from dkist_processing_core.dashboard.api.more_answers import Changed, Chosen
from dkist_processing_core.dashboard.bus.letters import ACTIONS
from dkist_processing_core.dashboard.http.problems import Problem

_SCHEMAS = "#/components/schemas/{name}"
_CONTENT_OF_PROBLEM = {"application/problem+json": {"schema": {"$ref": _SCHEMAS.format(name=Problem.__name__)}}}
_PROBLEMS = {
    "400": "The request is wrong.",
    "401": "Nothing proves who requests this.",
    "403": "The role may not do this.",
    "404": "There is no such thing.",
    "503": "Store or bus cannot be used now.",
}
_MEANINGS = {
    "retry": "Have dead letters, or groups of them, handled once more.",
    "discard": "Remove dead letters, or groups of them, for good.",
}


def document(version: str) -> dict[str, Any]:
    """Return the document as JSON values; `version` is that of the library."""
    types = [*(endpoint.answer for endpoint in ENDPOINTS), Chosen, Changed, Problem]
    _, schemas = msgspec.json.schema_components(types, ref_template=_SCHEMAS)
    paths: dict[str, Any] = {endpoint.path: {"get": _reading(endpoint)} for endpoint in ENDPOINTS}
    paths |= {f"{ROOT}dead-letters/{action}": {"post": _changing(action)} for action in ACTIONS}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "dkist-core dashboard",
            "version": version,
            "description": "Runs, attempts and failures of workflows, and the bus that reports them.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        # A dashboard on loopback needs no token.
        "security": [{"token": []}, {}],
    }


def _reading(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "operationId": endpoint.name,
        "summary": endpoint.meaning,
        "parameters": [_parameter(each) for each in endpoint.parameters],
        "responses": _responses(endpoint.answer, "400", "401", "404", "503"),
    }


def _changing(action: str) -> dict[str, Any]:
    return {
        "operationId": f"{action}DeadLetters",
        "summary": _MEANINGS[action],
        "requestBody": {"required": True, "content": _json(Chosen)},
        "responses": _responses(Changed, "400", "401", "403", "503"),
    }


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": "query",
        "description": parameter.meaning,
        "required": parameter.is_required,
        "schema": {"type": "integer" if parameter.is_number else "string"},
    }


def _responses(answer: type, *problems: str) -> dict[str, Any]:
    return {
        "200": {"description": (answer.__doc__ or "").strip(), "content": _json(answer)},
        **{status: {"description": _PROBLEMS[status], "content": _CONTENT_OF_PROBLEM} for status in problems},
    }


def _json(of: type) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _SCHEMAS.format(name=of.__name__)}}}
