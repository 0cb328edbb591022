"""The OpenAPI documents are complete: a stranger could write a client from them."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest
from tests.integration.places import FILES

from bedplate_services.examples import EXAMPLES

from .conftest import TestClient, World

JSON, PROBLEM = "application/json", "application/problem+json"
PUBLIC = {"/healthz", "/readyz", "/metrics", "/v1/endpoints", "/v1/objects/{key}"}


@pytest.fixture(scope="module")
def engines() -> str:
    """The documents are text of the code."""
    return FILES


@pytest.fixture(scope="module")
def documents(shared_world: World) -> dict[str, dict[str, Any]]:
    from bedplate_services.composition import build_platform
    from bedplate_services.inference import create_app
    from bedplate_services.metrics import NullMetrics

    settings = shared_world.platform.settings
    inference = create_app(settings, build_platform(settings, service="test", metrics=NullMetrics()))
    return {"api": shared_world.ok("GET", "/openapi.json"), "inference": inference.http.openapi()}


def _operations(documents: dict[str, dict[str, Any]]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method, path, operation)
        for document in documents.values()
        for path, item in document["paths"].items()
        for method, operation in item.items()
    ]


@pytest.mark.parametrize("model", EXAMPLES, ids=lambda model: model.__name__)
def test_examples_are_valid(model: Any) -> None:
    model.model_validate(EXAMPLES[model])


def test_every_operation_is_described(documents: dict[str, dict[str, Any]]) -> None:
    operations = _operations(documents)
    assert len(operations) > 70
    identifiers = [operation["operationId"] for _, path, operation in operations if path.startswith("/v1")]
    assert len(set(identifiers)) == len(identifiers)
    for method, path, operation in operations:
        place = f"{method} {path}"
        assert operation.get("summary"), place
        assert operation.get("tags"), place
        assert ("security" in operation) == (path not in PUBLIC), place
        success = [code for code in operation["responses"] if code.startswith("2")]
        assert success, place
        for code, answer in operation["responses"].items():
            if not code.startswith("2"):
                assert PROBLEM in answer["content"], f"{place} {code}"


def test_the_statuses_follow_from_what_a_route_takes(documents: dict[str, dict[str, Any]]) -> None:
    for method, path, operation in _operations(documents):
        codes = set(operation["responses"])
        if path not in PUBLIC:
            assert "401" in codes, path
            assert method == "get" or "403" in codes, path
        if "requestBody" in operation:
            assert {"413", "415", "422"} <= codes, path


def test_every_document_has_an_example(documents: dict[str, dict[str, Any]]) -> None:
    for name, document in documents.items():
        schemas = document["components"]["schemas"]
        used: set[str] = set()
        for _, path, operation in _operations({name: document}):
            bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
            for body in bodies:
                schema = body.get("content", {}).get(JSON, {}).get("schema", {})
                schema = schema.get("items", schema)
                for option in schema.get("anyOf", [schema]):
                    if "$ref" in option:
                        used.add(option["$ref"].rpartition("/")[2])
            assert path
        without = {one for one in used if "examples" not in schemas[one]}
        assert without == set(), name
        assert used


def test_every_parameter_has_an_example_that_fits(documents: dict[str, dict[str, Any]]) -> None:
    seen = 0
    for method, path, operation in _operations(documents):
        for parameter in operation.get("parameters", ()):
            place = f"{method} {path}: {parameter['in']} {parameter['name']}"
            assert parameter["example"] is not None, place
            validator = jsonschema_rs.validator_for(parameter["schema"], validate_formats=True)
            assert validator.is_valid(parameter["example"]), place
            seen += 1
    assert seen > 100


def test_every_bulk_body_says_what_is_in_it(documents: dict[str, dict[str, Any]]) -> None:
    for method, path, operation in _operations(documents):
        for body in (operation.get("requestBody", {}), *operation["responses"].values()):
            for media, content in body.get("content", {}).items():
                if media not in (JSON, PROBLEM):
                    assert len(content["schema"].get("description", "")) > 10, f"{method} {path} {media}"


def test_references_resolve(documents: dict[str, dict[str, Any]]) -> None:
    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [one for value in node.values() for one in references(value)]
        return [one for value in node for one in references(value)] if isinstance(node, list) else []

    for document in documents.values():
        known = document["components"]["schemas"]
        for reference in references(document):
            assert reference.rpartition("/")[2] in known, reference


def test_no_two_paths_are_the_same_template(documents: dict[str, dict[str, Any]]) -> None:
    import re

    for document in documents.values():
        shapes = [re.sub(r"\{[^}]+\}", "{}", path) for path in document["paths"]]
        assert len(set(shapes)) == len(shapes)


def test_the_hot_path_is_described(documents: dict[str, dict[str, Any]]) -> None:
    paths = documents["api"]["paths"]
    for verb in ("lookup", "search"):
        operation = paths[f"/v1/spaces/{{reference}}/{{space}}/{verb}"]["post"]
        media = {JSON, "application/vnd.apache.arrow.stream", "application/octet-stream"}
        assert set(operation["requestBody"]["content"]) == media
        assert set(operation["responses"]["200"]["content"]) == media
        assert "x-bedplate-snapshot" in operation["responses"]["200"]["headers"]


def test_the_pages_for_people(shared_world: World) -> None:
    client: TestClient = shared_world.http
    assert client.get("/docs").status_code == 200
    assert client.get("/openapi.json").status_code == 200
