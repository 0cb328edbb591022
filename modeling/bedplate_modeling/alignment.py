# ruff: noqa: N815  # tensors carry shape suffixes: x_BLD
"""Alignment of two spaces of equal dimension by a rotation, so that readers of one can use vectors of the
other.

Embedding spaces of two versions differ by an arbitrary rotation even when the models agree. The orthogonal
map that brings common entities closest keeps every dot product within the source space. Fitting it on
low-rank approximations keeps the noise directions from steering it. Sources: Schoenemann, "A generalized
solution of the orthogonal Procrustes problem" (1966); low-rank SVD before Procrustes as in Netflix's account
of its embedding store.

Legend: N entities known to both spaces, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bedplate.errors import DimensionMismatch, InvalidRequest, NonFiniteVectors

Matrix = NDArray[np.float32]


class AlignmentUndetermined(InvalidRequest):
    """There are too few common entities, or they span too few directions."""

    code = "alignment_undetermined"
    title = "The alignment cannot be determined"


@dataclass(frozen=True)
class Alignment:
    """A map from a source space into a target space.

    Attributes:
        rotation_DD: float32 [D, D], orthogonal; a source vector (row) times it lies in the target space.
        rank: of the approximations it was fitted on.
        residual: relative Frobenius error on the fitted entities, 0 = perfect, about 1.41 = unrelated.
    """

    rotation_DD: Matrix
    rank: int
    residual: float

    def apply(self, vectors_ND: Matrix) -> Matrix:
        """float32 [N, D] in the target space; dot products among the vectors are kept. Raises
        DimensionMismatch."""
        if vectors_ND.ndim != 2 or vectors_ND.shape[1] != len(self.rotation_DD):
            raise DimensionMismatch(f"vectors {vectors_ND.shape} do not fit width {len(self.rotation_DD)}")
        return np.asarray(vectors_ND @ self.rotation_DD, np.float32)


def fit_alignment(source_ND: Matrix, target_ND: Matrix, rank: int | None = None) -> Alignment:
    """argmin over orthogonal R of |S R - T|, with S and T the rank-``rank`` approximations (default: full).

    Rows are the same entities in both spaces. Raises DimensionMismatch for unequal or non-matrix shapes,
    NonFiniteVectors, AlignmentUndetermined for a rank outside 1..min(N, D) or without common directions.
    """
    if source_ND.ndim != 2 or source_ND.shape != target_ND.shape:
        raise DimensionMismatch(
            f"source {source_ND.shape} and target {target_ND.shape} must be equal matrices"
        )
    if not (np.isfinite(source_ND).all() and np.isfinite(target_ND).all()):
        raise NonFiniteVectors("vectors to be aligned must be finite")
    largest = min(source_ND.shape)
    rank = largest if rank is None else rank
    if not 1 <= rank <= largest:
        raise AlignmentUndetermined(f"rank {rank} is not in 1..{largest}")
    source, target = _low_rank(source_ND, rank), _low_rank(target_ND, rank)
    left, strengths, right = np.linalg.svd(source.T @ target)
    if strengths[0] == 0.0:
        raise AlignmentUndetermined("the two spaces have no common direction on these entities")
    rotation = left @ right
    wanted = target_ND.astype(np.float64)
    error = np.linalg.norm(source_ND.astype(np.float64) @ rotation - wanted) / np.linalg.norm(wanted)
    return Alignment(rotation.astype(np.float32), rank, float(error))


def _low_rank(vectors_ND: Matrix, rank: int) -> NDArray[np.float64]:
    left, strengths, right = np.linalg.svd(vectors_ND.astype(np.float64), full_matrices=False)
    return np.asarray((left[:, :rank] * strengths[:rank]) @ right[:rank])
