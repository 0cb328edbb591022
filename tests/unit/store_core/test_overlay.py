"""The overlay of writes: like a dictionary at every age, and a new write costs what it holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedplate.wire.registry import Dtype, KeyType
from bedplate_store import growing
from bedplate_store.keys import build_column, parse_keys, sort_last_wins, take, to_python
from bedplate_store.overlay import DELETED, UNWRITTEN, Overlay
from bedplate_store.segments import Segment, SegmentInfo

DIM = 2
KEYS = st.integers(0, 15)
WRITES = st.lists(
    st.tuples(st.sampled_from(["upsert", "delete"]), st.sets(KEYS, min_size=1, max_size=8)), max_size=12
)


def segment(key_type: KeyType, dtype: Dtype, keys: Any, value: float = 0, deleted: Any = ()) -> Segment:
    """The keys with vectors that hold ``value``, and tombstones."""

    def column(keys: Any) -> Any:
        name = str if key_type == "string" else int
        parsed = parse_keys([name(key) for key in keys], key_type)
        return build_column(take(parsed, sort_last_wins(parsed)))

    info = SegmentInfo("", len(keys), len(deleted), 0, key_type, DIM, dtype)
    vectors = np.full((len(keys), DIM), value, dtype)
    return Segment(info, column(keys), vectors, column(deleted).keys, None)


@given(
    writes=WRITES,
    key_type=st.sampled_from(["int64", "string"]),
    dtype=st.sampled_from(["float16", "float32"]),
    batch=st.integers(1, 4),
    based=st.booleans(),
)
@settings(deadline=None)
def test_an_overlay_of_any_age_is_a_dictionary(
    writes: Any, key_type: Any, dtype: Any, batch: int, based: bool
) -> None:
    base = segment(key_type, dtype, range(0, 16, 2)) if based else None
    overlay = Overlay.empty(key_type, DIM, dtype, base)
    model: dict[int, float | None] = {}
    ages = [(overlay, dict(model))]
    for start in range(0, len(writes), batch):
        segments = []
        for number, (action, keys) in enumerate(writes[start : start + batch], start=start + 1):
            model.update(dict.fromkeys(keys, float(number) if action == "upsert" else None))
            kept, gone = (keys, ()) if action == "upsert" else ((), keys)
            segments.append(segment(key_type, dtype, kept, number, gone))
        overlay = overlay.extended(segments)
        ages.append((overlay, dict(model)))
    for overlay, model in ages:
        _check(overlay, model, key_type)


def _check(overlay: Overlay, model: dict[int, float | None], key_type: KeyType) -> None:
    name: Any = str if key_type == "string" else int
    slots = overlay.find(parse_keys([name(key) for key in range(16)], key_type))
    for key, slot in enumerate(slots.tolist()):
        if key not in model:
            assert slot == UNWRITTEN
        elif model[key] is None:
            assert slot == DELETED
        else:
            assert overlay.vectors[slot].tolist() == [model[key]] * DIM
    living = np.flatnonzero(overlay.living)
    assert sorted(living.tolist()) == sorted(slots[slots >= 0].tolist())
    found = dict(zip(to_python(overlay.keys_at(living)), overlay.vectors[living, 0].tolist(), strict=True))
    assert found == {name(key): value for key, value in model.items() if value is not None}
    assert to_python(overlay.keys) == sorted(map(name, model))
    assert overlay.slots.tolist() == overlay.find(overlay.keys).tolist()
    assert (len(overlay) == 0) == (not model)
    if overlay.base is not None:
        replaced = [name(key) in set(map(name, model)) for key in range(0, 16, 2)]
        in_order = dict(zip(map(name, range(0, 16, 2)), replaced, strict=True))
        expected = [not in_order[key] for key in to_python(overlay.base.keys)]
        assert (overlay.base_living is None) == all(expected)
        if overlay.base_living is not None:
            assert overlay.base_living.tolist() == expected


def test_runs_are_few_and_what_was_written_stays_where_it_is() -> None:
    overlay = Overlay.empty("int64", DIM, "float32")
    touched = 0
    for number in range(512):
        before = overlay
        overlay = overlay.extended([segment("int64", "float32", [number], number)])
        kept = {id(run) for run in before.runs}
        touched += sum(len(run.column) for run in overlay.runs if id(run) not in kept)
    assert len(overlay.runs) <= 9
    assert touched <= 512 * 10, "each key is merged about as often as the runs double"
    assert overlay.find(np.arange(512)).tolist() == list(range(512))


@pytest.mark.parametrize("reserve", [True, False])
def test_a_buffer_that_reserves_addresses_does_not_move(
    reserve: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growing, "_MOVED_BYTES_MAX", 1024)
    if not reserve:

        def rationed(size: int) -> None:
            raise OSError(12, "Cannot allocate memory")

        monkeypatch.setattr(growing, "_reserved", rationed)
    array = growing.with_room(np.zeros((0, 8), np.float32), 100)
    array[:] = 1
    moved = 0
    for rows in range(200, 5000, 100):
        longer = growing.with_room(array, rows)
        longer[len(array) :] = 1
        moved += not np.shares_memory(array, longer)
        array = longer
    assert array.shape == (4900, 8)
    assert (array == 1).all()
    assert (moved == 0) == reserve
