"""Rank correlations against SciPy's."""

import numpy as np
import pytest
from scipy import stats

from jaxnorm.study.probes.correlation import rank_correlation


def pairs(count, noise, ties=False):
    draw = np.random.default_rng(3)
    x = draw.normal(size=count)
    y = x + noise * draw.normal(size=count)
    return (np.round(x), np.round(y)) if ties else (x, y)


@pytest.mark.parametrize("ties", [False, True])
def test_it_is_spearman_s_with_scipy_s_interval(ties):
    x, y = pairs(20, 1, ties)
    found = rank_correlation(x, y)
    theirs = stats.spearmanr(x, y)
    assert found.rho == pytest.approx(theirs.statistic)
    assert found.p == pytest.approx(theirs.pvalue, abs=0.01)
    options = dict(paired=True, vectorized=False, method="percentile", n_resamples=1000, rng=np.random.default_rng(1))
    ends = stats.bootstrap((x, y), lambda x, y: stats.spearmanr(x, y).statistic, **options).confidence_interval
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high), abs=0.06)
    assert found == rank_correlation(x, y)


def test_order_alone_counts():
    x, y = pairs(12, 0.5)
    assert rank_correlation(np.exp(x), y**3) == rank_correlation(x, y)
    assert rank_correlation(-x, y).rho == pytest.approx(-rank_correlation(x, y).rho)


def test_too_few_pairs_and_constants_have_none():
    assert rank_correlation(np.arange(3), np.arange(3)) is None
    assert rank_correlation(np.ones(9), np.arange(9)) is None
