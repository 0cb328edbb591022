"""A directory of a user's own events as a world."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bedplate.datasets import EventFormat
from bedplate.errors import EmptyBatch, InvalidRequest
from bedplate_services.demo.directory import read_directory

HEADER = "user,item,action,surface,event_time,label,features"
HOW = EventFormat("s", assume_utc=True)


def csv(folder: Path, name: str, *rows: str) -> None:
    (folder / name).write_text("\n".join([HEADER, *rows]) + "\n", encoding="utf-8")


def test_events_are_ordered_by_time_then_file_then_row(tmp_path: Path) -> None:
    csv(tmp_path, "b.csv", "u,i3,like,feed,5,1,", "u,i1,skip,feed,3,0,")
    csv(tmp_path, "a.csv", "u,i4,like,feed,7,1,", "u,i2,skip,feed,5,0,", "u,i5,like,feed,5,1,")
    world = read_directory(tmp_path, HOW)
    assert world.events["item"].to_pylist() == ["i1", "i2", "i5", "i3", "i4"]
    assert world.name == tmp_path.name
    assert world.surface_rows() == {"feed": 5}
    assert "features" not in world.events.column_names


def test_many_equal_times_keep_their_order(tmp_path: Path) -> None:
    """A sort that is not stable shows it only with more rows than it sorts by insertion."""
    rows = [f"u,i{number},like,feed,{number % 3},{number % 2}," for number in range(3000)]
    csv(tmp_path, "all.csv", *rows)
    items = [int(item[1:]) for item in read_directory(tmp_path, HOW).events["item"].to_pylist()]
    assert items == sorted(range(3000), key=lambda number: (number % 3, number))


def test_an_items_features_are_the_last_ones_its_events_carry(tmp_path: Path) -> None:
    csv(
        tmp_path,
        "events.csv",
        'u,i1,like,feed,9,1,"{""year"": 2000}"',
        'u,i1,like,feed,1,1,"{""year"": 1990}"',
        "u,i1,skip,feed,10,0,",
        "u,i2,skip,feed,2,0,",
    )
    assert dict(read_directory(tmp_path, HOW).items) == {"i1": {"year": 2000}, "i2": {}}


@pytest.mark.parametrize("labels", [("1", "1"), ("0", "0"), ("0", "2"), ("", ""), ("0.5", "1")])
def test_labels_are_zero_and_one_and_both_occur(tmp_path: Path, labels: tuple[str, str]) -> None:
    csv(tmp_path, "events.csv", *(f"u,i,like,feed,{number},{one}," for number, one in enumerate(labels)))
    with pytest.raises(InvalidRequest, match="both 0 and 1 are needed"):
        read_directory(tmp_path, HOW)


def test_events_without_a_label_may_be_among_them(tmp_path: Path) -> None:
    csv(tmp_path, "events.csv", "u,i,like,feed,1,1,", "u,i,view,feed,2,,", "u,i,skip,feed,3,0,")
    assert read_directory(tmp_path, HOW).events["label"].to_pylist() == [1.0, None, 0.0]


def test_parquet_and_csv_lie_side_by_side(tmp_path: Path) -> None:
    csv(tmp_path, "a.csv", "u,i1,like,feed,2,1,")
    columns = {"user": ["u"], "item": ["i2"], "action": ["skip"], "surface": ["reels"], "label": [0.0]}
    time = pa.array([1_000_000], pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({**columns, "event_time": time}), tmp_path / "b.parquet")
    world = read_directory(tmp_path, HOW)
    assert world.events["item"].to_pylist() == ["i2", "i1"]
    assert world.surface_rows() == {"feed": 1, "reels": 1}


def test_no_events_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"holds no \.parquet or \.csv"):
        read_directory(tmp_path, HOW)
    csv(tmp_path, "empty.csv")
    with pytest.raises(EmptyBatch):
        read_directory(tmp_path, HOW)
