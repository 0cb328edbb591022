"""Spaces as torch data: the only module of the SDK that imports torch, imported when somebody asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch.utils.data import IterableDataset, get_worker_info

from bedplate.codecs import Keys

if TYPE_CHECKING:
    from bedplate.space_data import SpaceData


def tensor(data: SpaceData) -> torch.Tensor:
    """The vectors [N, D] of a space over the same memory where they are one mapped file."""
    return torch.from_numpy(data.vectors)


class SpaceDataset(IterableDataset[tuple[Keys | None, torch.Tensor]]):
    """Batches (keys, vectors [n, D]) of a space, every row once over all workers of all ranks.

    Use it with ``DataLoader(dataset, batch_size=None, num_workers=...)``: batches are made here. For worker
    processes that are not forked the space must lie in a directory (``client.spaces.download``).

    Args:
        rank, world_size: of this training process.
    """

    def __init__(self, data: SpaceData, batch_rows: int, *, rank: int, world_size: int) -> None:
        self._data = data
        self._batch_rows = batch_rows
        self._rank = rank
        self._world_size = world_size
        data.order.shard(rank, world_size)  # raises at once for a rank that does not exist

    def __iter__(self) -> Iterator[tuple[Keys | None, torch.Tensor]]:
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        shard = (self._rank * workers + number, self._world_size * workers)
        for batch in self._data.batches(self._batch_rows, shard=shard):
            yield batch.keys, torch.from_numpy(batch.vectors)
