"""A large space from its partitions to its first answer: time, bytes and memory of each step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from bedplate_store.base_indexes import part_count
from benchmarks.figures import Figure
from benchmarks.large_space_steps import DIM, ROWS_PER_SEGMENT
from benchmarks.workbench import Workbench

NAME = "scale"
WORKERS = os.cpu_count() or 1
MEMORY_PER_DISK_BYTE = 1.15
OPEN_SECONDS = 2.0
_KEYS = 100


def run(bench: Workbench) -> list[Figure]:
    """Every step in a process of its own, as workers and services run them; the parts are added by as many
    processes as there are cores. The segments are written before the clock starts."""
    house = _House(bench, bench.scale.rows)
    house.build()
    return [house.merging(), house.indexing(), house.opening(), house.memory()]


class _House:
    """One space, built step by step; what each step took is kept."""

    def __init__(self, bench: Workbench, rows: int) -> None:
        self._bench = bench
        self._rows = rows
        self._folder = bench.folder / "scale"
        self._folder.mkdir()
        self._took: dict[str, dict[str, Any]] = {}
        self._add_seconds = 0.0

    def build(self) -> None:
        self._bench.say(f"scale: writing {self._rows:,} x {DIM} float16 in segments ...")
        starts = range(0, self._rows, ROWS_PER_SEGMENT)
        with ThreadPoolExecutor(WORKERS) as pool:
            segments = list(pool.map(self._segment, starts))
        base = self._told("merge", segments=segments)["base"]
        trained = self._told("train", base=base)["trained"]
        parts = self._add(base, trained)
        self._prepared = self._told("assemble", base=base, parts=parts)["prepared"]
        self._step("publish", prepared=self._prepared)
        self._base = base

    def merging(self) -> Figure:
        """Bytes merged a second, against as many written and synced; reading and hashing come on top."""
        bytes_ = int(self._base["segment"]["bytes"])
        limit = self._step("raw_write", bytes_=bytes_)["seconds"]
        return self._figure("merge of the segments", "MB/s", bytes_ / 1e6, "merge", limit, "write + fsync")

    def indexing(self) -> Figure:
        """Rows indexed a second; FAISS by itself neither reads, writes, tunes nor measures."""
        limit = self._step("faiss_build", base=self._base, prepared=self._prepared)["seconds"]
        seconds = self._seconds("train") + self._add_seconds + self._seconds("assemble")
        index = self._prepared["index"]
        return Figure(
            NAME,
            f"{self._rows:,} x {DIM} {index['parameters']['description']}: train, add, assemble",
            "rows/s",
            self._rows / seconds,
            self._rows / limit,
            "FAISS train + add, in memory",
            limit / seconds,
            1,
            {
                "train_seconds": self._seconds("train"),
                "add_seconds": self._add_seconds,
                "add_workers": float(WORKERS),
                "assemble_seconds": self._seconds("assemble"),
                "recall_at_10": index["recall_at_10"],
                "ef": float(index["parameters"]["ef"]),
                "lists": float(index["parameters"]["lists"]),
                **{f"{step}_peak_megabytes": self._peak(step) for step in ("train", "add", "assemble")},
            },
        )

    def opening(self) -> Figure:
        """First answers a second of a process that has just opened the space, against bare mapping, FAISS
        read, one search. ``cold``: the kernel was asked to drop the files from the page cache before."""
        bare = self._step("bare_open", prepared=self._prepared)["seconds"]
        served = self._serve(touch=False)
        self._drop_files()
        cold = self._serve(touch=False)
        return Figure(
            NAME,
            f"{self._rows:,} x {DIM} opened, lookup and search answered",
            "opens/s",
            1 / served["seconds"],
            1 / bare,
            "files mapped, one FAISS search",
            bare / served["seconds"],
            1,
            {
                "first_lookup_seconds": served["lookup_seconds"],
                "first_answers_seconds": served["seconds"],
                "limit_seconds": OPEN_SECONDS,
                "cold_first_answers_seconds": cold["seconds"],
            },
        )

    def memory(self) -> Figure:
        """Bytes on disk over the memory that the space took once every page was used; 1 / 1.15 is the least
        allowed. What the process had before it opened the space (interpreter, libraries) is told apart."""
        served = self._serve(touch=True)
        segment, index = self._prepared["segment"]["bytes"], self._prepared["index"]["bytes"]
        before = sum(served["before"].values())
        resident = sum(served["resident"].values()) - before
        return Figure(
            NAME,
            f"{self._rows:,} x {DIM} served, every page touched",
            "MB",
            resident / 1e6,
            (segment + index) / 1e6,
            "bytes on disk",
            (segment + index) / resident,
            1,
            {
                "segment_bytes": segment,
                "index_bytes": index,
                "resident_bytes": resident,
                "resident_anonymous_bytes": served["resident"]["anonymous"] - served["before"]["anonymous"],
                "resident_mapped_bytes": served["resident"]["mapped"] - served["before"]["mapped"],
                "resident_per_disk_byte": resident / (segment + index),
                "resident_per_disk_byte_limit": MEMORY_PER_DISK_BYTE,
                "process_resident_bytes": resident + before,
            },
        )

    def _segment(self, first: int) -> str:
        return str(self._step("segment", threads=1, rows=self._rows, first=first)["segment"])

    def _add(self, base: dict[str, Any], trained: dict[str, Any]) -> list[dict[str, Any]]:
        parts = part_count(self._rows)
        self._bench.say(f"scale: adding {parts} parts in {WORKERS} processes ...")

        def add(part: int) -> dict[str, Any]:
            return self._step("add", threads=1, base=base, trained=trained, part=part, parts=parts)["part"]

        began = time.perf_counter()
        with ThreadPoolExecutor(WORKERS) as pool:
            added = list(pool.map(add, range(parts)))
        self._add_seconds = time.perf_counter() - began
        self._bench.say(f"scale: add took {self._add_seconds:.0f} s")
        return added

    def _serve(self, *, touch: bool) -> dict[str, Any]:
        return self._step("serve", touch=touch, keys=self._keys())

    def _keys(self) -> list[int]:
        """Keys from all over the segment."""
        file = self._object("segments", self._base["segment"]["digest"], "keys")
        keys = np.memmap(file, np.int64, "r")[: self._rows]
        return [int(key) for key in keys[:: max(1, self._rows // _KEYS)][:_KEYS]]

    def _drop_files(self) -> None:
        """Ask the kernel to forget the space's files, so that they are read from disk again."""
        for path in (self._folder / "objects").rglob("*"):
            if path.is_file():
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def _object(self, *parts: str) -> Path:
        return self._folder.joinpath("objects", *parts)

    def _seconds(self, step: str) -> float:
        return float(self._took[step]["step_seconds"])

    def _peak(self, step: str) -> float:
        return float(self._took[step]["peak_anonymous_bytes"]) / 1e6

    def _figure(
        self, name: str, unit: str, work: float, step: str, limit_seconds: float, limit_name: str
    ) -> Figure:
        seconds = self._seconds(step)
        details = {f"{step}_seconds": seconds, f"{step}_peak_megabytes": self._peak(step)}
        title = f"{self._rows:,} x {DIM} {name}"
        ratio = limit_seconds / seconds
        return Figure(NAME, title, unit, work / seconds, work / limit_seconds, limit_name, ratio, 1, details)

    def _told(self, step: str, **given: Any) -> dict[str, Any]:
        answer = self._step(step, **given)
        self._bench.say(f"scale: {step} took {self._seconds(step):.0f} s")
        return answer

    def _step(self, step: str, *, threads: int | None = None, **given: Any) -> dict[str, Any]:
        """Run a step in a new process; the greatest peak of all its runs is kept."""
        environment = {**os.environ, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.large_space_steps"],
            input=json.dumps({"folder": str(self._folder), "step": step, **given}),
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        before = self._took.get(step, {"peak_anonymous_bytes": 0})
        peak = max(answer["peak_anonymous_bytes"], before["peak_anonymous_bytes"])
        self._took[step] = {**answer, "peak_anonymous_bytes": peak}
        return answer
