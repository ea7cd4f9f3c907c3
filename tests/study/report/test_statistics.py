import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from jaxnorm.study.report import statistics

FIVE = [0.2, -0.1, 0.5, 0.4, 0.3]


def test_student_interval_is_the_paired_t_test_of_scipy():
    ours = np.array([88.1, 87.9, 88.4, 88.0, 88.6])
    theirs = np.array([87.8, 87.9, 88.0, 88.1, 88.1])
    expected = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    interval = statistics.mean_interval(ours - theirs)
    assert interval.method == "Student's t"
    np.testing.assert_allclose((interval.low, interval.high), expected, rtol=1e-12)


def test_student_interval_by_hand():
    # mean 2, sd 1, n 3, t(0.975, 2) = 4.302652...: half width 4.302652 / sqrt 3
    interval = statistics.mean_interval([1.0, 2.0, 3.0])
    assert interval.high - 2 == pytest.approx(4.302652729911275 / math.sqrt(3), rel=1e-9)
    assert 2 - interval.low == pytest.approx(interval.high - 2, rel=1e-12)


@pytest.mark.parametrize(("n", "method"), [(9, "Student's t"), (10, "BCa bootstrap")])
def test_bca_begins_at_ten(n, method):
    values = np.random.default_rng(1).exponential(size=n)
    interval = statistics.mean_interval(values)
    assert interval.method == method
    assert interval.low < values.mean() < interval.high
    assert statistics.mean_interval(values) == interval  # seeded


def test_bca_is_scipys_and_leans_with_the_skew():
    values = np.random.default_rng(2).exponential(size=12)
    expected = stats.bootstrap((values,), np.mean, method="BCa", n_resamples=9999, rng=np.random.default_rng(0))
    interval = statistics.mean_interval(values)
    np.testing.assert_allclose((interval.low, interval.high), expected.confidence_interval, rtol=1e-12)
    assert interval.high - values.mean() > values.mean() - interval.low


@pytest.mark.parametrize("n", [2, 5, 10, 30])
def test_no_spread_is_a_point(n):
    interval = statistics.mean_interval([0.0] * n)
    assert (interval.low, interval.high) == (0.0, 0.0)


def test_one_seed_has_neither_interval_nor_p():
    assert statistics.mean_interval([0.3]) is None
    assert statistics.sign_flip_p([0.3]) is None


@given(st.lists(st.floats(-10, 10).filter(lambda x: abs(x) > 1e-3), min_size=2, max_size=9))
def test_sign_flip_p_is_scipys_permutation_test(differences):
    # all sign patterns of the paired samples
    test = stats.permutation_test(
        (np.array(differences),), np.mean, permutation_type="samples", n_resamples=2 ** len(differences)
    )
    p = statistics.sign_flip_p(differences)
    assert p >= 2 / 2 ** len(differences)
    # scipy doubles the smaller tail; ours counts both: the null distribution is symmetric
    assert p == pytest.approx(test.pvalue, abs=1e-9)


def test_sign_flip_p_beyond_sixteen_is_sampled_and_close():
    differences = np.random.default_rng(3).normal(0.5, 1, 20)
    exact = stats.ttest_1samp(differences, 0).pvalue
    assert statistics.sign_flip_p(differences) == pytest.approx(exact, abs=0.02)
    assert statistics.sign_flip_p(differences) == statistics.sign_flip_p(differences)
    assert statistics.sign_flip_p(np.full(20, 1.0)) >= 1e-5  # never zero


def test_five_seeds_cannot_go_below_a_sixteenth():
    assert statistics.sign_flip_p([5.0, 6.0, 7.0, 8.0, 9.0]) == 2 / 32


def test_holm_by_hand():
    # sorted 0.01 0.02 0.03 0.5 times 4 3 2 1 = 0.04 0.06 0.06 0.5
    assert statistics.holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert statistics.holm([0.6, 0.7]) == [1.0, 1.0]
    assert statistics.holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(p_values):
    adjusted = statistics.holm(p_values)
    for p, a in zip(p_values, adjusted, strict=True):
        assert p <= a <= min(1.0, len(p_values) * p) + 1e-12
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()


def test_image_interval_is_the_ordinary_bootstrap():
    rng = np.random.default_rng(4)
    differences = rng.choice([-1.0, -0.5, 0.0, 0.5, 1.0], p=[0.05, 0.05, 0.7, 0.1, 0.1], size=400)
    means = rng.choice(differences, size=(10_000, 400)).mean(axis=1)
    interval = statistics.image_interval(differences)
    np.testing.assert_allclose((interval.low, interval.high), np.quantile(means, (0.025, 0.975)), atol=0.004)
    assert statistics.image_interval(np.zeros(7)).high == 0.0


def test_standard_error_of_an_accuracy():
    assert statistics.standard_error(0.88, 10_000) == pytest.approx(0.00325, abs=1e-5)
