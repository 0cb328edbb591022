"""What the bare application answers: the limits are of the same work, or they say nothing."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest
from benchmarks.bare_work import Lookup, Rows, Search, describe, described
from numpy.typing import NDArray

DIM = 8
KEYS = np.arange(0, 600, 3)


@pytest.fixture
def vectors() -> NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal((len(KEYS), DIM), np.float32)


@pytest.fixture
def files(tmp_path: Path, vectors: NDArray[np.float32]) -> dict[str, str]:
    index = faiss.index_factory(DIM, "IVF4,Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    faiss.write_index(index, str(tmp_path / "index"))
    vectors.tofile(tmp_path / "vectors")
    np.save(tmp_path / "keys.npy", KEYS)
    np.save(tmp_path / "mask.npy", KEYS % 2 == 0)
    names = {"index": "index", "vectors": "vectors", "keys": "keys.npy", "selected": "mask.npy"}
    return {name: str(tmp_path / file) for name, file in names.items()}


def test_rows_by_their_numbers(files: dict[str, str], vectors: NDArray[np.float32], tmp_path: Path) -> None:
    path = describe(Rows(files["vectors"], "float32", DIM), tmp_path / "work.json")
    assert described(path)(np.array([5, 0]).tobytes()) == vectors[[5, 0]].tobytes()


def test_rows_by_their_keys_and_which_there_are(
    files: dict[str, str], vectors: NDArray[np.float32], tmp_path: Path
) -> None:
    path = describe(Lookup(files["vectors"], "float32", DIM, files["keys"]), tmp_path / "work.json")
    answer = described(path)(np.array([9, 10, 10**6]).tobytes())
    assert answer[: 4 * DIM] == vectors[3].tobytes()
    assert answer[3 * 4 * DIM :] == bytes([1, 0, 0])


@pytest.mark.parametrize("by_key", [False, True])
@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("refine_factor", [None, 2.0])
def test_the_nearest_rows(
    files: dict[str, str],
    vectors: NDArray[np.float32],
    tmp_path: Path,
    by_key: bool,
    filtered: bool,
    refine_factor: float | None,
) -> None:
    k, asked = 3, np.array([10, 4])
    work = Search(
        index=files["index"],
        index_kind="ivf",
        vectors=files["vectors"],
        dim=DIM,
        keys=files["keys"],
        k=k,
        ef=4,  # all lists
        refine_factor=refine_factor,
        selected=files["selected"] if filtered else None,
        by_key=by_key,
        threads=1,
    )
    answer = described(describe(work, tmp_path / "work.json"))(
        KEYS[asked].tobytes() if by_key else vectors[asked].tobytes()
    )
    scores = vectors[asked] @ vectors.T
    if filtered:
        scores[:, KEYS % 2 == 1] = -np.inf
    nearest = np.argsort(-scores, axis=1)[:, by_key : k + by_key]  # by key one is dropped: the nearest
    assert np.frombuffer(answer[: 8 * k * 2], np.int64).reshape(2, k).tolist() == KEYS[nearest].tolist()
    found = np.frombuffer(answer[8 * k * 2 :], np.float32).reshape(2, k)
    np.testing.assert_allclose(found, np.take_along_axis(scores, nearest, 1), rtol=1e-5)
