"""A version swap under load: how long requests take before, during and after, and what is in memory."""

from __future__ import annotations

import http.client
import multiprocessing
import os
import re
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from bedplate.codecs import HEADER_VERSION
from bedplate.errors import InternalError
from bedplate.wire.registry import SpaceSignature
from bedplate_services.supervisor.platform import WORKER_NICENESS
from bedplate_services.supervisor.time_slices import ask_for_short_slices
from bedplate_store.writes import Writes
from benchmarks.figures import Figure, median, percentile_ms
from benchmarks.vectors import clustered
from benchmarks.workbench import TEAM, Workbench, write_checkpoint

NAME = "swap"
FOUNDATION = "swap"
DIM = 128
KEYS = 100
BATCH_ROWS = 20_000
LOOKUPS_PER_SECOND, SEARCHES_PER_SECOND, BARE_PER_SECOND = 200, 100, 100
PATIENCE_SECONDS = 600.0
_WINDOWS = {"indexed": "while a version is indexed", "swapped": "while it is opened and swapped"}
_RAW = "application/octet-stream"
_MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+ +(\S.*)$")


@dataclass(frozen=True)
class Call:
    """Requests of one kind, and how many a second."""

    url: str
    token: str
    path: str
    bodies: list[bytes]
    per_second: float


@dataclass(frozen=True)
class Answers:
    """When each request was due (``time.time``) [n], how long after that its answer was whole [n], and the
    version that answered [n], 0 where a server has none."""

    due: NDArray[np.float64]
    seconds: NDArray[np.float64]
    versions: NDArray[np.int64]

    def between(self, start: float, end: float) -> NDArray[np.float64]:
        return self.seconds[(self.due >= start) & (self.due < end)]

    def first_of(self, version: int, after: float) -> float:
        """When the first answer of a version was whole."""
        return float((self.due + self.seconds)[(self.versions == version) & (self.due >= after)].min())


def _send(call: Call, pipe: Connection) -> None:
    """Requests at their times, over one connection, until told to end. A late one counts from when it was
    due: a client that waits politely would hide what waiting costs. It stands for clients on machines of
    their own, so it waits for no processor where that can be had, and shares none with who writes."""
    os.setsid()  # Linux shares out among sessions first
    ask_for_short_slices()
    address = urlsplit(call.url)
    http_ = http.client.HTTPConnection(address.hostname or "", address.port)
    headers = {"content-type": _RAW, "accept": _RAW, "authorization": f"Bearer {call.token}"}
    due, seconds, versions = [], [], []
    pipe.send("begun")
    at = time.time()
    while not pipe.poll():
        at += 1 / call.per_second
        time.sleep(max(0.0, at - time.time()))  # until it is due
        http_.request("POST", call.path, call.bodies[len(due) % len(call.bodies)], headers)
        answer = http_.getresponse()
        body = answer.read()
        if answer.status != http.client.OK:
            pipe.send(f"{answer.status}: {body[:500]!r}")
            return
        due.append(at)
        seconds.append(time.time() - at)
        versions.append(int((answer.headers[HEADER_VERSION] or "@0").partition("@")[2]))
    pipe.send(Answers(np.array(due), np.array(seconds), np.array(versions)))


class Traffic:
    """One kind of request from a process of its own."""

    def __init__(self, call: Call) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_send, args=(call, other), daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        self._pipe.recv()  # it has begun
        return self

    def end(self) -> Answers:
        self._pipe.send("end")
        found = self._pipe.recv()
        if isinstance(found, str):
            raise InternalError(f"a request failed during the swap: {found}")
        assert isinstance(found, Answers)
        return found

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()


@dataclass
class Memory(threading.Thread):
    """What the process that answers has resident, looked at again and again.

    Attributes:
        others: object files that the process had mapped before the swap's; they do not count.
        mapped_bytes: the most of mapped object files at one time; a file mapped twice counts once.
        anonymous_bytes: the first and the most of everything else.
    """

    pid: int
    others: frozenset[str]
    mapped_bytes: int = 0
    anonymous_bytes: list[int] = field(default_factory=lambda: [0, 0])
    ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        while not self.ended.wait(0.25):
            files, anonymous = _resident(self.pid)
            mapped = sum(size for path, size in files.items() if path not in self.others)
            self.mapped_bytes = max(self.mapped_bytes, mapped)
            first, most = self.anonymous_bytes
            self.anonymous_bytes = [first or anonymous, max(most, anonymous)]


