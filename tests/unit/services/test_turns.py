"""Requests of one turn of the event loop that go to store nodes together."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
import structlog

from bedplate.errors import DimensionMismatch, InvalidRequest, ShardsUnanswered
from bedplate_services.searches import Query
from bedplate_services.shards.connections import NodeAnswer
from bedplate_services.shards.exchange import REQUEST_IDS, REQUESTS_MAX
from bedplate_services.shards.turns import RemoteTurns

from .test_fan_out import DIM, Nodes, Routing, fails, fan_out, space

PROBLEM = b'{"code": "invalid_request", "detail": "no such attribute"}'


def run(nodes: Nodes, *asks: Any, routing: Routing | None = None) -> list[Any]:
    """What ``asks``, all made in one turn, are told; each takes (turns, done)."""

    async def main() -> list[Any]:
        turns = RemoteTurns(fan_out(nodes, routing))
        loop = asyncio.get_running_loop()
        answers = [loop.create_future() for _ in asks]
        for ask, answer in zip(asks, answers, strict=True):
            ask(turns, answer.set_result)
        return list(await asyncio.gather(*answers))

    return asyncio.run(main())


def lookup(state: Any, *keys: int, dtype: str = "float32", request_id: str = "r") -> Any:
    return lambda turns, done: turns.lookup(state, np.array(keys), dtype, request_id, done)


def search(state: Any, rows: int = 1, **setting: Any) -> Any:
    query = Query(np.zeros((rows, DIM), np.float32), None, **{"k": 3, "ef": None, **setting})
    return lambda turns, done: turns.search(state, query, "r", done)


def test_lookups_of_one_turn_are_one_request_for_each_node() -> None:
    nodes, state = Nodes(), space()
    first, second = run(nodes, lookup(state, 24, 2), lookup(state, 12, 4, 3))
    assert sorted(url for url, _ in nodes.asked) == ["a", "b"]
    assert first.vectors[:, 0].tolist() == [24.0, 2.0]
    assert second.vectors[:, 0].tolist() == [12.0, 4.0, 3.0]
    assert second.found.tolist() == [True, True, False]
    assert ((first.shards.answered, first.shards.of), (second.shards.answered, second.shards.of)) == (
        (2, 2),
        (2, 2),
    )


def test_a_message_names_the_requests_that_it_is_for_and_no_others() -> None:
    nodes, state = Nodes(), space(5, "a", "a", "a")
    run(nodes, *(lookup(state, 2, request_id=f"r-{number}") for number in range(REQUESTS_MAX + 1)))
    assert nodes.requests == [
        tuple(f"r-{number}" for number in range(REQUESTS_MAX)),
        (f"r-{REQUESTS_MAX}",),
    ]
    head = ",".join(["i" * 64] * REQUESTS_MAX).encode()
    assert REQUEST_IDS.match(head), "as many of the longest ids as a node takes over"
    assert not REQUEST_IDS.match(head + b",i")


def test_the_log_does_not_name_all_requests_of_a_turn_by_the_id_of_the_first() -> None:
    def asks_from_a_request(turns: Any, done: Any) -> None:
        with structlog.contextvars.bound_contextvars(request_id="first"):
            lookup(space(5, "a"), 2, request_id="first")(turns, done)

    seen: list[dict[str, Any]] = []

    def looked_up(query: dict[str, str]) -> None:
        seen.append(structlog.contextvars.get_contextvars())

    run(Nodes(a=looked_up), asks_from_a_request)
    assert seen == [{}]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda state: lookup(state, 2), lambda _: lookup(space(), 2)),
        (lambda state: lookup(state, 2), lambda state: lookup(state, 2, dtype="float16")),
        (lambda state: search(state), lambda state: search(state, k=4)),
        (lambda state: search(state), lambda state: search(state, ef=7)),
        (lambda state: lookup(state, *range(1600)), lambda state: lookup(state, 2)),
    ],
)
def test_what_differs_is_asked_apart(one: Any, other: Any) -> None:
    nodes, state = Nodes(), space(5, "a", "a", "a")
    run(nodes, one(state), other(state))
    assert len(nodes.asked) == 2


def test_each_is_told_of_its_own_shards_alone() -> None:
    state = space()
    whole, broken = run(Nodes(b=fails), lookup(state, 2, 24), lookup(state, 2, 12))
    assert whole.found.all()
    assert (whole.shards.answered, whole.shards.of, whole.shards.missing) == (2, 2, ())
    assert (broken.shards.answered, broken.shards.of, broken.shards.missing) == (1, 2, (1,))
    assert broken.answered.tolist() == [True, False]


def test_one_bad_request_does_not_spoil_the_others() -> None:
    refused: list[dict[str, str]] = []

    def once(query: dict[str, str]) -> NodeAnswer | None:
        if len(refused) < 2:  # the joint request, and the first of the two alone
            refused.append(query)
            return NodeAnswer(422, PROBLEM)
        return None

    state = space(5, "a", "a", "a")
    bad, good = run(Nodes(a=once), lookup(state, 2), lookup(state, 4))
    assert isinstance(bad, InvalidRequest)
    assert good.found.tolist() == [True]
    wrong = Query(np.zeros((1, DIM + 1), np.float32), None, 3, None)
    nodes = Nodes()
    bad, good = run(nodes, lambda turns, done: turns.search(state, wrong, "r", done), search(state))
    assert isinstance(bad, DimensionMismatch)
    assert good.scores.tolist() == [[0.0, -1.0, -2.0]]
    assert len(nodes.asked) == 1


def test_all_are_told_when_nodes_do_not_agree() -> None:
    ahead = Nodes(a=lambda query: NodeAnswer(412, str(int(query["sequence"]) + 1).encode()))
    state = space()
    outcomes = run(ahead, lookup(state, 2), lookup(state, 4))
    assert all(isinstance(outcome, ShardsUnanswered) for outcome in outcomes)
