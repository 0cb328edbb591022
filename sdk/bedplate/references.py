"""References as people write them: ``core@7``, ``core@production``, ``core@7/item``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bedplate.errors import InvalidRequest

NAME_PATTERN = r"^[a-z][a-z0-9_-]{0,62}$"
_NAME = re.compile(NAME_PATTERN)
_NUMBER = re.compile(r"[0-9]+")  # not str.isdigit(), to which "²" is a digit


def check_name(name: str, what: str = "name") -> str:
    """Return ``name`` if it is a legal name of a foundation, alias, surface, team, expert or space.

    Raises:
        InvalidRequest: it is not a lower-case word of letters, digits, ``-`` and ``_`` (63 at most).
    """
    if not _NAME.match(name):
        raise InvalidRequest(
            f"{what} {name!r} is not allowed: use 1 to 63 lower-case letters, digits, '-' and '_', "
            "beginning with a letter."
        )
    return name


@dataclass(frozen=True, slots=True)
class VersionReference:
    """``foundation@selector``: the selector is a version number or an alias."""

    foundation: str
    selector: str

    @classmethod
    def parse(cls, text: str) -> VersionReference:
        """Parse ``core@7`` or ``core@production``.

        Raises:
            InvalidRequest: the text is not ``foundation@version`` or ``foundation@alias``.
        """
        foundation, at, selector = text.partition("@")
        if not at or not selector:
            raise InvalidRequest(
                f"{text!r} is not a version reference: write it as core@7 or core@production."
            )
        check_name(foundation, "foundation")
        if not _NUMBER.fullmatch(selector):
            check_name(selector, "alias")
        return cls(foundation, selector)

    @property
    def number(self) -> int | None:
        """The version number, or None where the selector is an alias."""
        return int(self.selector) if _NUMBER.fullmatch(self.selector) else None

    def __str__(self) -> str:
        return f"{self.foundation}@{self.selector}"


@dataclass(frozen=True, slots=True)
class SpaceReference:
    """``foundation@selector/space``, e.g. ``core@7/item``."""

    version: VersionReference
    space: str

    @classmethod
    def parse(cls, text: str) -> SpaceReference:
        """Parse ``core@7/item`` or ``core@production/item``.

        Raises:
            InvalidRequest: the text is not of that form.
        """
        version, slash, space = text.partition("/")
        if not slash:
            raise InvalidRequest(f"{text!r} is not a space reference: write it as core@7/item.")
        return cls(VersionReference.parse(version), check_name(space, "space"))

    def __str__(self) -> str:
        return f"{self.version}/{self.space}"
