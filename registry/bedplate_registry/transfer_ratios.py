"""The transfer ratio: what share of a foundation's gain arrives in the experts that build on it.

TR = (NE(expert on FM1) - NE(expert on FM2)) / (NE(FM1) - NE(FM2)), arXiv 2508.02929.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from bedplate.wire.registry import Evaluation, TransferRatio

NE = "ne"
SIGNIFICANT_GAIN = 0.0005
"""Relative change of NE that counts (arXiv 2508.02929); below it there is no gain to transfer."""

Window = tuple[str, str, datetime, datetime]
"""surface, task, start, end: only evaluations of one window can be compared."""


@dataclass(frozen=True)
class _Pair:
    """NE by seed of one expert and variant on both foundation versions."""

    expert: str
    variant: str
    before: Mapping[int | None, float]
    after: Mapping[int | None, float]

    @property
    def seeds(self) -> list[int | None]:
        return [seed for seed in self.before if seed in self.after]


def transfer_ratios(
    evaluations: Iterable[Evaluation],
    pins: Mapping[str, str | None],
    *,
    from_version: str,
    to_version: str,
) -> list[TransferRatio]:
    """Every transfer ratio that these evaluations allow, sorted by window, expert and variant.

    An expert is compared with itself: versions of one expert, one pinned to each foundation version,
    evaluated on the same surface, task and window with the same variant and seed. Where something was
    measured twice, the evaluation recorded last counts. Evaluations without the metric ``ne`` are left out.

    Args:
        pins: expert version -> foundation version, ``{"ranker@3": "core@2"}``.
        from_version, to_version: FM1 and FM2, e.g. ``core@1`` and ``core@2``.
    """
    windows: dict[Window, list[Evaluation]] = {}
    for evaluation in sorted(evaluations, key=lambda one: one.id):
        if NE in evaluation.metrics:
            windows.setdefault(_window(evaluation), []).append(evaluation)
    found: list[TransferRatio] = []
    for window in sorted(windows):
        measured = windows[window]
        before = _by_seed(one for one in measured if one.subject == from_version)
        after = _by_seed(one for one in measured if one.subject == to_version)
        if before and after:
            foundation = (statistics.fmean(before.values()), statistics.fmean(after.values()))
            pairs = _pairs(measured, pins, from_version, to_version)
            found += [_ratio(window, (from_version, to_version), foundation, pair) for pair in pairs]
    return found


def _window(evaluation: Evaluation) -> Window:
    return (evaluation.surface, evaluation.task, evaluation.window_start, evaluation.window_end)


def _by_seed(evaluations: Iterable[Evaluation]) -> dict[int | None, float]:
    return {evaluation.seed: evaluation.metrics[NE] for evaluation in evaluations}


def _pairs(
    measured: Iterable[Evaluation], pins: Mapping[str, str | None], from_version: str, to_version: str
) -> list[_Pair]:
    sides: dict[tuple[str, str], dict[str, list[Evaluation]]] = {}
    for evaluation in measured:
        pin = pins.get(evaluation.subject)
        if pin in (from_version, to_version):
            family = (evaluation.subject.partition("@")[0], evaluation.variant)
            sides.setdefault(family, {}).setdefault(pin, []).append(evaluation)
    pairs = [
        _Pair(expert, variant, _by_seed(by_pin[from_version]), _by_seed(by_pin[to_version]))
        for (expert, variant), by_pin in sorted(sides.items())
        if from_version in by_pin and to_version in by_pin
    ]
    return [pair for pair in pairs if pair.seeds]


def _ratio(
    window: Window, compared: tuple[str, str], foundation: tuple[float, float], pair: _Pair
) -> TransferRatio:
    surface, task, start, end = window
    gain = foundation[0] - foundation[1]
    changed = gain > SIGNIFICANT_GAIN * foundation[0]
    ratios = [(pair.before[seed] - pair.after[seed]) / gain for seed in pair.seeds] if changed else []
    return TransferRatio(
        surface=surface,
        task=task,
        from_version=compared[0],
        to_version=compared[1],
        expert=pair.expert,
        variant=pair.variant,
        window_start=start,
        window_end=end,
        foundation_ne_from=foundation[0],
        foundation_ne_to=foundation[1],
        expert_ne_from=statistics.fmean(pair.before[seed] for seed in pair.seeds),
        expert_ne_to=statistics.fmean(pair.after[seed] for seed in pair.seeds),
        seeds=len(pair.seeds),
        ratio=statistics.fmean(ratios) if ratios else None,
        ratio_std=statistics.stdev(ratios) if len(ratios) > 1 else None,
        reason=None
        if changed
        else f"the NE of {compared[1]} is not lower than that of {compared[0]}: there is no gain to transfer",
    )
