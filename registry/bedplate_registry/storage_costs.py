"""What storing a space as float16, int8 or int4 costs the experts that read it, in NE."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

from bedplate.references import SpaceReference
from bedplate.wire.registry import Dtype, Evaluation, NeCost

NE = "ne"
_BASELINES: tuple[Dtype, ...] = ("float32", "float16")
"""What a storage is compared with: the first that was evaluated with a seed of its own."""
_STORAGES: tuple[Dtype, ...] = ("float16", "int8", "int4")

_Family = tuple[str, str, datetime, datetime, str, str, tuple[str, ...]]
"""surface, task, start, end, expert, variant, spaces read: one expert is compared with itself."""
_NeBySeed = dict[int | None, float]


def ne_costs(evaluations: Iterable[Evaluation], versions: Collection[str]) -> list[NeCost]:
    """Every difference in NE that these evaluations allow, sorted by surface, task, window, expert and dtype.

    Compared are versions of one expert, evaluated on the same surface, task and window with the same variant
    and seed, which read the same spaces, all stored as one dtype on each side. Where something was measured
    twice, the evaluation recorded last counts. Evaluations without the metric ``ne`` are left out.

    Args:
        versions: foundation versions of the same weights, e.g. ``{"core@7", "core@8"}``: their vectors differ
            by how they are stored alone. Evaluations that read anything else are left out.
    """
    families: dict[_Family, dict[Dtype, _NeBySeed]] = {}
    for evaluation in sorted(evaluations, key=lambda one: one.id):
        storages = {read.storage for read in evaluation.reads}
        spaces = [SpaceReference.parse(read.space) for read in evaluation.reads]
        if NE not in evaluation.metrics or len(storages) != 1:
            continue
        if not all(str(space.version) in versions for space in spaces):
            continue
        storage = storages.pop()
        if storage is not None:
            names = tuple(sorted({space.space for space in spaces}))
            measured = families.setdefault(_family(evaluation, names), {}).setdefault(storage, {})
            measured[evaluation.seed] = evaluation.metrics[NE]
    return [cost for family in sorted(families) for cost in _costs(family, families[family])]


def _family(evaluation: Evaluation, spaces: tuple[str, ...]) -> _Family:
    return (
        evaluation.surface,
        evaluation.task,
        evaluation.window_start,
        evaluation.window_end,
        evaluation.subject.partition("@")[0],
        evaluation.variant,
        spaces,
    )


def _costs(family: _Family, measured: Mapping[Dtype, _NeBySeed]) -> list[NeCost]:
    costs = []
    for storage in _STORAGES:
        for baseline in _BASELINES:
            seeds = [seed for seed in measured.get(storage, {}) if seed in measured.get(baseline, {})]
            if storage != baseline and seeds:
                costs.append(_cost(family, (storage, baseline), measured, seeds))
                break
    return costs


def _cost(
    family: _Family,
    compared: tuple[Dtype, Dtype],
    measured: Mapping[Dtype, _NeBySeed],
    seeds: list[int | None],
) -> NeCost:
    surface, task, start, end, expert, variant, spaces = family
    ne, against = ([measured[storage][seed] for seed in seeds] for storage in compared)
    differences = [one - other for one, other in zip(ne, against, strict=True)]
    return NeCost(
        storage=compared[0],
        against=compared[1],
        surface=surface,
        task=task,
        expert=expert,
        variant=variant,
        spaces=[*spaces],
        window_start=start,
        window_end=end,
        ne=statistics.fmean(ne),
        ne_against=statistics.fmean(against),
        cost=statistics.fmean(differences),
        cost_std=statistics.stdev(differences) if len(differences) > 1 else None,
        seeds=len(seeds),
    )
