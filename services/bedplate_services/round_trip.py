"""``python -m bedplate_services.round_trip``: one round through a running platform, as its users go it.

A small version is trained and published, a space of it embedded by a worker, looked up, searched and written
to. It fits a platform in use: its users, events, surface and foundation are its own, and its events lie in
1970, so that the job embeds nobody else. At the end the version is retired.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bedplate import Client
from bedplate.errors import BedplateError
from bedplate.wire.store import EmbedRequest
from bedplate_modeling.checkpoints import save_checkpoint
from bedplate_modeling.config import FoundationConfig
from bedplate_modeling.events import Catalogue, Events, History
from bedplate_modeling.foundation import FoundationModel
from bedplate_modeling.requests import UserRequest
from bedplate_modeling.runtime import FoundationRuntime
from bedplate_modeling.training import train_foundation

NAME = "bedplate-round-trip"
USERS = tuple(f"{NAME}-{number}" for number in range(8))
EVENTS_PER_USER = 6
BEGIN = datetime(1970, 1, 1, tzinfo=UTC)
AS_OF = BEGIN + timedelta(days=1)
FLOAT16_STEP = 2**-11
"""Of numbers below 1, which the elements of unit vectors are."""
_EXAMPLE = """
example:
  export BEDPLATE_URL=http://127.0.0.1:8700 BEDPLATE_TOKEN=...
  python -m bedplate_services.round_trip --timeout-seconds 120
