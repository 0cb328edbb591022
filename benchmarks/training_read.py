"""Training sets: made (the point-in-time join) and read, against the bytes they move."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from bedplate import Client
from bedplate.errors import InternalError
from bedplate.training_data import TrainingSetData
from bedplate.wire.store import TrainingSetCreate
from bedplate_store import training_sets
from bedplate_store.impressions import ImpressionLog, ImpressionRecord
from benchmarks.embed import job_seconds
from benchmarks.figures import Figure, Pairs, Sample, interleave
from benchmarks.raw_reads import scan, touch
from benchmarks.workbench import REFERENCE, TEAM, Workbench

NAME = "training"
SURFACE = "bench-training"
DIM = 256
CANDIDATES = 20
USERS = 1000
EVENTS_PER_USER = 50
START = datetime(2026, 1, 1, tzinfo=UTC)
MICROSECONDS = pa.timestamp("us", "UTC")
_OUTCOMES_AT_ONCE = 50_000


@dataclass(frozen=True)
class Made:
    """A training set, the object files it lies in, and the bytes of the log it was joined from."""

    id: str
    files: list[Path]
    seconds: float
    rows: int
    log_bytes: int

    @property
    def bytes(self) -> int:
        return sum(file.stat().st_size for file in self.files)


def run(bench: Workbench) -> list[Figure]:
    """Bytes read a second with every TAE touched, and rows joined a second."""
    rows = bench.scale.rows // 5
    requests = max(1, rows // CANDIDATES)
    bench.say(f"training: logging {requests:,} requests of {CANDIDATES} candidates, TAE {DIM} x float16 ...")
    _send_events(bench)
    served = _log_impressions(bench, requests)
    _send_outcomes(bench, served)
    bench.say("training: making the training sets ...")
    _, *made = [_make(bench, number) for number in range(1 + min(3, bench.scale.rounds))]
    return [
        _join_figure(bench, made),
        _read_figure(bench, made[0]),
        _fetch_figure(bench, made[0]),
        _again_figure(bench, made[0]),
    ]


def _at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def _microseconds(at: datetime) -> int:
    return int(at.timestamp()) * 1_000_000


def _send_events(bench: Workbench) -> None:
    """Every user's history: same surface, before any request."""
    bench.client.surfaces.create(SURFACE, team=TEAM)
    count = USERS * EVENTS_PER_USER
    number = np.arange(count)
    bench.client.events.send(
        pa.table(
            {
                "user": [f"t{place % USERS}" for place in range(count)],
                "item": [f"i{place % 997}" for place in range(count)],
                "action": ["like"] * count,
                "surface": [SURFACE] * count,
                "event_time": pa.array(_microseconds(START) + number * 1000, MICROSECONDS),
                "label": pa.array(np.ones(count, np.float32)),
            }
        )
    )


def _log_impressions(bench: Workbench, requests: int) -> list[ImpressionRecord]:
    """What the inference service would have logged, sealed."""
    random = np.random.default_rng(0)
    first = _microseconds(_at(86_400))
    log = ImpressionLog(bench.folder / "spool", bench.objects, bench.database)
    records = [
        ImpressionRecord(
            request_id=f"r{number:08d}",
            user=f"t{number % USERS}",
            surface=SURFACE,
            served_at_us=first + number * 1_000_000,
            items=[f"i{(number + place) % 997}" for place in range(CANDIDATES)],
            expert=None,
            scores=None,
            tae={REFERENCE: random.standard_normal((CANDIDATES, DIM), np.float32).astype(np.float16)},
            predictions={REFERENCE: random.random(CANDIDATES, np.float32)},
        )
        for number in range(requests)
    ]
    log.append_many(records)
    log.close()
    log.seal(datetime.now(UTC))
    return records


