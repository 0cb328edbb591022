"""What a request head asks of the fast lane."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast
from urllib.parse import parse_qsl

import httptools

from bedplate.codecs import RAW, MediaType, content_type, negotiate
from bedplate.errors import BedplateError
from bedplate_services.auth import digest
from bedplate_services.edge import REQUEST_ID
from bedplate_services.hot_path import PATH
from bedplate_services.searches import Parameters, read_parameters

Verb = Literal["lookup", "search"]
_PARAMETERS: Mapping[Verb, frozenset[str]] = {
    "lookup": frozenset(),
    "search": frozenset({"k", "ef", "recall", "filter", "dim", "by"}),
}
_IGNORED = frozenset({b"host", b"user-agent", b"accept-encoding"})
_UNSUITED = frozenset({b"transfer-encoding", b"expect", b"upgrade"})
_OF_ONE_REQUEST = frozenset({b"x-request-id", b"traceparent", b"tracestate", b"b3", b"x-b3-traceid"})
_OURS = b"x-bedplate-"


@dataclass(frozen=True, slots=True)
class Ask:
    """A POST of a raw body that is to be answered in raw bytes.

    Attributes:
        token: digest of the bearer token, as the Authenticator remembers it.
        body_bytes: length of the body, at least 1.
        parameters: of a search.
        request_id: the caller's own, if it sent one that is used.
        once: no other request has this head, because it names this one or its trace.
    """

    verb: Verb
    reference: str
    space: str
    token: bytes
    body_bytes: int
    accept: MediaType
    parameters: Parameters
    request_id: bytes | None
    once: bool


@dataclass(slots=True)
class Head:
    """httptools' callbacks; the parser is the one that uvicorn uses, so both read the same.

    Attributes:
        headers: by lower-case name, without those that change nothing.
    """

    url: bytes = b""
    headers: dict[bytes, bytes] = field(default_factory=dict)
    suited: bool = True
    complete: bool = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in self.headers or name in _UNSUITED or name.startswith(_OURS):
            self.suited = False
        if name not in _IGNORED:
            self.headers[name] = value

    def on_headers_complete(self) -> None:
        self.complete = True

    def on_body(self, _body: bytes) -> None:
        self.suited = False  # the head ended earlier than we thought


def read_head(head: bytes) -> Ask | None:
    """What ``head``, with the empty line that ends it, asks of the lane; None: the ordinary path takes it."""
    parsed = parse_head(head)
    return None if parsed is None else _ask(parsed)


def parse_head(head: bytes) -> Head | None:
    """``head`` if it is that of a POST that a lane may answer: whole, plain, on a connection that stays."""
    parsed = Head()
    parser = httptools.HttpRequestParser(parsed)
    try:
        parser.feed_data(head)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    usual = parser.get_method() == b"POST" and parser.get_http_version() == "1.1"
    if not (parsed.complete and parsed.suited and usual and parser.should_keep_alive()):
        return None
    return parsed


def _ask(head: Head) -> Ask | None:
    path, _, query = head.url.decode("latin-1").partition("?")
    match = PATH.match(path) if "%" not in path and path.isascii() else None
    scheme, _, secret = head.headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    length = head.headers.get(b"content-length", b"0")
    identity = head.headers.get(b"content-encoding", b"identity") == b"identity"
    if match is None or scheme.lower() != "bearer" or not secret.strip() or int(length) == 0 or not identity:
        return None
    try:
        media = content_type(head.headers.get(b"content-type", b"").decode("latin-1"))
        accept = negotiate(head.headers.get(b"accept", b"").decode("latin-1"))
        query_string = dict(parse_qsl(query))
        parameters = read_parameters(query_string)
    except BedplateError:
        return None  # the ordinary path meets the same error, and answers it
    verb = cast(Verb, match.group(3))
    if media != RAW or accept.name != RAW or not query_string.keys() <= _PARAMETERS[verb] or "#" in query:
        return None
    given = head.headers.get(b"x-request-id", b"")
    return Ask(
        verb=verb,
        reference=match.group(1),
        space=match.group(2),
        token=digest(secret.strip()),
        body_bytes=int(length),
        accept=accept,
        parameters=parameters,
        request_id=given if REQUEST_ID.match(given) else None,
        once=not _OF_ONE_REQUEST.isdisjoint(head.headers),
    )
