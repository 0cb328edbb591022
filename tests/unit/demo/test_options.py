"""What the demo refuses before it spends minutes, and which surfaces it measures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bedplate.datasets import EventFormat
from bedplate.errors import InvalidRequest
from bedplate_services.demo import synthetic
from bedplate_services.demo.loop import FEWEST_ROWS, measurable_surfaces
from bedplate_services.demo.main import Options
from bedplate_services.demo.sources import source_of
from bedplate_services.demo.worlds import World


def test_an_output_that_cannot_be_written_is_refused_first(tmp_path: Path) -> None:
    for output in (tmp_path, tmp_path / "no" / "result.json"):
        with pytest.raises(InvalidRequest, match="--output"):
            Options(output=output).check()
    Options(output=tmp_path / "result.json").check()


def test_a_used_data_directory_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    Options(output=output, data=tmp_path / "new").check()
    (tmp_path / "used").mkdir()
    Options(output=output, data=tmp_path / "used").check()
    (tmp_path / "used" / "store.db").touch()
    with pytest.raises(InvalidRequest, match="not empty"):
        Options(output=output, data=tmp_path / "used").check()


def test_an_unknown_dataset_names_the_known_ones() -> None:
    with pytest.raises(InvalidRequest, match="movielens-1m"):
        source_of("movielens", EventFormat())


def _renamed_surface(world: World, rows: np.ndarray) -> World:
    names = np.asarray(world.events["surface"].to_pylist(), dtype=object)
    names[rows] = "late"
    events = world.events.set_column(3, "surface", pa.array(names.tolist()))
    return World(world.name, events, world.items)


def test_a_surface_that_came_late_is_not_measured() -> None:
    world = synthetic.make(users=100)
    size = len(world.events)
    late = _renamed_surface(world, np.arange(size - 2 * FEWEST_ROWS, size))
    assert measurable_surfaces(late, late.cuts()) == ["feed", "groups", "reels"]
    always = _renamed_surface(world, np.arange(0, size, 7))
    assert measurable_surfaces(always, always.cuts()) == ["feed", "groups", "late", "reels"]


def test_no_surface_to_measure_is_an_error() -> None:
    world = synthetic.make(users=40)
    column = world.events.column_names.index("label")
    ones = world.events.set_column(column, "label", pa.array([1.0] * len(world.events), pa.float32()))
    with pytest.raises(InvalidRequest, match="No surface"):
        measurable_surfaces(World("ones", ones, world.items), world.cuts())
