"""Embed jobs that write features of the catalogue as attributes, and searches that filter by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bedplate.errors import Conflict, InvalidRequest
from bedplate.references import VersionReference
from bedplate.wire.filters import Filter
from bedplate.wire.registry import SpaceSignature, Version
from bedplate.wire.store import EmbedRequest, Item, Job
from bedplate_store import embedding_jobs, items, leases, reconciler, spaces
from bedplate_store.readers import SpaceReaders
from bedplate_store.spaces import SpaceKey
from bedplate_store.writes import Writes
from bedplate_workers.job_kinds import HANDLERS

SPACE = SpaceKey("core", 1, "item")
CORE_1 = VersionReference("core", "1")
ITEM = SpaceSignature(dim=8, dtype="float32", entity="item")
USER = SpaceSignature(dim=8, dtype="float32", entity="user")
FILMS = {
    f"item-{number:02d}": {"genre": 1, "genres": ["Drama"] if number % 2 else [], "year": 1980 + number}
    for number in range(40)
}
DRAMAS_OF_THE_NINETIES = [f"item-{number:02d}" for number in range(11, 20, 2)]
DRAMA_AND_NINETIES = Filter.model_validate(
    {
        "all": [
            {"attribute": "genres", "equals": "Drama"},
            {"attribute": "year", "at_least": 1990, "at_most": 1999},
        ]
    }
)


def put(bench: Any, films: dict[str, dict[str, Any]]) -> None:
    with bench.workplace.store.write() as session:
        items.upsert(
            session, [Item(key=key, features=film) for key, film in films.items()], now=bench.clock()
        )


def survey(bench: Any, *names: str, version: VersionReference = CORE_1, **given: Any) -> dict[str, str]:
    signature = given.get("signature", ITEM)
    request = EmbedRequest(attributes=names if names else None)
    with bench.workplace.store.read() as session:
        return embedding_jobs.survey_attributes(
            session, version=version, space=signature.entity, signature=signature, request=request
        )


def plan(bench: Any, attributes: dict[str, str], partitions: int = 4) -> Job:
    with bench.workplace.store.write() as session:
        return embedding_jobs.plan_embed(
            session,
            version=CORE_1,
            space="item",
            signature=ITEM,
            request=EmbedRequest(partitions=partitions),
            team="core-team",
            now=bench.clock(),
            attributes=attributes,
        )


def finished(bench: Any, job: Job) -> Job:
    bench.work_all(bench.worker(HANDLERS))
    state: Job = bench.state(job)
    assert state.state == "succeeded", state.error
    return state


def found(bench: Any, tmp_path: Path, filter: Filter = DRAMA_AND_NINETIES) -> list[str]:
    """Keys of all rows that pass."""
    place = bench.workplace
    reader = SpaceReaders(place.store, place.objects, tmp_path / "read").get(*SPACE)
    keys = reader.search(np.ones((1, 8), np.float32), 40, filter=filter).keys[0]
    return sorted(str(key) for key in keys if key is not None)


def upsert(bench: Any, key: str, **attributes: Any) -> None:
    Writes(bench.workplace.store, bench.workplace.objects).upsert(
        **SPACE._asdict(),
        keys=[key],
        vectors=np.ones((1, 8), np.float32),
        attributes={name: [value] for name, value in attributes.items()},
        now=bench.clock(),
    )


@pytest.mark.usefixtures("foundation")
def test_searches_filter_by_what_the_catalogue_says(bench: Any, tmp_path: Path) -> None:
    put(bench, FILMS)
    types = survey(bench, "year", "genres", "year")
    assert types == {"genres": "list<string>", "year": "int64"}
    finished(bench, plan(bench, types))
    assert found(bench, tmp_path) == DRAMAS_OF_THE_NINETIES
    with bench.workplace.store.read() as session:
        assert spaces.get_space(session, *SPACE).attributes == types


@pytest.mark.usefixtures("foundation")
def test_an_embedding_that_names_no_attributes_keeps_those_of_the_space(bench: Any, tmp_path: Path) -> None:
    put(bench, FILMS)
    finished(bench, plan(bench, survey(bench, "genres", "year")))
    put(bench, {"item-12": {"genres": ["Drama"], "year": 1999}, "item-11": {"genres": None}})
    finished(bench, plan(bench, survey(bench)))
    assert found(bench, tmp_path) == ["item-12", *DRAMAS_OF_THE_NINETIES[1:]]


def test_a_new_version_begins_with_the_attributes_of_the_one_before(bench: Any) -> None:
    """So that a search by alias may filter as before when the alias moves; what no item has is left out."""
    newest = VersionReference("core", "9")
    put(bench, FILMS)
    assert survey(bench, version=newest) == {}
    for number, names in ((1, ("genre",)), (3, ("year", "mood")), (4, ()), (10, ("genres",))):
        with bench.workplace.store.write() as session:
            key = SpaceKey("core", number, "item")
            spaces.ensure_space(session, **key._asdict(), signature=ITEM, team="core-team", now=bench.clock())
            spaces.space_row(session, key).attributes = dict.fromkeys(names, "string")
    assert survey(bench, version=newest) == {"year": "int64"}
    assert survey(bench, "genres", version=newest) == {"genres": "list<string>"}
    assert survey(bench, version=VersionReference("core", "2")) == {"genre": "int64"}
    assert survey(bench, version=VersionReference("other", "9")) == {}
    with bench.workplace.store.read() as session:
        nothing = embedding_jobs.survey_attributes(
            session, version=newest, space="item", signature=ITEM, request=EmbedRequest(attributes=())
        )
    assert nothing == {}


@pytest.mark.usefixtures("foundation")
def test_the_bytes_do_not_tell_how_the_work_was_cut_or_repeated(bench: Any) -> None:
    """Most partitions have none of an attribute's values; one is done by two workers."""
    films = {key: {"genre": 1} for key in FILMS}
    put(bench, {**films, "item-00": {"year": 1995}, "item-39": {"year": 1995.5}})
    types = survey(bench, "year")
    assert types == {"year": "float64"}
    whole = finished(bench, plan(bench, types, partitions=1))
    job = plan(bench, types, partitions=4)
    frozen = bench.messages()[0]
    assert leases.claim(bench.workplace.store, frozen, "froze", 30, bench.clock()) is not None
    bench.clock.advance(31)
    assert bench.worker(HANDLERS).work(frozen) == "done"
    reconciler.reconcile(bench.workplace.store, bench.clock(), 1)
    assert whole.result is not None
    result = finished(bench, job).result
    assert result is not None
    assert result["digest"] == whole.result["digest"]


