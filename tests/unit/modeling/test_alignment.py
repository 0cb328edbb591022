from __future__ import annotations

import numpy as np
import pytest

from bedplate.errors import DimensionMismatch, NonFiniteVectors
from bedplate_modeling.alignment import AlignmentUndetermined, Matrix, fit_alignment


def _vectors(rows: int, dim: int, seed: int = 0) -> Matrix:
    scale = np.linspace(2.0, 0.5, dim)
    return (np.random.default_rng(seed).normal(size=(rows, dim)) * scale).astype(np.float32)


def _rotation(dim: int) -> Matrix:
    rotation, _ = np.linalg.qr(np.random.default_rng(7).normal(size=(dim, dim)))
    return rotation.astype(np.float32)


def test_a_rotation_is_recovered() -> None:
    source, rotation = _vectors(200, 8), _rotation(8)
    alignment = fit_alignment(source, source @ rotation)
    np.testing.assert_allclose(alignment.rotation_DD, rotation, atol=1e-4)
    assert alignment.residual < 1e-5


def test_dot_products_are_kept() -> None:
    source = _vectors(50, 8)
    mapped = fit_alignment(source, _vectors(50, 8, seed=1)).apply(source)
    np.testing.assert_allclose(mapped @ mapped.T, source @ source.T, atol=1e-3)


def test_low_rank_resists_noise_in_weak_directions() -> None:
    random, rotation = np.random.default_rng(3), _rotation(16)
    clean = np.zeros((60, 16), np.float32)
    clean[:, :4] = random.normal(size=(60, 4)) * 3
    noise = [random.normal(size=clean.shape).astype(np.float32) * 0.5 for _ in range(2)]
    fitted = {rank: fit_alignment(clean + noise[0], clean @ rotation + noise[1], rank) for rank in (4, 16)}
    error = {rank: np.linalg.norm(a.apply(clean) - clean @ rotation) for rank, a in fitted.items()}
    assert error[4] < 1.05 * error[16]
    assert error[4] < 0.15 * np.linalg.norm(clean)


def test_unrelated_spaces_show_in_the_residual() -> None:
    assert fit_alignment(_vectors(500, 8), _vectors(500, 8, seed=1)).residual > 0.8


def test_bad_input() -> None:
    good = _vectors(20, 4)
    with pytest.raises(DimensionMismatch):
        fit_alignment(good, good[:, :3])
    with pytest.raises(DimensionMismatch):
        fit_alignment(good, good).apply(_vectors(3, 5))
    with pytest.raises(NonFiniteVectors):
        fit_alignment(good, np.where(good > 1, np.nan, good))
    with pytest.raises(AlignmentUndetermined, match="rank"):
        fit_alignment(good, good, rank=5)
    with pytest.raises(AlignmentUndetermined, match="common direction"):
        fit_alignment(good, np.zeros_like(good))
