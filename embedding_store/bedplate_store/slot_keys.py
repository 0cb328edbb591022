"""Keys in the order in which they were written, appended to a buffer that successive overlays share.

Shapes: s slots, n slots asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bedplate.wire.registry import KeyType
from bedplate_store.growing import ScalarT, with_room
from bedplate_store.keys import Keys, StringKeys, concatenate, take


@dataclass(frozen=True, slots=True)
class SlotKeys:
    """``keys`` [s], one for each slot; never changed, only extended."""

    key_type: KeyType
    keys: Keys

    @classmethod
    def empty(cls, key_type: KeyType) -> SlotKeys:
        return cls(key_type, concatenate([], key_type))

    def take(self, slots: NDArray[np.int64]) -> Keys:
        """The keys of ``slots`` [n]."""
        return take(self.keys, slots)

    def extended(self, parts: Sequence[Keys]) -> SlotKeys:
        """With the keys of ``parts`` behind; only the newest of a buffer may be extended."""
        added = concatenate(parts, self.key_type)
        if isinstance(self.keys, StringKeys):
            assert isinstance(added, StringKeys)  # a space has keys of one type
            heap = _appended(self.keys.heap, added.heap)
            offsets = _appended(self.keys.offsets, added.offsets[1:] + len(self.keys.heap))
            return SlotKeys(self.key_type, StringKeys(heap, offsets))
        assert not isinstance(added, StringKeys)
        return SlotKeys(self.key_type, _appended(self.keys, added))


def _appended(array: NDArray[ScalarT], more: NDArray[ScalarT]) -> NDArray[ScalarT]:
    grown = with_room(array, len(array) + len(more))
    grown[len(array) :] = more
    return grown
