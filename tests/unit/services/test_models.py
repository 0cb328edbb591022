"""Following the registry: what is served while models come, fail and go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bedplate.errors import CheckpointInvalid, Conflict, NotFound, Unavailable, VersionNotReady
from bedplate_services.metrics import NullMetrics
from bedplate_services.serving.models import ModelKeeper
from bedplate_services.serving.wanted import Wanted, WantedExpert, WantedModel


class Cache:
    """Every checkpoint lies in a folder named by its digest."""

    def fetch(self, label: str, digest: str, files: Sequence[Any]) -> Path:
        return Path(digest)


class Loader:
    """Counts loads; fails for what is in ``broken``."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.broken: set[str] = set()
        self.error: Exception = CheckpointInvalid("Broken.")

    def __call__(self, folder: Path) -> Any:
        if folder.name in self.broken:
            raise self.error
        self.loaded.append(folder.name)
        return f"runtime of {folder.name}"


def model(label: str) -> WantedModel:
    return WantedModel(label, f"digest-{label}", ())


def wanted(*foundations: str, experts: Sequence[WantedExpert] = (), **aliases: str) -> Wanted:
    names = {f"core@{alias}": version for alias, version in aliases.items()}
    return Wanted(tuple(map(model, foundations)), tuple(experts), names, {"feed": "feed-team"})


class Keeping:
    def __init__(self) -> None:
        self.now = 0.0
        self.wanted = wanted()
        self.loader = Loader()
        self.keeper = ModelKeeper(
            lambda: self.wanted,
            Cache(),  # type: ignore[arg-type]  # all it is asked for
            NullMetrics(),
            load_foundation=self.loader,
            load_expert=self.loader,
            clock=lambda: self.now,
        )

    def poll(self, *foundations: str, **more: Any) -> tuple[str, ...]:
        self.wanted = wanted(*foundations, **more)
        self.keeper.poll()
        return self.keeper.current.active


@pytest.fixture
def keeping() -> Keeping:
    return Keeping()


def test_not_ready_before_the_registry_was_read(keeping: Keeping) -> None:
    with pytest.raises(Unavailable):
        keeping.keeper.check()
    assert keeping.poll() == ()
    keeping.keeper.check()
    with pytest.raises(VersionNotReady):
        keeping.keeper.current.chosen(None)


def test_models_are_loaded_once_and_dropped(keeping: Keeping) -> None:
    assert keeping.poll("core@1") == ("core@1",)
    assert keeping.poll("core@1", "core@2") == ("core@1", "core@2")
    assert keeping.poll("core@2") == ("core@2",)
    assert keeping.loader.loaded == ["digest-core@1", "digest-core@2"]
    assert set(keeping.keeper.current.foundations) == {"core@2"}


def test_a_set_taken_before_a_change_stays_whole(keeping: Keeping) -> None:
    keeping.poll("core@1", production="core@1")
    taken = keeping.keeper.current
    keeping.poll("core@2", production="core@2")
    assert taken.foundation("core@production").label == "core@1"
    assert keeping.keeper.current.foundation("core@production").label == "core@2"


def test_a_broken_version_leaves_the_old_one_serving(keeping: Keeping) -> None:
    keeping.poll("core@1", production="core@1")
    keeping.loader.broken = {"digest-core@2"}
    assert keeping.poll("core@2", production="core@2") == ("core@1",)
    assert keeping.keeper.current.foundation("core@production").label == "core@1"
    keeping.keeper.check()
    keeping.loader.broken = set()
    keeping.poll("core@2", production="core@2")
    assert keeping.keeper.current.active == ("core@1",), "tried again only after a pause"
    keeping.now = 1.0
    assert keeping.poll("core@2", production="core@2") == ("core@2",)
    assert keeping.keeper.current.foundation("core@production").label == "core@2"


def test_a_broken_candidate_does_not_hold_up_production(keeping: Keeping) -> None:
    keeping.poll("core@1", production="core@1")
    keeping.loader.broken = {"digest-core@3"}
    active = keeping.poll("core@2", "core@3", production="core@2", candidate="core@3")
    assert active == ("core@2",)
    assert keeping.keeper.current.foundation("core@production").label == "core@2"
    with pytest.raises(NotFound):
        keeping.keeper.current.foundation("core@candidate")


def test_a_broken_expert_leaves_the_old_one_with_its_pin(keeping: Keeping) -> None:
    keeping.poll("core@1", experts=[WantedExpert(model("ranker@1"), "ranker", "feed", "core@1")])
    keeping.loader.broken = {"digest-ranker@2"}
    broken = WantedExpert(model("ranker@2"), "ranker", "feed", "core@2")
    assert set(keeping.poll("core@2", experts=[broken])) == {"core@1", "core@2"}
    assert keeping.keeper.current.expert("feed", None).label == "ranker@1"
    assert keeping.poll("core@2") == ("core@2",)
    with pytest.raises(NotFound):
        keeping.keeper.current.expert("feed", None)


def test_only_what_checkpoints_are_fetched_through_makes_the_service_unready(keeping: Keeping) -> None:
    keeping.loader.broken = {"digest-core@1"}
    keeping.poll("core@1", production="core@1")
    keeping.keeper.check()
    keeping.loader.error = Unavailable("No object store.")
    keeping.now = 1.0
    keeping.poll("core@1", production="core@1")
    with pytest.raises(Unavailable) as error:
        keeping.keeper.check()
    assert error.value.context["missing"] == ["core@1"]


def test_pauses_grow(keeping: Keeping) -> None:
    keeping.loader.broken = {"digest-core@1"}
    tries = 0
    for second in range(100):
        keeping.now = float(second)
        before = keeping.keeper._failures.get("core@1")
        keeping.poll("core@1")
        tries += keeping.keeper._failures["core@1"] is not before
    assert tries == 8, "at 0, 1, 3, 7, 15, 31, 61 and 91 seconds"


def test_experts_serve_with_their_pin(keeping: Keeping) -> None:
    expert = WantedExpert(model("ranker@1"), "ranker", "feed", "core@1")
    keeping.poll("core@1", experts=[expert])
    found = keeping.keeper.current.expert("feed", None)
    assert (found.label, found.wanted.pinned) == ("ranker@1", "core@1")
    with pytest.raises(NotFound):
        keeping.keeper.current.expert("reels", None)
    with pytest.raises(NotFound):
        keeping.keeper.current.expert("feed", "other")
    second = WantedExpert(model("second@4"), "second", "feed", None)
    keeping.poll("core@1", experts=[expert, second])
    with pytest.raises(Conflict):
        keeping.keeper.current.expert("feed", None)
    assert keeping.keeper.current.expert("feed", "second").label == "second@4"


def test_an_expert_whose_version_cannot_be_loaded_does_not_serve(keeping: Keeping) -> None:
    keeping.loader.broken = {"digest-core@1"}
    expert = WantedExpert(model("ranker@1"), "ranker", "feed", "core@1")
    keeping.poll("core@1", experts=[expert])
    with pytest.raises(NotFound):
        keeping.keeper.current.expert("feed", None)


def test_chosen_versions_come_once(keeping: Keeping) -> None:
    keeping.poll("core@1", "core@2", production="core@2")
    chosen = keeping.keeper.current.chosen(["core@2", "core@production", "core@1"])
    assert [one.label for one in chosen] == ["core@2", "core@1"]
    with pytest.raises(NotFound):
        keeping.keeper.current.chosen(["core@3"])
