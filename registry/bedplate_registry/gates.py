"""Gates: may a version be promoted? A pure function of a policy and of facts somebody else gathered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

GateName = Literal["spaces_complete", "recall_reached", "ne_not_worse"]


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """What a promotion takes.

    Attributes:
        recall_target: least measured recall@10 of every index.
        ne_tolerance: how much worse NE may get, relative (0.0005 is 0.05 %, what counts as significant).
        require_ne: whether a version nobody evaluated is stopped.
    """

    recall_target: float = 0.95
    ne_tolerance: float = 0.0005
    require_ne: bool = True


@dataclass(frozen=True, slots=True)
class SpaceFacts:
    """One space of the candidate that has to be embedded; ``snapshot`` None: nothing is published."""

    snapshot: int | None
    rows: int
    expected_rows: int
    recall_at_10: float | None


@dataclass(frozen=True, slots=True)
class GateFacts:
    """What is known of the candidate and of the version it would replace.

    Attributes:
        spaces: by name, every space of the signature that names an entity.
        candidate_ne, current_ne: (surface, task) -> NE, measured on the same window; current is empty for the
            first promotion.
    """

    spaces: Mapping[str, SpaceFacts]
    candidate_ne: Mapping[tuple[str, str], float] = field(default_factory=dict)
    current_ne: Mapping[tuple[str, str], float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finding:
    gate: GateName
    subject: str
    passed: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        return all(finding.passed for finding in self.findings)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why not; empty when everything passed."""
        return tuple(finding.reason for finding in self.findings if not finding.passed)


def evaluate_gates(policy: GatePolicy, facts: GateFacts) -> Verdict:
    """One finding for every gate and subject, in a fixed order."""
    findings: list[Finding] = []
    for name in sorted(facts.spaces):
        findings += [_complete(name, facts.spaces[name]), _recall(name, facts.spaces[name], policy)]
    for key in sorted(facts.candidate_ne.keys() | facts.current_ne.keys()):
        findings.append(_ne("/".join(key), facts.candidate_ne.get(key), facts.current_ne.get(key), policy))
    if not facts.candidate_ne and not facts.current_ne and policy.require_ne:
        findings.append(_ne("any surface", None, None, policy))
    return Verdict(tuple(findings))


def _complete(name: str, space: SpaceFacts) -> Finding:
    passed = space.snapshot is not None and space.rows >= space.expected_rows
    reason = f"space {name!r}: {space.rows} of {space.expected_rows} rows published"
    return Finding("spaces_complete", name, passed, reason)


def _recall(name: str, space: SpaceFacts, policy: GatePolicy) -> Finding:
    if space.recall_at_10 is None:
        return Finding("recall_reached", name, False, f"space {name!r}: recall@10 was not measured")
    passed = space.recall_at_10 >= policy.recall_target
    reason = f"space {name!r}: recall@10 is {space.recall_at_10:.4f}, the target {policy.recall_target:.4f}"
    return Finding("recall_reached", name, passed, reason)


def _ne(subject: str, candidate: float | None, current: float | None, policy: GatePolicy) -> Finding:
    if candidate is None:
        return Finding("ne_not_worse", subject, not policy.require_ne, f"{subject}: NE was not measured")
    if current is None:
        return Finding("ne_not_worse", subject, True, f"{subject}: NE is {candidate:.5f}, the first there is")
    passed = candidate <= current * (1 + policy.ne_tolerance)
    reason = f"{subject}: NE is {candidate:.5f}, of the current version {current:.5f}"
    return Finding("ne_not_worse", subject, passed, reason)
