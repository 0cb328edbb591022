"""Tokens are remembered for a moment and no longer; signed URLs hold what they say."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy.exc import OperationalError

from bedplate.errors import Forbidden, Unauthenticated
from bedplate_registry.principals import Principal
from bedplate_services.auth import Authenticator, bearer
from bedplate_services.signing import UrlSigner

NOW = datetime(2026, 3, 1, tzinfo=UTC)


class Registry:
    """Knows the secret "good" until it is revoked; counts the questions."""

    def __init__(self) -> None:
        self.asked = 0
        self.revoked = False

    def __call__(self, secret: str) -> Principal:
        self.asked += 1
        if secret != "good" or self.revoked:
            raise Unauthenticated("No.")
        return Principal("feed-team", "member", 1)


def test_a_revoked_token_stops_within_its_time() -> None:
    registry, time = Registry(), [0.0]
    authenticator = Authenticator(registry, ttl_seconds=2.0, clock=lambda: time[0])
    assert authenticator.remembered("good") is None
    principal = authenticator.ask("good")
    registry.revoked = True
    time[0] = 1.9
    assert authenticator.remembered("good") == principal
    assert registry.asked == 1
    time[0] = 2.0
    assert authenticator.remembered("good") is None
    with pytest.raises(Unauthenticated):
        authenticator.ask("good")


def test_forget() -> None:
    registry = Registry()
    authenticator = Authenticator(registry, ttl_seconds=2.0, clock=lambda: 0.0)
    authenticator.ask("good")
    authenticator.forget()
    assert authenticator.remembered("good") is None


def test_bad_secrets_are_not_remembered() -> None:
    registry = Registry()
    authenticator = Authenticator(registry, ttl_seconds=2.0, clock=lambda: 0.0)
    for _ in range(2):
        with pytest.raises(Unauthenticated):
            authenticator.ask("bad")
    assert registry.asked == 2
    assert "good" not in repr(authenticator.__dict__)


@pytest.mark.parametrize("value", [b"", b"Bearer", b"Bearer ", b"Token abc", b"abc"])
def test_headers_that_are_no_token(value: bytes) -> None:
    with pytest.raises(Unauthenticated):
        bearer({"headers": [(b"authorization", value)]})


def test_the_scheme_has_no_case() -> None:
    assert bearer({"headers": [(b"authorization", b"bEaReR  abc ")]}) == "abc"


def _parts(url: str) -> tuple[int, str]:
    query = dict(pair.split("=") for pair in url.partition("?")[2].split("&"))
    return int(query["expires"]), query["signature"]


def test_signed_urls() -> None:
    signer = UrlSigner("http://here", "key")
    until = int(NOW.timestamp()) + 10
    url = signer.url("a/b c", expires=until)
    assert url.startswith("http://here/v1/objects/a/b%20c?")
    expires, signature = _parts(url)
    signer.check("a/b c", expires=expires, signature=signature, now=NOW)
    for key, when, signed in (
        ("a/b d", expires, signature),
        ("a/b c", expires + 1, signature),
        ("a/b c", expires, signature[:-1]),
        ("a/b c", expires, "ä"),
    ):
        with pytest.raises(Forbidden):
            signer.check(key, expires=when, signature=signed, now=NOW)
    late = datetime.fromtimestamp(until, UTC)
    with pytest.raises(Forbidden):
        signer.check("a/b c", expires=expires, signature=signature, now=late)
    with pytest.raises(Forbidden):
        UrlSigner("http://here", None).check("a/b c", expires=expires, signature=signature, now=NOW)


def test_while_the_database_is_away_known_tokens_hold_for_a_while_and_unknown_ones_do_not() -> None:
    registry, time, away = Registry(), [0.0], [False]

    def ask(secret: str) -> Principal:
        if away[0]:
            raise OperationalError("SELECT", {}, ConnectionError("refused"))
        return registry(secret)

    authenticator = Authenticator(ask, ttl_seconds=2.0, outage_seconds=60.0, clock=lambda: time[0])
    principal = authenticator.ask("good")
    away[0] = True
    time[0] = 59.0
    assert authenticator.remembered("good") is None
    assert authenticator.ask("good") == principal
    time[0] = 60.9
    assert authenticator.remembered("good") == principal, "not asked again for every request"
    time[0] = 61.0
    with pytest.raises(OperationalError):
        authenticator.ask("good")
    with pytest.raises(OperationalError):
        authenticator.ask("never seen")
    away[0], registry.revoked = False, True
    with pytest.raises(Unauthenticated):
        authenticator.ask("good")
    away[0], time[0] = True, 62.0
    with pytest.raises(OperationalError):
        authenticator.ask("good")
