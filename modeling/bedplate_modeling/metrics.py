"""Metrics of ranking models, in float64.

Legend: N samples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bedplate.errors import InvalidRequest


class MetricUndefined(InvalidRequest):
    """The metric has no value for these inputs; the message says why."""

    code = "metric_undefined"
    title = "The metric is not defined for this input"


def _checked(label: ArrayLike, probability: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    label_N, score_N = np.asarray(label, np.float64), np.asarray(probability, np.float64)
    if label_N.ndim != 1 or label_N.shape != score_N.shape:
        raise MetricUndefined(f"labels {label_N.shape} and predictions {score_N.shape} must be equal vectors")
    if len(label_N) == 0:
        raise MetricUndefined("there are no samples")
    if not np.isin(label_N, (0.0, 1.0)).all():
        raise MetricUndefined("labels must be 0 or 1")
    if not np.isfinite(score_N).all():
        raise MetricUndefined("predictions must be finite")
    if label_N.min() == label_N.max():
        raise MetricUndefined(f"all {len(label_N)} labels are {label_N[0]:.0f}; both classes are needed")
    return label_N, score_N


def cross_entropy(label: ArrayLike, probability: ArrayLike) -> float:
    """Mean binary cross-entropy in nats; probabilities are clipped to [1e-7, 1 - 1e-7].

    Raises MetricUndefined for empty or unequal inputs, labels of one class, probabilities outside [0, 1].
    """
    label_N, probability_N = _checked(label, probability)
    if probability_N.min() < 0 or probability_N.max() > 1:
        raise MetricUndefined("probabilities must be in [0, 1]")
    p_N = np.clip(probability_N, 1e-7, 1 - 1e-7)
    return float(-np.mean(label_N * np.log(p_N) + (1 - label_N) * np.log1p(-p_N)))


def normalized_entropy(label: ArrayLike, probability: ArrayLike) -> float:
    """Mean cross-entropy over the entropy of the empirical label rate; lower is better, 1.0 is the base rate.

    Source: arXiv 2508.02929, evaluation section; first in He et al., "Practical Lessons from Predicting
    Clicks on Ads at Facebook" (2014). Raises MetricUndefined like ``cross_entropy``.
    """
    mean = cross_entropy(label, probability)
    rate = float(np.mean(np.asarray(label, np.float64)))
    return mean / float(-(rate * np.log(rate) + (1 - rate) * np.log1p(-rate)))


def auc(label: ArrayLike, score: ArrayLike) -> float:
    """Probability that a positive scores above a negative, ties counting one half; exact, O(N log N).

    The Mann-Whitney statistic over midranks. Raises MetricUndefined like ``cross_entropy`` (any finite score
    goes).
    """
    label_N, score_N = _checked(label, score)
    _, inverse_N, counts = np.unique(score_N, return_inverse=True, return_counts=True)
    midranks = np.cumsum(counts) - (counts - 1) / 2.0
    positives = float(label_N.sum())
    negatives = len(label_N) - positives
    rank_sum = float(midranks[inverse_N][label_N == 1].sum())
    return (rank_sum - positives * (positives + 1) / 2.0) / (positives * negatives)


def transfer_ratio(ne_expert_1: float, ne_expert_2: float, ne_fm_1: float, ne_fm_2: float) -> float:
    """(NE(expert on FM1) - NE(expert on FM2)) / (NE(FM1) - NE(FM2)): the share of the foundation's gain that
    arrives.

    Source: arXiv 2508.02929. Raises MetricUndefined if a value is not finite or the two foundations' NE are
        equal.
    """
    values = (ne_expert_1, ne_expert_2, ne_fm_1, ne_fm_2)
    if not all(np.isfinite(value) for value in values):
        raise MetricUndefined("normalized entropies must be finite")
    if ne_fm_1 == ne_fm_2:
        raise MetricUndefined("the two foundation versions have the same NE, so there is no gain to transfer")
    return (ne_expert_1 - ne_expert_2) / (ne_fm_1 - ne_fm_2)
