"""Teams, tokens, surfaces, foundations, aliases, evaluations."""

from __future__ import annotations

from bedplate.client.answers import build
from bedplate.client.effects import Request, Steps
from bedplate.client.requests import Listing, get, get_list, parameters, path, send
from bedplate.client.steps import Namespace, RunnerT, exchange, operation
from bedplate.wire.registry import (
    Alias,
    AliasChange,
    AliasMove,
    Evaluation,
    EvaluationCreate,
    Foundation,
    FoundationCreate,
    Role,
    Surface,
    SurfaceCreate,
    Team,
    TeamCreate,
    Token,
    TokenCreate,
    TokenIssued,
    TransferRatio,
)


class Teams(Namespace[RunnerT]):
    """Who owns surfaces, foundations and experts."""

    @operation
    def create(self, name: str, description: str = "") -> Steps[Team]:
        """Create a team (admin). Raises AlreadyExists, Forbidden."""
        return send("POST", path("teams"), build(TeamCreate, name=name, description=description), Team)

    @operation
    def get(self, name: str) -> Steps[Team]:
        """Raises NotFound."""
        return get(path("teams", name), Team)

    @operation
    def list(self) -> Steps[Listing[Team]]:
        """Every team, by name."""
        return get_list(path("teams"), Team)


class Tokens(Namespace[RunnerT]):
    """Secrets that speak for a team."""

    @operation
    def issue(self, team: str, description: str = "", role: Role = "member") -> Steps[TokenIssued]:
        """Make a token. Its ``secret`` is in this answer and nowhere else; keep it now."""
        body = build(TokenCreate, description=description, role=role)
        return send("POST", path("teams", team, "tokens"), body, TokenIssued)

    @operation
    def list(self, team: str) -> Steps[Listing[Token]]:
        """The team's tokens without their secrets, revoked ones too."""
        return get_list(path("teams", team, "tokens"), Token)

    @operation
    def revoke(self, team: str, token_id: int) -> Steps[None]:
        """From now on the token is refused. Raises NotFound."""
        yield from exchange(Request("DELETE", path("teams", team, "tokens", token_id), idempotent=True))


class Surfaces(Namespace[RunnerT]):
    """Where recommendations are shown."""

    @operation
    def create(self, name: str, team: str, description: str = "") -> Steps[Surface]:
        """Create a surface that ``team`` owns. Raises AlreadyExists, Forbidden, NotFound (the team)."""
        body = build(SurfaceCreate, name=name, team=team, description=description)
        return send("POST", path("surfaces"), body, Surface)

    @operation
    def get(self, name: str) -> Steps[Surface]:
        """Raises NotFound."""
        return get(path("surfaces", name), Surface)

    @operation
    def list(self) -> Steps[Listing[Surface]]:
        """Every surface, by name."""
        return get_list(path("surfaces"), Surface)


class Foundations(Namespace[RunnerT]):
    """Families of foundation models."""

    @operation
    def create(self, name: str, team: str, description: str = "") -> Steps[Foundation]:
        """Create a foundation that ``team`` owns. Raises AlreadyExists, Forbidden, NotFound (the team)."""
        body = build(FoundationCreate, name=name, team=team, description=description)
        return send("POST", path("foundations"), body, Foundation)

    @operation
    def get(self, name: str) -> Steps[Foundation]:
        """Raises NotFound."""
        return get(path("foundations", name), Foundation)

    @operation
    def list(self) -> Steps[Listing[Foundation]]:
        """Every foundation, by name."""
        return get_list(path("foundations"), Foundation)


class Aliases(Namespace[RunnerT]):
    """Movable names of versions, e.g. ``core@production``."""

    @operation
    def move(
        self,
        foundation: str,
        alias: str,
        version: int,
        expected: int | None = None,
        reason: str = "",
        *,
        wait_for_readers_seconds: float = 10.0,
        force: bool = False,
    ) -> Steps[Alias]:
        """Point ``alias`` at ``version`` if it still points at ``expected`` (None: it is not set yet).

        Every process that serves the alias's spaces opens those of ``version`` before it moves, so that no
        request waits for it. Never retried: after a lost answer the second attempt would find its own move.

        Args:
            wait_for_readers_seconds: how long to wait for these processes, at most 30.
            force: move although they are not ready; their first requests will wait.

        Raises:
            AliasMoved: somebody else moved it meanwhile; ``error.context`` says where it points.
            ReadersNotReady: ``error.context["readers"]`` says which processes lack what. They go on opening
                it for a minute: try again.
            VersionNotReady: the version is not finalised, or retired.
        """
        body = build(
            AliasMove,
            version=version,
            expected_version=expected,
            reason=reason,
            wait_for_readers_seconds=wait_for_readers_seconds,
            force=force,
        )
        return send("PUT", path("foundations", foundation, "aliases", alias), body, Alias)

    @operation
    def get(self, foundation: str, alias: str) -> Steps[Alias]:
        """Raises NotFound."""
        return get(path("foundations", foundation, "aliases", alias), Alias)

    @operation
    def list(self, foundation: str) -> Steps[Listing[Alias]]:
        """The foundation's aliases, by name."""
        return get_list(path("foundations", foundation, "aliases"), Alias)

    @operation
    def history(self, foundation: str, alias: str) -> Steps[Listing[AliasChange]]:
        """Every move of the alias."""
        return get_list(path("foundations", foundation, "aliases", alias, "history"), AliasChange)


class Evaluations(Namespace[RunnerT]):
    """What models were measured to be worth."""

    @operation
    def record(self, evaluation: EvaluationCreate) -> Steps[Evaluation]:
        """Record the metrics of ``core@2`` or ``action-ranker@3`` on a window of a surface's timeline.

        ``reads`` of it names the spaces that the model read and how they were stored; with evaluations on two
        storages, ``client.spaces.storage_costs`` tells what the coarser one costs in NE.
        """
        return send("POST", path("evaluations"), evaluation, Evaluation)

    @operation
    def list(
        self, *, subject: str | None = None, surface: str | None = None, task: str | None = None
    ) -> Steps[Listing[Evaluation]]:
        """Evaluations, of one subject, surface or task if given."""
        return get_list(
            path("evaluations"), Evaluation, parameters(subject=subject, surface=surface, task=task)
        )


def transfer_ratio(surface: str, from_version: str, to_version: str, task: str) -> Steps[list[TransferRatio]]:
    """One transfer ratio for each expert that was evaluated on both foundation versions."""
    params = parameters(surface=surface, from_=from_version, to=to_version, task=task)
    return get_list(path("transfer-ratio"), TransferRatio, params)
