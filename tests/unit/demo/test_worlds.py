"""How a timeline is cut into windows, pages and waves."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.errors import InvalidRequest
from bedplate_services.demo import synthetic
from bedplate_services.demo.past_rows import past_rows
from bedplate_services.demo.worlds import PAGE_ITEMS, PAGE_SECONDS, World, cut_pages, waves


def events(rows: list[tuple[str, int]]) -> pa.Table:
    """(user, second) of each event, in any order."""
    ordered = sorted(rows, key=lambda row: row[1])
    return pa.table(
        {
            "user": [user for user, _ in ordered],
            "item": [f"i{number}" for number in range(len(ordered))],
            "action": ["like"] * len(ordered),
            "surface": ["feed"] * len(ordered),
            "event_time": pa.array([second * 1_000_000 for _, second in ordered], pa.timestamp("us", "UTC")),
            "label": pa.array([1.0] * len(ordered), pa.float32()),
        }
    )


visits = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3000)), min_size=1, max_size=120)


@given(rows=visits)
def test_pages_hold_every_event_once_in_order(rows: list[tuple[str, int]]) -> None:
    table = events(rows)
    users, times = table["user"].to_pylist(), table["event_time"].cast(pa.int64()).to_numpy()
    pages = cut_pages(table)
    assert sorted(row for page in pages for row in page.rows.tolist()) == list(range(len(rows)))
    assert [page.at for page in pages] == sorted(page.at for page in pages)
    for page in pages:
        assert len(page.rows) <= PAGE_ITEMS
        assert {users[row] for row in page.rows} == {page.user}
        seconds = (times[page.rows] - times[page.rows[0]]) / 1_000_000
        assert (np.diff(seconds) >= 0).all()
        assert seconds[-1] <= PAGE_SECONDS


@given(rows=visits, at_once=st.integers(1, 50))
def test_a_wave_has_each_user_once_and_never_overtakes(rows: list[tuple[str, int]], at_once: int) -> None:
    pages = cut_pages(events(rows))
    seen: dict[str, int] = {}
    for wave in waves(pages, at_once):
        assert len({page.user for page in wave}) == len(wave)
        for page in wave:
            assert seen.get(page.user, -1) < page.number
            seen[page.user] = page.number
    assert sum(len(wave) for wave in waves(pages, at_once)) == len(pages)


def test_windows_are_half_open_and_follow_each_other() -> None:
    world = synthetic.make(users=40, events_per_user=50)
    cuts = world.cuts()
    bounds = [cuts.start, cuts.short_end, cuts.foundation_end, cuts.training_end, cuts.end]
    parts = [world.window(start, end) for start, end in itertools.pairwise(bounds)]
    assert sum(len(part) for part in parts) == len(world.events)
    assert all(len(part) > 0 for part in parts)
    for part, end in zip(parts, bounds[1:], strict=True):
        assert part["event_time"].cast(pa.int64()).to_numpy().max() < end


def test_a_timeline_too_short_to_cut_says_so() -> None:
    few = World("few", events([("a", 1)] * 10), {})
    with pytest.raises(InvalidRequest, match="at least 1000"):
        few.cuts()
    together = World("together", events([("a", 1)] * 2000), {})
    with pytest.raises(InvalidRequest, match="share one time"):
        together.cuts()


def test_the_synthetic_world_is_the_same_for_the_same_seed_and_knows_its_optimum() -> None:
    one, same, other = synthetic.make(users=50), synthetic.make(users=50), synthetic.make(users=50, seed=1)
    assert one.events.equals(same.events)
    assert not one.events.equals(other.events)
    assert one.bayes_ne is not None
    assert all(0.4 < ne < 0.7 for ne in one.bayes_ne.values())


def test_past_rows_see_only_what_came_before_their_page() -> None:
    world = synthetic.make(users=30, events_per_user=40)
    rows = past_rows(world.events, "feed", world.items, 16)
    at_feed = world.events.filter(pc.equal(world.events["surface"], "feed"))
    assert len(rows) == len(at_feed)
    assert sorted(rows.items) == sorted(at_feed["item"].to_pylist())
    for history, at_ms in zip(rows.histories, rows.request_at_ms_R.tolist(), strict=True):
        assert set(history.surfaces) <= {"feed"}
        assert len(history) <= 16
        assert all(time_ms < at_ms for time_ms in history.event_time_ms)
