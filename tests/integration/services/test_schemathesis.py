"""The documents tell the truth: generated requests, good and bad, get what the documents announce.

Seeded and short. Every reading route is called as documented and with data that breaks the document.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from .conftest import World

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
SHORT = settings(
    max_examples=6,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def described(shared_world: World) -> Any:
    shared_world.publish()
    shared_world.move("production", 1)
    shared_world.ok("PUT", "/v1/items", json={"items": [{"key": "i1", "features": {"year": 1}}]})
    return schemathesis.openapi.from_dict(shared_world.ok("GET", "/openapi.json"))


@pytest.mark.parametrize(
    "mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value
)
def test_reading_routes_answer_as_documented(
    described: Any, shared_world: World, mode: GenerationMode
) -> None:
    token = {"authorization": f"Bearer {shared_world.secrets['admin']}"}
    tried = 0

    def try_out(case: schemathesis.Case) -> None:
        nonlocal tried
        tried += 1
        response = case.call(app=shared_world.api, headers=token)
        case.validate_response(response, checks=CHECKS)

    for found in described.include(method="GET").get_all_operations():
        cases = found.ok().as_strategy(generation_mode=mode)
        with suppress(Unsatisfiable):  # a route that takes nothing cannot be given anything wrong
            SHORT(given(case=cases)(try_out))()
    assert tried > 100
