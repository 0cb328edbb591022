"""What the benchmarks share: one platform of real processes, a load generator, a bare server."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rich.console import Console
from safetensors.numpy import save_file

from bedplate import Client
from bedplate.codecs import RAW
from bedplate.wire.registry import Signature, SpaceSignature, TensorSignature
from bedplate.wire.store import IndexSpecification
from bedplate_modeling import checkpoint_layout as layout
from bedplate_services.supervisor.platform import Platform
from bedplate_store import snapshots
from bedplate_store.database import Database
from bedplate_store.objects import ObjectStore, open_object_store
from bedplate_store.readers import SpaceReader, SpaceReaders
from bedplate_store.segments import write_segment
from bedplate_store.snapshots import PreparedSnapshot
from bedplate_store.spaces import SpaceKey
from benchmarks.bare import BareServer
from benchmarks.bare_work import Work, describe
from benchmarks.load import LoadGenerator, Target, wire

TEAM = "benchmarks"
FOUNDATION = "bench"
REFERENCE = f"{FOUNDATION}@1"
LOOKUP_DIM = 256
SEARCH_DIM = 256
SPACES = {
    "float32": SpaceSignature(dim=LOOKUP_DIM, dtype="float32", key_type="int64"),
    "float16": SpaceSignature(dim=LOOKUP_DIM, dtype="float16", key_type="int64"),
    "ivf": SpaceSignature(dim=SEARCH_DIM, dtype="float32", key_type="int64"),
    "hnsw": SpaceSignature(dim=SEARCH_DIM, dtype="float32", key_type="int64"),
    "million": SpaceSignature(dim=SEARCH_DIM, dtype="float32", key_type="int64"),
    "sdk": SpaceSignature(dim=LOOKUP_DIM, dtype="float32", key_type="int64"),
    "written": SpaceSignature(dim=LOOKUP_DIM, dtype="float32", key_type="int64"),
    "bulk": SpaceSignature(dim=LOOKUP_DIM, dtype="float32", key_type="int64"),
}
ROWS = 1_000_000
QUICK_ROWS = 50_000


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        rows: of the lookup's spaces; the other benchmarks take shares of it.
        rounds: how often product and limit are measured in turns.
    """

    rows: int = ROWS
    rounds: int = 7
    quick: bool = False

    @classmethod
    def chosen(cls, rows: int | None, quick: bool) -> Scale:
        """As the command line says; ``rows`` None: 1,000,000, or 50,000 where it is to be quick."""
        if quick:
            return cls(rows or QUICK_ROWS, 3, True)
        return cls(rows or ROWS)

    def of(self, full: int, quick: int) -> int:
        """A count of calls or entities that does not follow ``rows``."""
        return quick if self.quick else full


class Workbench:
    """Starts what a benchmark asks for, once, and removes it all at the end."""

    def __init__(self, scale: Scale, console: Console) -> None:
        self.scale = scale
        self.console = console
        self._described = 0
        self.folder = Path(tempfile.mkdtemp(prefix="bedplate-benchmarks-"))
        self._open = ExitStack()
        self._open.callback(shutil.rmtree, self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False)

    @cached_property
    def platform(self) -> Platform:
        """A started platform; its one foundation ``bench@1`` has the spaces of ``SPACES``."""
        self.say("Starting a platform ...")
        platform = self._open.enter_context(Platform(self.folder / "data", report=self.say))
        with Client(platform.url, platform.token) as client:
            client.teams.create(TEAM)
            client.foundations.create(FOUNDATION, team=TEAM)
            directory = self.folder / "checkpoint"
            write_checkpoint(directory, SPACES)
            client.versions.publish(FOUNDATION, directory)
        return platform

    @cached_property
    def client(self) -> Client:
        """The administrator's, over the platform's API."""
        return self._open.enter_context(Client(self.platform.url, self.platform.token))

    @cached_property
    def database(self) -> Database:
        """The store's database, opened in this process."""
        database = Database(self.platform.directory.store_database_url)
        self._open.callback(database.close)
        return database

    @cached_property
    def objects(self) -> ObjectStore:
        """The platform's objects, opened in this process."""
        return open_object_store(self.platform.directory.objects_url)

    @cached_property
    def load(self) -> LoadGenerator:
        return self._open.enter_context(LoadGenerator())

    @cached_property
    def bare(self) -> BareServer:
        return self._open.enter_context(BareServer())

    @property
    def cache(self) -> Path:
        """Where this process keeps what is not in place."""
        return self.folder / "cache"

    def publish(
        self,
        space: str,
        keys: NDArray[np.int64],
        vectors: NDArray[Any],
        index: IndexSpecification | None,
        attributes: pa.Table | None = None,
    ) -> PreparedSnapshot:
        """Give a space of ``bench@1`` its first snapshot, by the same steps that end an embed job."""
        signature = SPACES[space]
        key = SpaceKey(FOUNDATION, 1, space)
        # The database first: it starts the platform, which makes the space.
        database, objects = self.database, self.objects
        segment = write_segment(
            objects,
            keys=keys,
            vectors=vectors,
            dtype=signature.dtype,
            key_type=signature.key_type,
            attributes=attributes,
        )
        prepared = snapshots.prepare(database, objects, self.cache, key, [segment.digest], index)
        with database.write() as session:
            snapshots.publish(session, prepared, objects=objects, job=None, now=datetime.now(UTC))
        return prepared

    def reader(self, space: str) -> SpaceReader:
        """A reader of a published space of ``bench@1``, in this process."""
        return SpaceReaders(self.database, self.objects, self.cache).get(FOUNDATION, 1, space)

    def api_target(self, path: str, bodies: list[bytes], media: str = RAW) -> Target:
        """POSTs of bodies of a media type to the platform's API, answered in raw bytes."""
        address = urlsplit(self.platform.url)
        wires = [wire(path, body, token=self.platform.token, media=media) for body in bodies]
        return Target(address.hostname or "", address.port or 0, wires)

    def bare_target(self, answer_bytes: int, bodies: list[bytes]) -> Target:
        """The same bodies to the bare server, answered by as many bytes as the platform answers."""
        return Target(self.bare.host, self.bare.port, [wire(f"/{answer_bytes}", body) for body in bodies])

    def work_target(self, work: Work, bodies: list[bytes]) -> Target:
        """Bodies to the bare server, answered by the bare work."""
        self._described += 1
        path = describe(work, self.folder / f"work-{self._described}.json")
        return Target(self.bare.host, self.bare.port, [wire(quote(path), body) for body in bodies])


def write_checkpoint(directory: Path, spaces: Mapping[str, SpaceSignature], number: int = 0) -> None:
    """A checkpoint without a model, never loaded: the registry needs one to know the spaces."""
    directory.mkdir()
    save_file({"nothing": np.full(1, number, np.float32)}, directory / layout.WEIGHTS)
    (directory / layout.CONFIG).write_text(json.dumps({"architecture": layout.FOUNDATION}))
    signature = Signature(
        architecture=layout.FOUNDATION,
        spaces=dict(spaces),
        tensors={"nothing": TensorSignature(dtype="F32", shape=[1])},
    )
    (directory / layout.SIGNATURE).write_text(signature.model_dump_json())
