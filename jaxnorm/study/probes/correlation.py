"""Rank correlation over norms, with an interval. Imports no JAX."""

from typing import Any, NamedTuple

import numpy as np
from scipy import stats

RESAMPLES = 10_000
LEAST_PAIRS = 4
"""Pairs from which a correlation is given."""


class RankCorrelation(NamedTuple):
    """Spearman's correlation of two quantities.

    Attributes:
        rho: from -1 to 1.
        low: lower end of the 95 % interval, the bootstrap's percentile over pairs.
        high: upper end.
        p: two-sided, of no correlation, over 10,000 random permutations, or over all where these are fewer.
        pairs: how many.
    """

    rho: float
    low: float
    high: float
    p: float
    pairs: int


def rank_correlation(x: np.ndarray, y: np.ndarray) -> RankCorrelation | None:
    """Spearman's rank correlation. The same numbers give the same interval.

    Args:
        x: (N,), finite numbers.
        y: (N,), as `x`; pairs belong together.

    Returns:
        The correlation; None for fewer than 4 pairs, or where a quantity is constant.

    Examples:
        >>> found = rank_correlation(np.arange(8.0), np.exp(np.arange(8.0)))
        >>> round(found.rho, 6), found.p < 0.001, found.pairs
        (1.0, True, 8)
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if len(x) < LEAST_PAIRS or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    draw = np.random.default_rng(0)
    places = draw.integers(0, len(x), (RESAMPLES, len(x)))
    low, high = np.nanquantile(_rho(x[places], y[places]), (0.025, 0.975))

    def statistic(x: np.ndarray, axis: int) -> np.ndarray:  # noqa: ARG001  (the last one)
        return _rho(x, y)

    pairings: dict[str, Any] = dict(permutation_type="pairings", n_resamples=RESAMPLES, vectorized=True, rng=draw)
    tested = stats.permutation_test((x,), statistic, **pairings)
    return RankCorrelation(float(_rho(x, y)), float(low), float(high), float(tested.pvalue), len(x))


def _rho(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spearman's correlation along the last axis: Pearson's of the ranks; nan where one is constant."""
    ranks = (stats.rankdata(values, axis=-1) for values in (x, y))
    x, y = (rank - rank.mean(-1, keepdims=True) for rank in ranks)
    with np.errstate(invalid="ignore"):
        return (x * y).sum(-1) / np.sqrt((x**2).sum(-1) * (y**2).sum(-1))
