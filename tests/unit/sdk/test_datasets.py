from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bedplate.codecs import EVENT_SCHEMA
from bedplate.datasets import ROWS_AT_ONCE, EventFormat, read_events
from bedplate.errors import EmptyBatch, InvalidRequest

HEADER = "user,item,action,surface,event_time,label,features\n"
GOOD = 'u,007,like,feed,2026-11-22T10:00:00Z,1,"{""y"": 1}"\n'
NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)


def read(directory, **how):
    return pa.concat_tables(list(read_events(directory, EventFormat(**how))))


def csv(directory, *lines, header=HEADER, name="events.csv"):
    (directory / name).write_text(header + "".join(lines))
    return directory


def parquet(directory, **columns):
    base = {"user": ["u"], "item": ["i"], "action": ["like"], "surface": ["feed"], "event_time": [NOW]}
    pq.write_table(pa.table({**base, **columns}), directory / "events.parquet")
    return directory


def test_a_csv_row_comes_out_as_an_event(tmp_path):
    table = read(csv(tmp_path, GOOD, "v,i,view,reels,2026-11-22 15:00:00+05:00,,\n"))
    assert table.schema == EVENT_SCHEMA
    first, second = table.to_pylist()
    assert (first["item"], first["label"], first["features"]) == ("007", 1.0, '{"y": 1}')
    assert (second["event_time"], second["label"], second["features"]) == (NOW, None, None)


def test_files_come_by_path_and_rows_in_their_order(tmp_path):
    (tmp_path / "b").mkdir()
    csv(tmp_path, GOOD.replace("u,", "third,", 1), name="c.csv")
    csv(tmp_path / "b", GOOD.replace("u,", "second,", 1))
    csv(tmp_path, GOOD.replace("u,", "first,", 1), name="a.CSV")
    csv(tmp_path, "nonsense\n", header="", name=".hidden.csv")
    (tmp_path / "README.txt").write_text("not read")
    assert read(tmp_path)["user"].to_pylist() == ["first", "second", "third"]


def test_parquet_with_integers_and_structs(tmp_path):
    table = read(
        parquet(tmp_path, user=[42], features=[{"genres": ["Action"], "year": 1995}], label=[float("nan")])
    )
    row = table.to_pylist()[0]
    assert (row["user"], row["features"], row["label"]) == (
        "42",
        '{"genres": ["Action"], "year": 1995}',
        None,
    )


def test_large_files_come_in_tables_of_bounded_size(tmp_path):
    count = ROWS_AT_ONCE + 10
    columns = {"user": [str(number) for number in range(count)]}
    columns |= {"item": ["i"] * count, "action": ["like"] * count, "surface": ["feed"] * count}
    parquet(tmp_path, **columns, event_time=[NOW] * count)
    csv(
        tmp_path, *(f"{number},i,like,feed,2026-11-22T10:00:00Z,,\n" for number in range(count)), name="z.csv"
    )
    sizes, users = [], []
    for table in read_events(tmp_path):
        sizes.append(table.num_rows)
        users += table["user"].to_pylist()
    assert max(sizes) <= ROWS_AT_ONCE
    assert users == [str(number) for number in range(count)] * 2


