"""What the platform keeps metadata, objects and messages in: files of its data directory, or servers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from sqlalchemy.exc import OperationalError

from bedplate.errors import InvalidRequest, Unavailable
from bedplate_services.supervisor.data_directory import DataDirectory
from bedplate_store.objects import S3ObjectStore, open_object_store

_SETTINGS = {
    "registry_database": "BEDPLATE_REGISTRY_DATABASE_URL",
    "store_database": "BEDPLATE_STORE_DATABASE_URL",
    "objects": "BEDPLATE_OBJECTS_URL",
    "broker": "BEDPLATE_BROKER_URL",
}


def engine_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """The settings among ``environment`` that name engines."""
    return {name: environment[name] for name in _SETTINGS.values() if environment.get(name)}


@dataclass(frozen=True)
class Engines:
    """URLs of the four engines, and which of them (``registry_database``, ``broker`` ...) settings chose."""

    registry_database: str
    store_database: str
    objects: str
    broker: str
    chosen: frozenset[str]

    @classmethod
    def of(cls, directory: DataDirectory, environment: Mapping[str, str]) -> Engines:
        """Those that ``environment`` names, and the embedded ones of ``directory`` for the others.

        Raises:
            InvalidRequest: the objects would lie in the memory of each process.
        """
        given = engine_settings(environment)
        if given.get(_SETTINGS["objects"], "").startswith("memory:"):
            raise InvalidRequest(
                "BEDPLATE_OBJECTS_URL is memory://, which no process shares with another: name a folder "
                "(file:///dir) or a bucket (s3://bucket?endpoint=http://host:port), or leave it out."
            )
        embedded = {
            "registry_database": directory.registry_database_url,
            "store_database": directory.store_database_url,
            "objects": directory.objects_url,
            "broker": directory.broker_url,
        }
        return cls(
            **{name: given.get(setting, embedded[name]) for name, setting in _SETTINGS.items()},
            chosen=frozenset(name for name, setting in _SETTINGS.items() if setting in given),
        )

    def shown(self) -> dict[str, str]:
        """The chosen ones by name, as people may see them: no password."""
        return {name: without_password(getattr(self, name)) for name in _SETTINGS if name in self.chosen}

    def ensure_bucket(self, environment: Mapping[str, str]) -> None:
        """Make the bucket where it is missing; ``environment`` has its keys. Nothing for a folder.

        Raises:
            Unavailable: the server is away, or refuses.
        """
        objects = open_object_store(
            self.objects,
            access_key=environment.get("BEDPLATE_S3_ACCESS_KEY"),
            secret_key=environment.get("BEDPLATE_S3_SECRET_KEY"),
            region=environment.get("BEDPLATE_S3_REGION"),
        )
        if isinstance(objects, S3ObjectStore):
            objects.ensure_bucket()


@contextmanager
def reachable(name: str, url: str) -> Iterator[None]:
    """Raises Unavailable, which names the setting, where the block cannot connect to the database ``url``."""
    try:
        yield
    except OperationalError as error:
        raise Unavailable(
            f"{_SETTINGS[name]} names {without_password(url)}, which cannot be used: {error.orig}. "
            "Start it, make the database, or mend the setting."
        ) from error


def without_password(url: str) -> str:
    """The URL with ``***`` in the place of its password."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    user, _, place = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}:***@{place}"))
