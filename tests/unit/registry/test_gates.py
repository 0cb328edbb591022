from __future__ import annotations

import pytest

from bedplate_registry.gates import GateFacts, GatePolicy, SpaceFacts, evaluate_gates

COMPLETE = SpaceFacts(snapshot=1, rows=100, expected_rows=100, recall_at_10=0.97)
FEED = ("feed", "label")


def _failed(facts: GateFacts, policy: GatePolicy | None = None) -> list[tuple[str, str]]:
    verdict = evaluate_gates(policy or GatePolicy(), facts)
    failed = [(finding.gate, finding.subject) for finding in verdict.findings if not finding.passed]
    assert verdict.passed == (failed == [])
    assert len(verdict.reasons) == len(failed)
    return failed


def test_everything_is_in_order():
    assert _failed(GateFacts({"item": COMPLETE}, {FEED: 0.8}, {FEED: 0.81})) == []


@pytest.mark.parametrize(
    ("space", "failed"),
    [
        (SpaceFacts(None, 0, 100, None), ["spaces_complete", "recall_reached"]),
        (SpaceFacts(1, 99, 100, 0.97), ["spaces_complete"]),
        (SpaceFacts(1, 100, 100, 0.9499), ["recall_reached"]),
        (SpaceFacts(1, 100, 100, 0.95), []),
        (SpaceFacts(1, 100, 100, None), ["recall_reached"]),
    ],
)
def test_spaces(space, failed):
    facts = GateFacts({"item": COMPLETE, "user": space}, {FEED: 0.8})
    assert _failed(facts) == [(gate, "user") for gate in failed]


@pytest.mark.parametrize(
    ("candidate", "current", "passed"),
    [(0.8, 0.8, True), (0.8003, 0.8, True), (0.8005, 0.8, False), (0.7, 0.8, True), (0.9, None, True)],
)
def test_ne_may_not_get_worse(candidate, current, passed):
    facts = GateFacts({}, {FEED: candidate}, {} if current is None else {FEED: current})
    assert (_failed(facts) == []) == passed


def test_a_surface_nobody_measured_stops_the_promotion():
    facts = GateFacts({}, {FEED: 0.8}, {FEED: 0.8, ("reels", "label"): 0.7})
    assert _failed(facts) == [("ne_not_worse", "reels/label")]
    assert _failed(GateFacts({})) == [("ne_not_worse", "any surface")]
    lenient = GatePolicy(require_ne=False)
    assert _failed(facts, lenient) == []
    assert _failed(GateFacts({}), lenient) == []


def test_reasons_say_the_figures():
    verdict = evaluate_gates(GatePolicy(), GateFacts({"item": SpaceFacts(1, 99, 100, 0.9)}, {FEED: 0.8}))
    assert "99 of 100" in verdict.reasons[0]
    assert "0.9000" in verdict.reasons[1]