def _resident(pid: int) -> tuple[dict[str, int], int]:
    """Bytes of each mapped object file, and of all anonymous memory."""
    files: dict[str, int] = {}
    anonymous, path = 0, ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "Rss" and "/objects/" in path:
            files[path] = max(files.get(path, 0), int(value.split()[0]) * 1024)
        elif name == "Anonymous":
            anonymous += int(value.split()[0]) * 1024
        elif "-" in line.partition(" ")[0]:
            mapping = _MAPPING.match(line)
            path = mapping.group(1) if mapping else ""
    return files, anonymous


def run(bench: Workbench) -> list[Figure]:
    """Lookups and searches at a steady rate through an alias, while the worker merges and indexes a version,
    the reader opens it, and the alias moves there and back."""
    rows = max(bench.scale.rows // 5, BATCH_ROWS)
    swaps = bench.scale.of(3, 1)
    _stage(bench, swaps + 1)
    api = bench.platform.pids()["api"]
    memory = Memory(api, frozenset(_resident(api)[0]))
    snapshot_bytes = _fill(bench, 1, clustered(rows, 0, DIM, seed=1)[0])
    bench.client.aliases.move(FOUNDATION, "production", 1)
    random = np.random.default_rng(5)
    keys = [random.integers(0, rows, KEYS).astype("<i8").tobytes() for _ in range(64)]
    queries = [row.astype("<f4").tobytes() for row in clustered(rows, 64, DIM, seed=1)[1]]
    where, token = bench.platform.url, bench.platform.token
    bare = f"http://{bench.bare.host}:{bench.bare.port}"
    path = f"/v1/spaces/{FOUNDATION}@production/item"
    calls = {
        "lookup": Call(where, token, f"{path}/lookup", keys, LOOKUPS_PER_SECOND),
        "search": Call(where, token, f"{path}/search?k=10", queries, SEARCHES_PER_SECOND),
        # What the same machine, just as busy, does to a server that looks nothing up and swaps nothing.
        "bare ASGI": Call(bare, token, f"/{KEYS * (DIM * 4 + 1)}", keys, BARE_PER_SECOND),
    }
    rates = ", ".join(f"{call.per_second} {name}/s" for name, call in calls.items())
    bench.say(f"swap: {rows:,} x {DIM}, {rates} ...")
    with ExitStack() as stack:
        traffic = {name: stack.enter_context(Traffic(call)) for name, call in calls.items()}
        time.sleep(3)  # connections are made, and what is asked for the first time is open
        memory.start()
        found = []
        for version in range(2, swaps + 2):
            found.append(_swap(bench, version, clustered(rows, 0, DIM, seed=version)[0]))
            memory.ended.set()  # the first swap's: a version that was left stays open for a while
        answers = {name: one.end() for name, one in traffic.items()}
    memory.join()
    return [*_figures(answers, found), _memory_figure(memory, snapshot_bytes)]


@dataclass(frozen=True)
class Swap:
    """When the windows of a swap ended, and its moves: version, when it was asked for, when it was done."""

    marks: list[float]
    moves: list[tuple[int, float, float]]

    @property
    def windows(self) -> dict[str, tuple[float, float]]:
        return dict(zip(("before", "indexed", "swapped", "after"), pairwise(self.marks), strict=True))


def _swap(bench: Workbench, version: int, vectors: NDArray[np.float32]) -> Swap:
    """A version is written, indexed, opened; the alias moves there, back and there again."""
    quiet = bench.scale.of(12, 8)
    marks = [time.time()]
    time.sleep(quiet)  # the window before: p99 wants a thousand answers and more
    marks.append(time.time())
    _fill(bench, version, vectors)
    marks.append(time.time())
    moves = []
    for to, current in ((version, version - 1), (version - 1, version), (version, version - 1)):
        moves.append(_move(bench, to, current))
        time.sleep(2)  # an alias that moved on at once would have no answers between the moves
    marks.append(time.time())
    time.sleep(quiet)  # the window after, as long as the one before
    return Swap([*marks, time.time()], moves)


def _stage(bench: Workbench, versions: int) -> None:
    bench.client.foundations.create(FOUNDATION, team=TEAM)
    spaces = {"item": SpaceSignature(dim=DIM, dtype="float32", key_type="int64")}
    for version in range(1, versions + 1):
        directory = bench.folder / f"swap-{version}"
        write_checkpoint(directory, spaces, version)
        bench.client.versions.publish(FOUNDATION, directory)


def _fill(bench: Workbench, version: int, vectors: NDArray[np.float32]) -> int:
    """Write a version's rows beside the API, as a worker writes what it embeds; then the worker merges them,
    builds the index, measures it and publishes. Returns the snapshot's bytes."""
    writing = threading.Thread(target=_write, args=(bench, version, vectors))
    writing.start()
    writing.join()
    reference = f"{FOUNDATION}@{version}/item"
    job = bench.client.spaces.compact(reference)
    bench.client.jobs.watch(job, timeout_seconds=PATIENCE_SECONDS)
    return bench.client.spaces.snapshots(reference)[0].bytes


def _write(bench: Workbench, version: int, vectors: NDArray[np.float32]) -> None:
    # This thread alone stands back, as the worker does.
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), WORKER_NICENESS)
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    writes = Writes(bench.database, bench.objects)
    for start in range(0, len(vectors), BATCH_ROWS):
        batch = slice(start, start + BATCH_ROWS)
        writes.upsert(
            foundation=FOUNDATION,
            version=version,
            space="item",
            keys=np.arange(len(vectors))[batch],
            vectors=vectors[batch],
            now=datetime.now(UTC),
        )