def _send_outcomes(bench: Workbench, served: list[ImpressionRecord]) -> None:
    for part in _parts(served, _OUTCOMES_AT_ONCE // CANDIDATES):
        items = [item for record in part for item in record.items]
        times = np.repeat([record.served_at_us + 1_000_000 for record in part], CANDIDATES)
        outcomes = {
            "request_id": [record.request_id for record in part for _ in record.items],
            "item": items,
            "label": pa.array(np.arange(len(items)) % 2, pa.float32()),
            "outcome_time": pa.array(times, MICROSECONDS),
        }
        bench.client.outcomes.record(SURFACE, pa.table(outcomes))


def _parts(records: list[ImpressionRecord], size: int) -> Iterator[list[ImpressionRecord]]:
    for start in range(0, len(records), size):
        yield records[start : start + size]


def _make(bench: Workbench, number: int) -> Made:
    definition = TrainingSetCreate(
        name=f"bench-{number}",
        surface=SURFACE,
        versions=[REFERENCE],
        window_start=START,
        window_end=_at(365 * 86_400),
    )
    made = bench.client.training_sets.create(definition)
    job = bench.client.jobs.watch(made.job, poll_seconds=0.2)
    with bench.database.read() as session:
        entries = training_sets.files(session, bench.objects, made.id)
    files = [bench.objects.local_path(entry.object_key) for entry in entries]
    log = [bench.objects.size(key) or 0 for key in bench.objects.list(f"log/{SURFACE}/")]
    rows = sum(entry.rows for entry in entries if entry.table == "rows")
    if rows == 0 or sum(log) == 0:
        raise InternalError("the training set is empty")
    return Made(made.id, [file for file in files if file is not None], job_seconds(job), rows, sum(log))


def _join_figure(bench: Workbench, made: list[Made]) -> Figure:
    """The physical limit of a join is to read the log once and write the result once, durably."""
    logs = [bench.objects.local_path(key) for key in bench.objects.list(f"log/{SURFACE}/")]
    paths = [path for path in logs if path is not None]
    limit = []
    for each in made:
        began = time.perf_counter()
        for path in paths:
            scan(path)
        _write_durably(bench.folder / "joined", each.bytes)
        limit.append(Sample.of(each.rows, time.perf_counter() - began))
    pairs = Pairs([Sample.of(each.rows, each.seconds) for each in made], limit)
    return pairs.figure(
        NAME,
        f"point-in-time join of {made[0].rows:,} rows, TAE {DIM} x float16",
        "rows/s",
        "log read + result written and synced",
        {"log_bytes": float(made[0].log_bytes), "result_bytes": float(made[0].bytes)},
    )


def _write_durably(path: Path, count: int) -> None:
    data = bytes(count)
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    path.unlink()


def _read_figure(bench: Workbench, made: Made) -> Figure:
    """By a client that has verified nothing yet, in place: verified, mapped, touched."""

    def product(_: int) -> Sample:
        with Client(bench.platform.url, bench.platform.token) as client:
            began = time.perf_counter()
            _touch_parts(_checked(client.training_sets.read(made.id), made))
            return Sample.of(made.bytes / 1e6, time.perf_counter() - began)

    return _against_scan(bench, made, product, "first read (verify, map in place)")


def _fetch_figure(bench: Workbench, made: Made) -> Figure:
    """Fetched through the signed URLs into a new directory, verified, mapped, touched."""

    def product(number: int) -> Sample:
        directory = bench.folder / f"training-set-{number}"
        began = time.perf_counter()
        _touch_parts(_checked(bench.client.training_sets.read(made.id, directory), made))
        return Sample.of(made.bytes / 1e6, time.perf_counter() - began)

    return _against_scan(bench, made, product, "first read by URL (fetch, verify, map)")


def _again_figure(bench: Workbench, made: Made) -> Figure:
    """Read again from the directory it was fetched into: what every further epoch costs."""
    directory = bench.folder / "training-set"
    training_set = bench.client.training_sets.read(made.id, directory).training_set
    files = bench.client.training_sets.files(made.id)

    def product(_: int) -> Sample:
        began = time.perf_counter()
        data = TrainingSetData.open(training_set, files, directory)
        _touch_parts(_checked(data, made))
        return Sample.of(made.bytes / 1e6, time.perf_counter() - began)

    return _against_scan(bench, made, product, "further read (map)")


def _checked(data: TrainingSetData, made: Made) -> TrainingSetData:
    if len(data) != made.rows:
        raise InternalError(f"{len(data)} rows were read of {made.rows}")
    return data


def _against_scan(bench: Workbench, made: Made, product: Callable[[int], Sample], title: str) -> Figure:
    def limit(_: int) -> Sample:
        began = time.perf_counter()
        for file in made.files:
            scan(file)
        return Sample.of(made.bytes / 1e6, time.perf_counter() - began)

    pairs = interleave(bench.scale.rounds, product, limit)
    return pairs.figure(
        NAME,
        f"training set of {made.bytes / 1e6:,.0f} MB, {title}",
        "MB/s",
        "raw scan of the same files",
        {"bytes": float(made.bytes)},
    )


def _touch_parts(data: TrainingSetData) -> None:
    for part in data.tae_parts(REFERENCE):
        touch(part)