@pytest.mark.usefixtures("foundation")
def test_a_feature_that_changes_its_type_meanwhile_fails_the_job_by_name(bench: Any, tmp_path: Path) -> None:
    put(bench, FILMS)
    job = plan(bench, survey(bench, "year"))
    put(bench, {"item-07": {"year": "unknown"}})
    bench.work_all(bench.worker(HANDLERS))
    state = bench.state(job)
    assert state.state == "failed"
    assert "item 'item-07' has string as 'year', which is int64 in this job" in state.error


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("1995", "item 'item-07' has string as 'year', which is int64 of item 'item-00'"),
        ({"of": 1995}, "item 'item-07' has a value of no such type as 'year'"),
        ([1995], "item 'item-07' has a value of no such type as 'year'"),
    ],
)
def test_items_that_disagree_are_refused_by_name(bench: Any, value: Any, reason: str) -> None:
    put(bench, {**FILMS, "item-07": {"year": value}})
    with pytest.raises(Conflict, match=reason):
        survey(bench, "year")


@pytest.mark.usefixtures("foundation")
def test_the_space_and_the_catalogue_agree_or_it_is_refused(bench: Any) -> None:
    put(bench, FILMS)
    finished(bench, plan(bench, {}))
    upsert(bench, "item-01", year="MCMXCV", stars=4.5)
    with pytest.raises(Conflict, match="'year', which is string in this space"):
        survey(bench)
    with pytest.raises(Conflict, match="'year' is string in this space and int64 in the catalogue"):
        plan(bench, {"year": "int64"})
    assert survey(bench, "stars") == {"stars": "float64"}
    plan(bench, survey(bench, "genres"))
    with pytest.raises(Conflict, match="list<string>"):
        upsert(bench, "item-01", genres="Drama")


def test_unknown_features_reserved_names_and_users_are_refused(bench: Any, foundation: Version) -> None:
    put(bench, FILMS)
    with pytest.raises(InvalidRequest, match="no item of the catalogue has a feature 'gernes'"):
        survey(bench, "gernes")
    with pytest.raises(InvalidRequest, match="'vector' is no name of an attribute"):
        survey(bench, "vector")
    with pytest.raises(InvalidRequest, match="holds users"):
        survey(bench, "year", signature=USER)
    assert survey(bench, signature=USER) == {}
