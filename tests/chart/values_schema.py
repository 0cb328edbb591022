"""values.yaml and values.schema.json, side by side."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema
import yaml
from tests.chart.rendering import CHART

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
