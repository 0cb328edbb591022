"""``python -m benchmarks.peers``: the same lookups and searches on Bedplate and on what people use today."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.choices import among
from benchmarks.peers.measure import KEYS, RECALL_TARGET, K
from benchmarks.report import number
from benchmarks.vectors import clustered, gapped_keys

HERE = Path(__file__).parent
OUTPUT = Path("benchmarks") / "results" / "peers.local.json"
_QUERIES = 400
_WIDTH = 180
_PROCESSOR = "processor_ms_per_call"


@dataclass(frozen=True)
class Environment:
    """Which packages a peer needs; none: those of this environment."""

    script: str
    packages: tuple[str, ...] = ()


PEERS = {
    "bedplate": Environment("peer_bedplate.py"),
    "redis": Environment("peer_redis.py", ("redis[hiredis]==8.1.0", "numpy<3")),
    "postgresql": Environment("peer_postgresql.py", ("psycopg[binary]==3.3.9", "numpy<3")),
    "chroma": Environment("peer_chroma.py", ("chromadb==1.5.9", "numpy<3")),
    "qdrant-edge": Environment("peer_qdrant_edge.py", ("qdrant-edge-py==0.9.0", "numpy<3")),
    "lancedb": Environment("peer_lancedb.py", ("lancedb==0.40.0", "pyarrow>=20", "numpy<3")),
    "feast": Environment("peer_feast.py", ("feast[redis]==0.67.0", "numpy<3")),
}


def main(
    names: Annotated[
        list[str] | None,
        typer.Argument(help=f"Any of {', '.join(PEERS)}. Default: all.", callback=among(PEERS, "peer")),
    ] = None,
    rows: Annotated[int, typer.Option(min=10_000, help="Rows that every peer holds.")] = 100_000,
    dim: Annotated[int, typer.Option(min=4, help="Dimension; a multiple of 4.")] = 256,
    seconds: Annotated[float, typer.Option(min=0.5, help="Length of each measurement.")] = 5.0,
    environments: Annotated[
        Path, typer.Option(help="Where the peers' environments are made and kept.")
    ] = Path("~/.cache/bedplate/peers"),
    output: Annotated[Path, typer.Option(help="Where the figures are written as JSON.")] = OUTPUT,
) -> None:
    """Measure peers one after the other on this machine, each installed from its public package.

    The first run downloads some 2 GB. Redis and Feast need `redis-server` on the PATH; PostgreSQL is a server
    that PEERS_POSTGRESQL_URL names (default: postgres@127.0.0.1).

    Example: python -m benchmarks.peers bedplate chroma --rows 50000
    """
    messages = Console(stderr=True)
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="bedplate-peers-") as folder:
        messages.print(
            f"Making {rows:,} x {dim} clustered vectors and the exact neighbours ...", highlight=False
        )
        _write_work(Path(folder), rows, dim)
        for name in names or []:
            python = _python(PEERS[name], environments.expanduser() / name, messages)
            messages.print(f"{name}: loading and measuring ...", highlight=False)
            result = _run(python, PEERS[name].script, Path(folder), seconds)
            results.append({**result, "packages": PEERS[name].packages})
    console = Console()
    print_table(results, console if console.is_terminal else Console(width=_WIDTH))
    output.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "rows": rows,
        "dim": dim,
        "results": results,
    }
    output.write_text(json.dumps(document, indent=2) + "\n")
    messages.print(f"All figures: {output}", highlight=False)


def _write_work(folder: Path, rows: int, dim: int) -> None:
    vectors, queries = clustered(rows, _QUERIES, dim)
    keys = gapped_keys(rows)
    arrays: dict[str, NDArray[Any]] = {
        "keys": keys,
        "vectors": vectors,
        "queries": queries,
        "truth": keys[np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :K]],
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)


def _python(environment: Environment, folder: Path, messages: Console) -> Path:
    """The interpreter of the peer's environment; made anew where other packages are asked for."""
    if not environment.packages:
        return Path(sys.executable)
    python, stamp = folder / "bin" / "python", folder / "installed"
    wanted = "\n".join(environment.packages)
    if not stamp.exists() or stamp.read_text() != wanted:
        messages.print(f"Installing {', '.join(environment.packages)} into {folder} ...", highlight=False)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *environment.packages], check=True)
        stamp.write_text(wanted)
    return python


def _run(python: Path, script: str, work: Path, seconds: float) -> dict[str, Any]:
    """The peer's result. A peer that fails ends the run: half a comparison is none."""
    command = [str(python), str(HERE / script), str(work), "--seconds", str(seconds)]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{script} failed with exit code {done.returncode}; its messages stand above.")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def print_table(results: list[dict[str, Any]], console: Console) -> None:
    """One line a peer: lookups, searches at the recall target, and loading.

    ``x``: how many times the processor time that Bedplate takes for one call; only where it was measured too.
    """
    ours = next((result for result in results if result["peer"] == "bedplate"), {})
    title = f"One client: lookup of {KEYS} keys, search top {K} at recall {RECALL_TARGET:g}"
    table = Table("peer", "how it is asked", title=title)
    for column in (
        "lookups/s",
        "p50 ms",
        "CPU ms",
        "x",
        "searches/s",
        "p50 ms",
        "CPU ms",
        "x",
        "recall@10",
        "rows/s loaded",
    ):
        table.add_column(column, justify="right")
    for result in results:
        cells = [*_timings(result, ours, "lookup"), *_timings(result, ours, "search")]
        recall = f"{result['search']['recall_at_10']:.3f}" if "search" in result else "-"
        asked = f"{result['interface']} {_versions(result['packages'])}".rstrip()
        table.add_row(result["peer"], asked, *cells, recall, number(result["load_rows_per_second"]))
    console.print(table)


def _timings(result: dict[str, Any], ours: dict[str, Any], work: str) -> list[str]:
    if work not in result:
        return ["-"] * 4
    timed = result[work]
    cells = [number(timed[name]) for name in ("calls_per_second", "p50_ms", _PROCESSOR)]
    return [*cells, number(timed[_PROCESSOR] / ours[work][_PROCESSOR]) if work in ours else "-"]


def _versions(packages: Sequence[str]) -> str:
    """What a peer is pinned to: "(redis 8.1.0)"."""
    pinned = [package.replace("==", " ") for package in packages if "==" in package]
    return escape(f"({', '.join(pinned)})") if pinned else ""


if __name__ == "__main__":
    typer.run(main)
