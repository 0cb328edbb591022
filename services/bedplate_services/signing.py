"""Signed URLs for objects of a store that cannot sign its own (a local directory)."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import datetime
from urllib.parse import quote, urlencode

from bedplate.errors import Forbidden


class UrlSigner:
    """Makes and checks ``/v1/objects/{key}?expires=&signature=``; whoever holds the URL may read the object.

    Args:
        key: the secret; None makes one, and its URLs die with this process.
    """

    def __init__(self, base_url: str, key: str | None) -> None:
        self._base_url = base_url
        self._key = key.encode() if key else secrets.token_bytes(32)

    def url(self, object_key: str, *, expires: int) -> str:
        """``expires`` is in seconds since 1970."""
        query = urlencode({"expires": expires, "signature": self._signature(object_key, expires)})
        return f"{self._base_url}/v1/objects/{quote(object_key)}?{query}"

    def check(self, object_key: str, *, expires: int, signature: str, now: datetime) -> None:
        """Raises Forbidden unless we signed this URL and it has not run out."""
        expected = self._signature(object_key, expires)
        if not hmac.compare_digest(expected.encode(), signature.encode()):
            raise Forbidden("The URL's signature is not valid; ask the API for a new URL.")
        if expires <= now.timestamp():
            raise Forbidden("The URL has run out; ask the API for a new one.")

    def _signature(self, object_key: str, expires: int) -> str:
        return hmac.new(self._key, f"{object_key}\n{expires}".encode(), hashlib.sha256).hexdigest()
