"""What a writer shows to read its own write: the space it wrote to and the write's sequence."""

from __future__ import annotations

from dataclasses import dataclass

from bedplate.errors import InvalidRequest
from bedplate_store.spaces import SpaceKey

_SEQUENCE_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class WriteToken:
    """Its text, ``core@7/item:12``, is opaque to clients: they hand back what they were given."""

    space: SpaceKey
    sequence: int

    @classmethod
    def parse(cls, text: str) -> WriteToken:
        """Read a token.

        Raises:
            InvalidRequest: no write was ever answered with such a token.
        """
        reference, _, digits = text.rpartition(":")
        number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 19 else 0
        if not reference or not 1 <= number <= _SEQUENCE_MAX:
            raise InvalidRequest(
                f"{text[:200]!r} is no token of a write: send the member 'token' of a write's answer."
            )
        return cls(SpaceKey.parse(reference), number)

    def __str__(self) -> str:
        return f"{self.space}:{self.sequence}"
