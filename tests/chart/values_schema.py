"""values.yaml and values.schema.json, side by side."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema
import yaml
from tests.chart.rendering import CHART, VALUES

Names = tuple[str, ...]
"""The names on the way to a value."""


@cache
def default_values() -> dict[str, Any]:
    """What values.yaml holds; not to be changed."""
    return dict(yaml.load((CHART / "values.yaml").read_text(), yaml.CSafeLoader))


def read_schema() -> dict[str, Any]:
    return dict(json.loads((CHART / "values.schema.json").read_text()))


class ValuesSchema:
    """Asks whether values are taken, without starting Helm for each."""

    def __init__(self) -> None:
        schema = read_schema()
        self._validator = jsonschema.validators.validator_for(schema)(schema)

    def complaints(self, values: dict[str, Any]) -> list[str]:
        return [error.message for error in self._validator.iter_errors(values)]


def values_of(document: dict[str, Any], at: Names = ()) -> Iterator[tuple[Names, Any]]:
    """Every value with its path: scalars, lists, and mappings, those that hold further values too."""
    for name, value in document.items():
        yield (*at, name), value
        if isinstance(value, dict):
            yield from values_of(value, (*at, name))


def with_value(document: dict[str, Any], path: Names, value: Any) -> dict[str, Any]:
    """A copy of ``document`` in which ``path`` holds ``value``."""
    changed = copy.deepcopy(document)
    parent = changed
    for name in path[:-1]:
        parent = parent[name]
    parent[path[-1]] = value
    return changed


def values_under(name: str) -> dict[str, Any]:
    """The defaults with what the values file ``name`` of helm/bedplate/ci puts over them."""
    return _merged(default_values(), yaml.safe_load((VALUES / f"{name}-values.yaml").read_text()))


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        under = below.get(name)
        merged[name] = _merged(under, value) if isinstance(value, dict) and isinstance(under, dict) else value
    return merged


def choices(schema: dict[str, Any], at: Names = ()) -> Iterator[tuple[Names, list[Any]]]:
    """Every value of which the schema lists what it may be."""
    definitions = read_schema()["$defs"]
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rsplit("/", 1)[1]]
    if "enum" in schema:
        yield at, schema["enum"]
    for name, inner in schema.get("properties", {}).items():
        yield from choices(inner, (*at, name))


def value_at(document: dict[str, Any], path: Names) -> Any:
    value: Any = document
    for name in path:
        value = value[name]
    return value