@pytest.mark.parametrize(
    ("unit", "text", "expected"),
    [
        ("s", "978300760", datetime(2000, 12, 31, 22, 12, 40, tzinfo=UTC)),
        ("s", "978300760.25", datetime(2000, 12, 31, 22, 12, 40, 250_000, tzinfo=UTC)),
        ("ms", "978300760001", datetime(2000, 12, 31, 22, 12, 40, 1000, tzinfo=UTC)),
        ("us", "978300760000001", datetime(2000, 12, 31, 22, 12, 40, 1, tzinfo=UTC)),
        ("s", "-1", datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_epoch_times_by_their_unit(tmp_path, unit, text, expected):
    line = f"u,i,like,feed,{text},,\n"
    assert read(csv(tmp_path, line), time_unit=unit)["event_time"].to_pylist() == [expected]


@pytest.mark.parametrize(
    ("values", "how"),
    [
        (pa.array([978300760]), {"time_unit": "s"}),
        (pa.array([978300760.0]), {"time_unit": "s"}),
        (pa.array([978300760 * 10**9], pa.timestamp("ns", "UTC")), {}),
        (pa.array([978300760 * 1000], pa.timestamp("ms", "Asia/Karachi")), {}),
        (pa.array([978300760], pa.timestamp("s")), {"assume_utc": True}),
        (pa.array(["2000-12-31T22:12:40"]), {"assume_utc": True}),
        (pa.array(["2001-01-01T03:12:40+05:00"]), {}),
    ],
)
def test_times_of_parquet(tmp_path, values, how):
    times = read(parquet(tmp_path, event_time=values), **how)["event_time"].to_pylist()
    assert times == [datetime(2000, 12, 31, 22, 12, 40, tzinfo=UTC)]


def test_zones_may_be_mixed(tmp_path):
    east = NOW.astimezone(timezone(timedelta(hours=5, minutes=30))).isoformat()
    lines = [
        f"u,i,like,feed,{text},,\n" for text in ("2026-11-22T10:00:00.000001Z", east, "2026-11-22T10:00Z")
    ]
    times = read(csv(tmp_path, *lines))["event_time"].to_pylist()
    assert times == [NOW + timedelta(microseconds=1), NOW, NOW]


def test_columns_may_have_other_names(tmp_path):
    header = "uid,item,action,surface,ts\n"
    csv(tmp_path, "u,i,like,feed,1\n", header=header)
    table = read(tmp_path, time_unit="s", columns={"user": "uid", "event_time": "ts"})
    assert table["user"].to_pylist() == ["u"]
    with pytest.raises(InvalidRequest, match="'usr' is no column of events"):
        EventFormat(columns={"usr": "uid"})


def test_columns_that_are_not_read_are_reported(tmp_path):
    csv(tmp_path, "u,i,like,feed,2026-11-22T10:00:00Z,1\n", header=HEADER.replace("label,features", "lable"))
    told = []
    list(read_events(tmp_path, report=told.append))
    assert len(told) == 1
    assert told[0].endswith("events.csv: not read: lable")


BAD_ROWS = [
    ("u,i,like,feed,yesterday,,\n", r"row 2, column 'event_time': 'yesterday' is no ISO 8601 time"),
    ("u,i,like,feed,978300760,,\n", r"row 2, column 'event_time': .*--time-unit"),
    ("u,i,like,feed,2026-11-22T10:00:00,,\n", r"row 2, column 'event_time': .* has no zone.*--assume-utc"),
    ("u,i,like,feed,,,\n", r"row 2, column 'event_time': '' is no ISO 8601 time"),
    (",i,like,feed,2026-11-22T10:00:00Z,,\n", r"row 2, column 'user': has 0 characters"),
    ("u,i,like,Feed,2026-11-22T10:00:00Z,,\n", r"row 2, column 'surface': .*'Feed' is not allowed"),
    ("u,i,like,feed,2026-11-22T10:00:00Z,good,\n", r"row 2, column 'label': 'good' is no number"),
    ("u,i,like,feed,2026-11-22T10:00:00Z,inf,\n", r"row 2, column 'label': is infinite"),
    ("u,i,like,feed,2026-11-22T10:00:00Z,,genres\n", r"row 2, column 'features': is not a JSON object"),
    ("u,i,like\n", r"events\.csv cannot be read: .*[Cc]olumns"),
]


@pytest.mark.parametrize(("line", "match"), BAD_ROWS)
def test_a_bad_row_is_named_by_file_row_and_column(tmp_path, line, match):
    with pytest.raises(InvalidRequest, match=match) as caught:
        read(csv(tmp_path, GOOD, line))
    assert str(tmp_path / "events.csv") in str(caught.value)


def test_rows_are_counted_from_the_beginning_of_the_file(tmp_path):
    good = "u,i,like,feed,2026-11-22T10:00:00Z,,\n"
    with pytest.raises(InvalidRequest, match=f"row {ROWS_AT_ONCE + 8}, column 'item'"):
        read(csv(tmp_path, good * (ROWS_AT_ONCE + 7), "u,,like,feed,2026-11-22T10:00:00Z,,\n"))


def test_an_epoch_time_that_is_none_is_named(tmp_path):
    with pytest.raises(InvalidRequest, match="row 2, column 'event_time': 'soon' is no number"):
        read(csv(tmp_path, "u,i,like,feed,1,,\n", "u,i,like,feed,soon,,\n"), time_unit="s")
    with pytest.raises(InvalidRequest, match=r"row 1, column 'event_time': .* check the unit"):
        read(csv(tmp_path, "u,i,like,feed,978300760000000,,\n"), time_unit="s")
    with pytest.raises(InvalidRequest, match="row 1, column 'event_time'"):
        read(csv(tmp_path, "u,i,like,feed,nan,,\n"), time_unit="s")


def test_a_missing_column_is_named_with_what_is_there(tmp_path):
    csv(tmp_path, "u,like,feed,1\n", header="user,action,surface,event_time\n")
    with pytest.raises(
        InvalidRequest, match=r"column 'item' is missing; it has user, action.*--column item="
    ):
        read(tmp_path)


@pytest.mark.parametrize("name", ["events.csv", "events.parquet"])
def test_a_file_of_another_kind_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"\xff\xfe\x00nonsense\n\xff")
    with pytest.raises(InvalidRequest, match=name.replace(".", r"\.")):
        read(tmp_path)


def test_times_in_parquet_without_zone_or_unit(tmp_path):
    with pytest.raises(InvalidRequest, match="--assume-utc"):
        read(parquet(tmp_path, event_time=pa.array([1], pa.timestamp("us"))))
    with pytest.raises(InvalidRequest, match="--time-unit"):
        read(parquet(tmp_path, event_time=pa.array([1])))
    with pytest.raises(InvalidRequest, match="must hold numbers"):
        read(parquet(tmp_path, label=[["x"]]))


def test_nothing_to_read(tmp_path):
    with pytest.raises(InvalidRequest, match="holds no"):
        read(tmp_path)
    csv(tmp_path)
    with pytest.raises(EmptyBatch):
        list(read_events(tmp_path))
    with pytest.raises(InvalidRequest, match="not a directory"):
        list(read_events(tmp_path / "nowhere"))
