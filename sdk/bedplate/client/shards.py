"""Which store node serves which shard."""

from __future__ import annotations

from collections.abc import Sequence

from bedplate.client.answers import build, read_list
from bedplate.client.effects import Steps
from bedplate.client.requests import Listing, get_list, json_request, parameters, path
from bedplate.client.steps import Namespace, RunnerT, exchange, operation
from bedplate.wire.shards import ALL_SPACES, ShardAssign, ShardAssignment, ShardMove


class Shards(Namespace[RunnerT]):
    """The assignments of shards to store nodes."""

    @operation
    def list(self) -> Steps[Listing[ShardAssignment]]:
        """Every assignment, by space and shard."""
        return get_list(path("shards"), ShardAssignment)

    @operation
    def moves(self, limit: int = 100) -> Steps[Listing[ShardMove]]:
        """The last moves, newest first."""
        return get_list(path("shards", "moves"), ShardMove, parameters(limit=limit))

    @operation
    def assign(
        self,
        shards: Sequence[int],
        node: str | None,
        expected: str | None = None,
        *,
        space: str = ALL_SPACES,
    ) -> Steps[Listing[ShardAssignment]]:
        """Give shards to a node (None: to nobody) if all of them are ``expected``'s (None: nobody's); else
        none moves. The old node answers until the new one has them open. For admins.

        Args:
            space: ``core@7/item``, or ``*`` for every space that has no assignment of its own.

        Raises:
            ShardMoved: one is assigned otherwise; ``error.context`` says to whom.
            NotFound, Forbidden.
        """
        body = build(ShardAssign, space=space, shards=list(shards), node=node, expected_node=expected)
        return _assigned(body)


def _assigned(body: ShardAssign) -> Steps[Listing[ShardAssignment]]:
    # Never retried: after a lost answer the second attempt would find its own move.
    response = yield from exchange(json_request("POST", path("shards", "assign"), body))
    assigned, _ = read_list(ShardAssignment, response)
    return assigned
