"""Attributes of embedded items: features of the catalogue that become columns beside the vectors.

Their types are decided once, when the job is planned, by all values of the catalogue: partitions run side by
side, and all of them write the same schema. A value that changed to another type since fails its partition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any

import pyarrow as pa

from bedplate.errors import Conflict, InvalidRequest
from bedplate_store import items
from bedplate_store.attributes import ATTRIBUTES_MAX, TYPES, check_name
from bedplate_store.database import ReadSession

_INT64 = range(-(2**63), 2**63)
_NULL, _UNFIT = "null", "unfit"
_KINDS = {NoneType: _NULL, bool: "bool", int: "int64", float: "float64", str: "string"}
_TEXTS = frozenset({str, NoneType})


def survey(
    session: ReadSession, names: Sequence[str], known: Mapping[str, str], *, required: bool = True
) -> dict[str, str]:
    """The types of the features ``names``, by reading the whole catalogue once.

    Args:
        known: the attributes that the space has; a feature keeps the type it has there.
        required: whether each must be a feature of some item; else those that are not are left out.

    Raises:
        InvalidRequest: a name that is not allowed, too many, or a feature that no item has.
        Conflict: items disagree about the type, or with the space, or hold what no attribute can be; names an
            item of each.
    """
    for name in names:
        check_name(name)
    if len({*known, *names}) > ATTRIBUTES_MAX:
        raise InvalidRequest(f"a space has at most {ATTRIBUTES_MAX} attributes: name fewer.")
    wanted = sorted(set(names))
    if not wanted:
        return {}
    seen: dict[str, dict[str, str]] = {name: {} for name in wanted}
    for keys, features in items.scan_features(session):
        for name, kinds in seen.items():
            for key, document in zip(keys, features, strict=True):
                kinds.setdefault(_kind(document.get(name)), key)
    return {
        name: _decided(name, seen[name], known.get(name))
        for name in wanted
        if required or seen[name].keys() - {_NULL}
    }


def agreed(found: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    """The types of ``found`` where the space has ``known``: integers fit a float64 attribute.

    Raises:
        Conflict: the space came to know the attribute with another type meanwhile.
    """
    types = {}
    for name, type_ in found.items():
        types[name] = known.get(name, type_)
        if not _fits(type_, types[name]):
            raise Conflict(
                f"attribute {name!r} is {types[name]} in this space and {type_} in the catalogue: use "
                "features of that type, or leave the attribute out.",
                attribute=name,
                type=types[name],
            )
    return types


def table_of(
    keys: Sequence[str], features: Sequence[Mapping[str, Any]], types: Mapping[str, str]
) -> pa.Table | None:
    """The attributes ``types`` of items [n], null where an item lacks the feature; None: there are none.

    Raises:
        Conflict: a value is of another type than when the job was planned.
    """
    if not types:
        return None
    columns = {}
    for name in sorted(types):
        values = [document.get(name) for document in features]
        for key, value in zip(keys, values, strict=True):
            kind = _kind(value)
            if kind != _NULL and not _fits(kind, types[name]):
                raise Conflict(
                    f"item {key!r} has {_said(kind)} as {name!r}, which is {types[name]} in this job: mend "
                    "the item, and embed again.",
                    item=key,
                    attribute=name,
                    type=types[name],
                )
        if types[name] == "float64":
            values = [None if value is None else float(value) for value in values]
        columns[name] = pa.array(values, TYPES[types[name]])
    return pa.table(columns)


def _kind(value: Any) -> str:
    """The type that a value of JSON asks for."""
    type_ = type(value)
    if type_ is list:
        return "list<string>" if _TEXTS.issuperset(map(type, value)) else _UNFIT
    if type_ is int and value not in _INT64:
        return _UNFIT
    return _KINDS.get(type_, _UNFIT)


def _decided(name: str, kinds: Mapping[str, str], known: str | None) -> str:
    """The one type of all kinds of values; ``kinds`` has an item of each."""
    if _UNFIT in kinds:
        raise Conflict(
            f"item {kinds[_UNFIT]!r} has {_said(_UNFIT)} as {name!r}: an attribute is one of "
            f"{', '.join(TYPES)}. Mend the item, or leave the attribute out.",
            item=kinds[_UNFIT],
            attribute=name,
        )
    given = {kind: item for kind, item in kinds.items() if kind != _NULL}
    if not given and known is None:
        raise InvalidRequest(
            f"no item of the catalogue has a feature {name!r}: name one that items have.", attribute=name
        )
    type_ = known or ("float64" if given.keys() >= {"int64", "float64"} else next(iter(given)))
    for kind, item in given.items():
        if not _fits(kind, type_):
            there = "in this space" if known else f"of item {given[type_]!r}"
            raise Conflict(
                f"item {item!r} has {_said(kind)} as {name!r}, which is {type_} {there}: mend the item, or "
                "leave the attribute out.",
                item=item,
                attribute=name,
                type=type_,
            )
    return type_


def _fits(kind: str, type_: str) -> bool:
    return kind == type_ or (kind, type_) == ("int64", "float64")


def _said(kind: str) -> str:
    return "a value of no such type" if kind == _UNFIT else kind