"""

Say = Callable[[str], None]


class Wrong(Exception):
    """The platform answered, and not what it should."""


def main(arguments: Sequence[str]) -> int:
    """Go round once; the exit status."""
    options = _parse(arguments)
    try:
        with Client() as client:
            walk(client, timeout_seconds=options.timeout_seconds, inference_url=options.inference_url)
    except BedplateError as error:
        print(f"{error.title}: {error.detail}", file=sys.stderr)
        return 1
    except Wrong as wrong:
        print(wrong, file=sys.stderr)
        return 1
    return 0


def walk(
    client: Client, *, timeout_seconds: float, inference_url: str | None = None, say: Say = print
) -> None:
    """Go round once, and tell each step with its time.

    Args:
        client: with the token of an administrator.
        inference_url: where the inference service must be ready; None: where the API says.

    Raises:
        Wrong: an answer is not what was written, or the inference service is not ready.
        BedplateError: the platform refused or failed a step.
    """
    deadline = time.monotonic() + timeout_seconds
    with _step(say, "a team, a surface and a foundation"):
        _set_up(client)
    with _step(say, "events"):
        table = events()
        _send(client, table)
    with _step(say, "a version, trained and published"), tempfile.TemporaryDirectory(prefix=NAME) as folder:
        model = train(table)
        save_checkpoint(Path(folder), model)
        version = client.versions.publish(NAME, folder, description="a round through the platform").reference
    space = f"{version}/user"
    try:
        with _step(say, f"{space}, embedded by a worker"):
            job = client.spaces.embed(space, EmbedRequest(as_of=AS_OF, partitions=1))
            client.jobs.watch(job, timeout_seconds=max(1.0, deadline - time.monotonic()))
        with _step(say, "a lookup and a search"):
            _read(client, space, expected_vectors(model, table))
        with _step(say, "a write, seen at once"):
            _write(client, space, model.config.dim)
        with _step(say, "the inference service"):
            _check_ready(inference_url or client.endpoints().inference)
    finally:
        client.versions.retire(version)
    say(f"{version} is retired; every answer was right")


def events() -> pa.Table:
    """Two kinds of users that like two kinds of items, in the first minutes of 1970."""
    user = np.repeat(np.arange(len(USERS)), EVENTS_PER_USER)
    item = np.tile(np.arange(EVENTS_PER_USER), len(USERS))
    label = ((user + item) % 2).astype(np.float32)
    times = int(BEGIN.timestamp() * 1e6) + np.tile(np.arange(1, EVENTS_PER_USER + 1), len(USERS)) * 60_000_000
    return pa.table(
        {
            "user": [USERS[number] for number in user],
            "item": [f"{NAME}-{number}" for number in item],
            "action": ["like" if value else "skip" for value in label],
            "surface": [NAME] * len(user),
            "event_time": pa.array(times, pa.timestamp("us", "UTC")),
            "label": label,
        }
    )


def expected_vectors(model: FoundationModel, table: pa.Table) -> NDArray[np.float32]:
    """float32 [users, dim]: what the space must hold, by the model in this process."""
    at_ms = int(AS_OF.timestamp() * 1000)
    requests = []
    for user in USERS:
        own = table.filter(pa.compute.equal(table["user"], user))
        times_ms = own["event_time"].cast(pa.int64()).to_numpy() // 1000
        items, actions, surfaces = (own[column].to_pylist() for column in ("item", "action", "surface"))
        requests.append(UserRequest(user, at_ms, History(items, actions, surfaces, times_ms)))
    return FoundationRuntime(model).embed_users(requests)


def _set_up(client: Client) -> None:
    team = client.whoami().team
    if NAME not in [surface.name for surface in client.surfaces.list()]:
        client.surfaces.create(NAME, team=team, description="Of the round through the platform.")
    if NAME not in [foundation.name for foundation in client.foundations.list()]:
        client.foundations.create(NAME, team=team, description="Of the round through the platform.")


def _send(client: Client, table: pa.Table) -> None:
    """Events sent twice happened twice; those of an earlier round are enough."""
    before = [len(client.timelines.read(user, at=AS_OF).events) for user in USERS]
    if not any(before):
        client.events.send(table)
    elif before != [EVENTS_PER_USER] * len(USERS):
        raise Wrong(f"The users {USERS[0]} ... have {before} events; {EVENTS_PER_USER} each were sent.")


def train(table: pa.Table) -> FoundationModel:
    """A small version that has learned from the events."""
    columns = {name: table[name].to_pylist() for name in ("user", "item", "action", "surface")}
    times_ms = table["event_time"].cast(pa.int64()).to_numpy() // 1000
    learned = Events.from_columns(**columns, event_time_ms=times_ms, label=table["label"].to_numpy())
    config = FoundationConfig(dim=16, layers=1, max_history=8, epochs=1)
    catalogue = Catalogue.from_items({item: {} for item in dict.fromkeys(columns["item"])})
    return train_foundation(learned, catalogue, config, seed=1)


def _read(client: Client, space: str, expected: NDArray[np.float32]) -> None:
    found = client.spaces.lookup(space, [*USERS, f"{NAME}-unknown"])
    if found.found.tolist() != [True] * len(USERS) + [False]:
        raise Wrong(f"{space} holds {found.found.tolist()} of the {len(USERS)} users that were embedded.")
    apart = float(np.abs(found.vectors[:-1].astype(np.float32) - expected).max())
    if apart > FLOAT16_STEP:
        raise Wrong(f"{space} differs from what the model computes by {apart:g}.")
    hits = client.spaces.search(space, expected, k=len(USERS))
    for user, keys in zip(USERS, hits.keys, strict=True):
        if user not in list(keys):
            raise Wrong(f"A search of {space} with the vector of {user} does not find it.")


def _write(client: Client, space: str, dim: int) -> None:
    key = f"{NAME}-written"
    vector = np.eye(1, dim, dtype=np.float32)
    answer = client.spaces.upsert(space, [key], vector)
    seen = client.spaces.lookup(space, [key], after=answer)
    if not seen.found[0] or not np.array_equal(seen.vectors.astype(np.float32), vector):
        raise Wrong(f"{key} was written to {space}, and a lookup after it does not give what was written.")
    nearest = client.spaces.search(space, vector, k=1, after=answer)
    if list(nearest.keys[0]) != [key]:
        raise Wrong(f"{key} was written to {space}, and a search with its vector finds {nearest.keys[0]}.")


def _check_ready(url: str) -> None:
    try:
        answer = httpx.get(f"{url.rstrip('/')}/readyz", timeout=10.0)
    except httpx.TransportError as error:
        raise Wrong(f"The inference service does not answer at {url}: {error}.") from error
    if answer.status_code != httpx.codes.OK:
        raise Wrong(f"The inference service at {url} is not ready: {answer.text}")


@contextmanager
def _step(say: Say, name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    say(f"{time.monotonic() - began:6.2f} s  {name}")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bedplate_services.round_trip",
        description="Publish, embed, look up, search and write on the platform that BEDPLATE_URL and "
        "BEDPLATE_TOKEN name, and check every answer.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--timeout-seconds", type=float, default=300.0, help="for the embed job; default: %(default)g"
    )
    parser.add_argument(
        "--inference-url",
        default=os.environ.get("BEDPLATE_INFERENCE_URL"),
        help="default: $BEDPLATE_INFERENCE_URL, else where the API says",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