def _move(bench: Workbench, version: int, current: int) -> tuple[int, float, float]:
    asked = time.time()
    bench.client.aliases.move(FOUNDATION, "production", version, expected=current)
    return version, asked, time.time()


def _figures(answers: dict[str, Answers], swaps: list[Swap]) -> list[Figure]:
    """Medians over the swaps; a ratio is that of one swap's windows."""
    found = []
    for name, one in answers.items():
        seconds = [{window: one.between(*times) for window, times in swap.windows.items()} for swap in swaps]
        details = {
            f"{window}_p{percent}_ms": median([percentile_ms(each[window], percent) for each in seconds])
            for window in ("before", *_WINDOWS, "after")
            for percent in (50, 99)
        }
        for number in range(3 if one.versions.any() else 0):
            moves = [swap.moves[number] for swap in swaps]
            waited = [one.first_of(version, asked) - done for version, asked, done in moves]
            details[f"switch_{number + 1}_ms"] = 1e3 * median(waited)
        for window, what in _WINDOWS.items():
            p99 = [percentile_ms(each[window], 99) for each in seconds]
            before = [percentile_ms(each["before"], 99) for each in seconds]
            ratios = [one / other for one, other in zip(p99, before, strict=True)]
            found.append(
                Figure(
                    NAME,
                    f"{name} p99 {what} (less is better)",
                    "ms",
                    median(p99),
                    median(before),
                    "p99 before",
                    median(ratios),
                    len(swaps),
                    {**details, "p50_ms": details[f"{window}_p50_ms"], "p99_ms": median(p99)}
                    | {f"ratio_{number}": ratio for number, ratio in enumerate(ratios, start=1)},
                )
            )
    return found


def _memory_figure(memory: Memory, snapshot_bytes: int) -> Figure:
    mapped, limit = memory.mapped_bytes / 1e6, 2 * snapshot_bytes / 1e6
    first, most = memory.anonymous_bytes
    details = {"anonymous_mb": first / 1e6, "anonymous_most_mb": most / 1e6}
    name = "most of the snapshots in memory at one time (less is better)"
    return Figure(NAME, name, "MB", mapped, limit, "two snapshots' files", mapped / limit, 1, details)
