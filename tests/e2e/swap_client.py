"""A client process of test_swaps: reads through an alias until its standard input ends; tells what it saw.

The first number of every vector of version v is 10 v + s, where s is the snapshot it is in, or will be in: a
write is seen above the snapshot before. So each answer shows whether it is made of one state of one version,
and whether that is the one its header names.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np

from bedplate import Client

ALIAS = "core@production/item"
KEYS = np.arange(0, 3000, 7)
DIM, K = 256, 20
Seen = tuple[str, int, set[float]]
"""Version and snapshot as the answer names them, and the first numbers of what it holds."""


def query() -> Any:
    """Its score is the first number of the row it meets."""
    one = np.zeros((1, DIM), np.float32)
    one[0, 0] = 1
    return one


def sdk(url: str, token: str) -> Callable[[], list[Seen]]:
    client = Client(url, token)

    def read() -> list[Seen]:
        found = client.spaces.lookup(ALIAS, KEYS)
        assert found.found.all()
        hits = client.spaces.search(ALIAS, query(), k=K)
        return [
            (found.version, found.snapshot, set(found.vectors[:, 0].tolist())),
            (hits.version, hits.snapshot, set(hits.scores[0].tolist())),
        ]

    return read


def _post(http: httpx.Client, verb: str, media: str, body: bytes) -> httpx.Response:
    headers = {"content-type": media, "accept": media}
    answer = http.post(f"/v1/spaces/{ALIAS}/{verb}", content=body, headers=headers)
    assert answer.status_code == 200, f"{answer.status_code}: {answer.text}"
    return answer


def _named(answer: httpx.Response) -> tuple[str, int]:
    return answer.headers["x-bedplate-version"], int(answer.headers["x-bedplate-snapshot"])


def raw(url: str, token: str) -> Callable[[], list[Seen]]:
    http = httpx.Client(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=60)
    media = "application/octet-stream"

    def read() -> list[Seen]:
        found = _post(http, "lookup", media, KEYS.astype("<i8").tobytes())
        vectors = np.frombuffer(found.content, "<f4", len(KEYS) * DIM).reshape(len(KEYS), DIM)
        assert all(found.content[-len(KEYS) :]), "a key was not found"
        hits = _post(http, f"search?k={K}", media, query().tobytes())
        scores = np.frombuffer(hits.content, "<f4", K, 8 * K)
        return [
            (*_named(found), set(vectors[:, 0].tolist())),
            (*_named(hits), set(scores.tolist())),
        ]

    return read


def documents(url: str, token: str) -> Callable[[], list[Seen]]:
    http = httpx.Client(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=60)
    media = "application/json"

    def read() -> list[Seen]:
        body = json.dumps({"keys": KEYS[:20].tolist()}).encode()
        answer = _post(http, "lookup", media, body)
        found = answer.json()
        assert all(found["found"])
        assert found["reference"] == f"{_named(answer)[0]}/item"
        body = json.dumps({"vectors": query().tolist(), "k": K}).encode()
        hits = _post(http, "search", media, body).json()
        return [
            (*_named(answer), {row[0] for row in found["vectors"]}),
            (
                hits["reference"].partition("/")[0],
                hits["snapshot"],
                {hit["score"] for hit in hits["hits"][0]},
            ),
        ]

    return read


MODES = {"sdk": sdk, "raw": raw, "json": documents}


def check(seen: Seen) -> str | None:
    """What is wrong with an answer; None: nothing."""
    version, snapshot, numbers = seen
    first = 10.0 * int(version.partition("@")[2]) + snapshot
    whole = numbers == {first} or numbers == {first + 1}
    return None if whole else f"{version}, snapshot {snapshot}: {sorted(numbers)}"


def main(mode: str, url: str, token: str) -> None:
    stop = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    read = MODES[mode](url, token)
    answers: dict[str, int] = {}
    mixed: list[str] = []
    failures: list[str] = []
    broken: list[str] = []
    print("reading", flush=True)
    while not stop.is_set():
        try:
            for seen in read():
                state = f"{seen[0]}/{seen[1]}"
                answers[state] = answers.get(state, 0) + 1
                wrong = check(seen)
                if wrong is not None:
                    mixed.append(wrong)
        except httpx.TransportError as error:
            broken.append(repr(error))
        except Exception as error:  # noqa: BLE001  # the test is about there being none
            failures.append(repr(error))
    report = {"answers": answers, "mixed": mixed[:5], "failures": failures[:5], "broken": broken}
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
