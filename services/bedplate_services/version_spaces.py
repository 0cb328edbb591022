"""The spaces of a version in the store: made when the version is finalised.

Registry and store are two databases. A crash between the two commits leaves a version without its
spaces, so whoever needs a space that is not there makes it (again): making it is idempotent.
"""

from __future__ import annotations

from bedplate.errors import NotFound, VersionNotReady
from bedplate.references import VersionReference
from bedplate.wire.registry import SpaceSignature, Version
from bedplate.wire.store import Space
from bedplate_registry import foundations, versions
from bedplate_services.composition import Platform
from bedplate_store import spaces
from bedplate_store.database import WriteSession


def ensure_spaces(house: Platform, version: Version) -> None:
    """Make every space of a finalised version."""
    with house.registry.read() as session:
        team = foundations.owner(session, version.foundation)

    def ensure(session: WriteSession) -> None:
        for name in sorted(version.signature.spaces):
            spaces.ensure_space(
                session,
                foundation=version.foundation,
                version=version.version,
                space=name,
                signature=signature_of(version, name),
                team=team,
                now=house.now(),
            )

    house.store.transact(ensure)


def resolve(house: Platform, reference: str) -> Version:
    """The version that ``core@7`` or ``core@production`` means.

    Raises:
        InvalidRequest: it is no reference.
        NotFound: no such foundation, version or alias.
    """
    with house.registry.read() as session:
        return versions.resolve(session, VersionReference.parse(reference))


def space_of(house: Platform, version: Version, space: str) -> Space:
    """The store's document of a version's space.

    Raises:
        NotFound: the version has no such space.
        VersionNotReady: the version is a draft.
    """
    signature_of(version, space)
    if version.state == "draft":
        raise VersionNotReady(f"{version.reference} is a draft; finalise it first.", state=version.state)
    try:
        with house.store.read() as session:
            return spaces.get_space(session, version.foundation, version.version, space)
    except NotFound:
        ensure_spaces(house, version)
    with house.store.read() as session:
        return spaces.get_space(session, version.foundation, version.version, space)


def signature_of(version: Version, space: str) -> SpaceSignature:
    """What the version says of a space; spaces called "item" and "user" hold what they are called.

    Raises:
        NotFound: it has no such space; the detail lists those it has.
    """
    signature = version.signature.spaces.get(space)
    if signature is None:
        known = ", ".join(sorted(version.signature.spaces)) or "none"
        raise NotFound(f"{version.reference} has no space {space!r}; it has: {known}.")
    if signature.entity is None and space in ("item", "user"):
        # A checkpoint's signature knows dimensions, not catalogues; see bedplate_modeling.checkpoints.
        return SpaceSignature.model_validate({**signature.model_dump(), "entity": space})
    return signature
