"""Answers that see a certain write: a lookup or search may carry the token of one.

Without it a write is seen when the answering process has refreshed: within a second, if the machine lets
readers run. With it the process looks for the write before it answers.
"""

from __future__ import annotations

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.types import Scope

from bedplate.codecs import HEADER_AFTER, JSON
from bedplate.errors import InvalidRequest, WriteTokenMismatch
from bedplate_services.directory import Located, SpaceDirectory
from bedplate_services.edge import header
from bedplate_store.shard_routing import RemoteSpace
from bedplate_store.spaces import SpaceKey
from bedplate_store.write_tokens import WriteToken

_HEADER = HEADER_AFTER.encode()


def token_of(scope: Scope, media: str, body: bytes) -> str | None:
    """The token that a request carries in its header, or in its JSON document as ``after``; None: neither."""
    text = header(scope, _HEADER).decode("latin-1")
    if text:
        return text
    if media != JSON or b'"after"' not in body:
        return None
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None  # whoever reads the document says what is wrong with it
    after = document.get("after") if isinstance(document, dict) else None
    if after is not None and not isinstance(after, str):
        raise InvalidRequest("after is no token of a write: send the member 'token' of a write's answer.")
    return after


async def caught_up(directory: SpaceDirectory, located: Located, reference: str, token: str) -> Located:
    """``located``, or a newer reader of the same space, that sees the write of ``token``.

    Raises:
        InvalidRequest: it is no token.
        WriteTokenMismatch: the reference means another space than the one written to, or there was no such
            write.
    """
    after = WriteToken.parse(token)
    space, version = located.reader.space, located.version
    if space != after.space:
        # An alias may have moved since the directory looked; the write may have gone where it points now.
        foundation, number = await run_in_threadpool(directory.resolve, reference)
        space, version = SpaceKey(foundation, number, located.space), f"{foundation}@{number}"
    if space != after.space:
        raise WriteTokenMismatch(
            f"the token is of a write to {after.space}, and {reference}/{located.space} is {space}: "
            f"ask {after.space}, or send no token.",
            written=str(after.space),
            asked=str(space),
        )
    if located.reader.space == space and located.reader.sequence >= after.sequence:
        return located
    # Sees all that was committed, and a token is given out after that: there is nothing to wait for.
    reader = await run_in_threadpool(directory.newest, after.space)
    if reader.sequence < after.sequence:
        raise WriteTokenMismatch(
            f"{after.space} has had {reader.sequence} writes, and the token is of write {after.sequence}: "
            "send the token that a write of this platform was answered with, or none.",
            written=str(after.space),
            sequence=reader.sequence,
        )
    newer = Located(version, located.space, reader, located.opened_at)
    if isinstance(reader, RemoteSpace):
        directory.adopt(reference, newer)
    return newer
