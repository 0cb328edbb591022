"""The models in memory, kept in step with the registry without failing a request.

A request takes the current :class:`ModelSet` once and works with it to its end; a newer set replaces it
whole, and the old models live until their last request is answered.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bedplate.errors import CheckpointInvalid, Conflict, NotFound, Unavailable, VersionNotReady
from bedplate.references import VersionReference
from bedplate_modeling.runtime import ExpertRuntime, FoundationRuntime
from bedplate_registry.checkpoint_cache import CheckpointCache
from bedplate_services.logging import get_logger
from bedplate_services.metrics import Metrics
from bedplate_services.serving.wanted import Wanted, WantedExpert, WantedModel

_log = get_logger(__name__)
_LONGEST_PAUSE_SECONDS = 30.0


@dataclass(frozen=True)
class LoadedFoundation:
    """A foundation version ready to compute TAE; ``tae_dtype`` is what they are logged and served in."""

    label: str
    digest: str
    runtime: FoundationRuntime

    @property
    def tae_dtype(self) -> str:
        return self.runtime.spaces["tae"].dtype


@dataclass(frozen=True)
class LoadedExpert:
    """A serving expert version, ready to rank."""

    wanted: WantedExpert
    runtime: ExpertRuntime

    @property
    def label(self) -> str:
        return self.wanted.model.label


@dataclass(frozen=True)
class ModelSet:
    """What answers requests now; immutable.

    Attributes:
        foundations: by label (``core@7``).
        active: the labels that are computed and logged when a request names none.
        experts: by (surface, name).
        aliases: ``core@production`` -> ``core@7``.
        owners: surface -> team.
    """

    foundations: Mapping[str, LoadedFoundation] = field(default_factory=dict)
    active: tuple[str, ...] = ()
    experts: Mapping[tuple[str, str], LoadedExpert] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    owners: Mapping[str, str] = field(default_factory=dict)

    @property
    def digests(self) -> set[str]:
        """Of the checkpoints that are loaded."""
        experts = {expert.wanted.model.digest for expert in self.experts.values()}
        return experts | {foundation.digest for foundation in self.foundations.values()}

    def foundation(self, reference: str) -> LoadedFoundation:
        """By ``core@7`` or ``core@production``.

        Raises:
            InvalidRequest: it is no reference.
            NotFound: the version is not active.
        """
        VersionReference.parse(reference)
        found = self.foundations.get(self.aliases.get(reference, reference))
        if found is None:
            known = ", ".join(self.active) or "none"
            raise NotFound(
                f"{reference} is not served; active are: {known}. Point an alias at it to make it active."
            )
        return found

    def chosen(self, references: list[str] | None) -> list[LoadedFoundation]:
        """The versions a request asks for, each once; None: every active one.

        Raises:
            VersionNotReady: none is active. Otherwise as ``foundation``.
        """
        labels = list(self.active) if references is None else references
        if not labels:
            raise VersionNotReady(
                "No foundation version is active: finalise one and point an alias at it "
                "(PUT /v1/foundations/{foundation}/aliases/production)."
            )
        found = {one.label: one for one in map(self.foundation, labels)}
        return list(found.values())

    def expert(self, surface: str, name: str | None) -> LoadedExpert:
        """The serving expert of a surface; ``name`` None: its only one.

        Raises:
            NotFound: nothing serves there.
            Conflict: several do, and none was named.
        """
        here = {key[1]: expert for key, expert in self.experts.items() if key[0] == surface}
        if name is not None:
            here = {key: expert for key, expert in here.items() if key == name}
        if not here:
            which = f"expert {name!r}" if name is not None else "expert"
            raise NotFound(
                f"No {which} serves surface {surface!r}: publish an expert version and let it serve "
                "(PUT /v1/experts/{expert}/serving)."
            )
        if len(here) > 1:
            raise Conflict(f"Several experts serve {surface!r}; name one of: {', '.join(sorted(here))}.")
        return next(iter(here.values()))


@dataclass
class _Failure:
    retry_at: float
    pause_seconds: float
    invalid: bool
    """The checkpoint itself is at fault, and not what it is fetched through."""


class ModelKeeper:
    """Loads what the registry wants and drops what it no longer wants.

    A version that cannot be loaded is logged, counted, and tried again with growing pauses; what its aliases
    and its expert meant before goes on being served, and everything else moves on. It does not make the
    service unready: one team's bad checkpoint must not take everybody's requests away.
    """

    def __init__(
        self,
        read: Callable[[], Wanted],
        cache: CheckpointCache,
        metrics: Metrics,
        *,
        load_foundation: Callable[[Path], FoundationRuntime] = FoundationRuntime.load,
        load_expert: Callable[[Path], ExpertRuntime] = ExpertRuntime.load,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._cache = cache
        self._metrics = metrics
        self._load_foundation = load_foundation
        self._load_expert = load_expert
        self._clock = clock
        self._failures: dict[str, _Failure] = {}
        self._missing: list[str] | None = None
        self._wanted: Wanted | None = None
        self._lock = threading.Lock()
        self.current = ModelSet()

    def check(self) -> None:
        """Raises Unavailable, saying what is missing, before the registry was read, and while nothing at all
        could be loaded for another reason than bad checkpoints.
        """
        if self._missing is None:
            raise Unavailable("The registry has not been read yet.")
        if self.current.foundations or self.current.experts:
            return
        failures = [self._failures.get(label) for label in self._missing]
        if not all(failure is not None and failure.invalid for failure in failures):
            raise Unavailable(f"Not loaded yet: {', '.join(self._missing)}.", missing=self._missing)

    def poll(self) -> None:
        """Read the registry and follow it; slow while something is being loaded."""
        with self._lock:
            self._follow(self._read())

    def _follow(self, wanted: Wanted) -> None:
        if wanted == self._wanted and not self._missing:
            return
        loaded = self._loaded(wanted)
        self._missing = [label for label in wanted.labels if label not in loaded]
        self._metrics.models(len(wanted.models), len(wanted.models) - len(self._missing))
        self.current = self._next_set(wanted, loaded)
        self._wanted = wanted

    def _loaded(self, wanted: Wanted) -> dict[str, Any]:
        known: dict[str, Any] = dict(self.current.foundations)
        known |= {expert.label: expert.runtime for expert in self.current.experts.values()}
        loaded: dict[str, Any] = {}
        for model in wanted.foundations:
            found = known.get(model.label) or self._try(model, self._foundation)
            if found is not None:
                loaded[model.label] = found
        for expert in wanted.experts:
            label = expert.model.label
            found = known.get(label) or self._try(expert.model, self._expert_runtime)
            if found is not None:
                loaded[label] = found
        return loaded

    def _next_set(self, wanted: Wanted, loaded: Mapping[str, Any]) -> ModelSet:
        """Where an alias or expert means what cannot be loaded, it goes on meaning what it meant before."""
        before = self.current
        foundations = {one.label: loaded[one.label] for one in wanted.foundations if one.label in loaded}
        aliases: dict[str, str] = {}
        for alias, label in wanted.aliases.items():
            meant = label if label in foundations else before.aliases.get(alias)
            if meant is not None and meant in before.foundations:
                foundations.setdefault(meant, before.foundations[meant])
            aliases[alias] = label if meant is None else meant
        experts = {}
        for one in wanted.experts:
            key = (one.surface, one.name)
            if one.model.label in loaded and (one.pinned is None or one.pinned in foundations):
                experts[key] = LoadedExpert(one, loaded[one.model.label])
            elif key in before.experts:
                experts[key] = before.experts[key]
                pinned = experts[key].wanted.pinned
                if pinned is not None:
                    foundations.setdefault(pinned, before.foundations[pinned])
        return ModelSet(foundations, tuple(foundations), experts, aliases, wanted.owners)

    def _foundation(self, model: WantedModel) -> LoadedFoundation:
        folder = self._cache.fetch(model.label, model.digest, model.files)
        return LoadedFoundation(model.label, model.digest, self._load_foundation(folder))

    def _expert_runtime(self, model: WantedModel) -> ExpertRuntime:
        return self._load_expert(self._cache.fetch(model.label, model.digest, model.files))

    def _try(self, model: WantedModel, load: Callable[[WantedModel], Any]) -> Any | None:
        failure = self._failures.get(model.label)
        if failure is not None and self._clock() < failure.retry_at:
            return None
        try:
            loaded = load(model)
        except Exception as error:  # noqa: BLE001  # one bad checkpoint must not stop the others
            pause = 1.0 if failure is None else min(2 * failure.pause_seconds, _LONGEST_PAUSE_SECONDS)
            invalid = isinstance(error, CheckpointInvalid)
            self._failures[model.label] = _Failure(self._clock() + pause, pause, invalid)
            _log.error("a model cannot be loaded", model=model.label, exc_info=error)
            return None
        self._failures.pop(model.label, None)
        _log.info("loaded a model", model=model.label)
        return loaded
