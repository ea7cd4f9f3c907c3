import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jaxnorm.study.report import statistics


def test_t_interval_is_the_paired_t_test_of_scipy():
    ours = np.array([88.1, 87.9, 88.4, 88.0, 88.6])
    theirs = np.array([87.8, 87.9, 88.0, 88.1, 88.1])
    for level in (0.9, 0.95):
        expected = stats.ttest_rel(ours, theirs).confidence_interval(level)
        interval = statistics.mean_interval(ours - theirs, level)
        np.testing.assert_allclose((interval.low, interval.high), expected, rtol=1e-12)


def test_t_interval_by_hand():
    # mean 2.5, variance 5/3, n 4, t(0.975, 3) = 3.182446...
    interval = statistics.mean_interval([1.0, 2.0, 3.0, 4.0])
    assert interval.high - 2.5 == pytest.approx(3.182446305284263 * math.sqrt(5 / 3 / 4), rel=1e-9)


@pytest.mark.parametrize("values", [[0.3], [0.3, 0.4], [0.3, 0.4, 0.5], [0.9] * 5])
def test_too_few_values_and_no_spread_have_no_interval(values):
    assert statistics.mean_interval(values) is None


def accuracies(rng, seeds, error, variation, images):
    """Test accuracies of some seeds: errors with a skewed spread, and the choice of the images."""
    errors = rng.gamma(variation**-2, error * variation**2, size=seeds)
    return rng.binomial(images, 1 - errors.clip(0, 1)) / images


@pytest.mark.parametrize("seeds", [4, 5, 10])
@pytest.mark.parametrize(("images", "error", "variation"), [(360, 0.0075, 0.4), (360, 0.06, 0.3), (10_000, 0.12, 0.03)])
def test_intervals_over_seeds_cover(seeds, images, error, variation):
    rng, hits = np.random.default_rng(0), []
    for _ in range(500):
        ours, theirs = (accuracies(rng, seeds, error, variation, images) for _ in "ab")
        for values, truth in ((ours, 1 - error), (ours - theirs, 0.0)):
            if interval := statistics.mean_interval(values):
                hits.append(interval.low <= truth <= interval.high)
    assert len(hits) > 950 and 0.93 <= np.mean(hits) <= 0.975


def gains(rng, seeds, images, error, lost=0.0):
    """Correct less correct by seed and image: images differ in difficulty, seeds in skill, one side errs more."""
    hard = rng.beta(3 * error, 3 * (1 - error), size=images)
    ours, theirs = (hard * rng.gamma(100, 0.01, size=(seeds, 1)) for _ in "ab")
    return (rng.random(ours.shape) >= ours + lost).astype(float) - (rng.random(theirs.shape) >= theirs)


@pytest.mark.parametrize(("seeds", "images", "error"), [(4, 360, 0.03), (10, 360, 0.03), (10, 2000, 0.12)])
def test_intervals_over_seeds_and_images_cover(seeds, images, error):
    rng = np.random.default_rng(1)
    found = [statistics.crossed_interval(gains(rng, seeds, images, error)) for _ in range(400)]
    assert 0.925 <= np.mean([one.low <= 0 <= one.high for one in found]) <= 0.985


def test_the_crossed_variance_is_that_of_its_parts():
    rng, seeds, images = np.random.default_rng(2), 400, 300
    table = rng.normal(0, 0.3, (seeds, 1)) + rng.normal(0, 0.5, images) + rng.normal(0, 1, (seeds, images))
    interval = statistics.crossed_interval(table)
    expected = math.sqrt(0.3**2 / seeds + 0.5**2 / images + 1 / seeds / images)
    assert (interval.high - interval.low) / 2 / 1.96 == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("images", [360, 10_000])
@pytest.mark.parametrize(("better", "worse"), [(0.01, 0.01), (0.06, 0.05), (0.02, 0.0), (0.0, 0.85)])
def test_intervals_over_the_images_of_one_seed_cover(images, better, worse):
    rng, hits = np.random.default_rng(3), []
    for one, other, _ in rng.multinomial(images, (better, worse, 1 - better - worse), size=500):
        interval = statistics.image_interval(np.repeat([1, -1, 0], [one, other, images - one - other]))
        hits.append(interval.low <= better - worse <= interval.high)
    assert 0.93 <= np.mean(hits) <= 0.995  # few images differ: it errs on the safe side


@pytest.mark.parametrize(("better", "worse"), [(4, 0), (5, 0), (6, 0), (7, 1), (8, 1), (9, 2), (10, 2), (30, 20)])
def test_the_interval_over_images_agrees_with_the_exact_test(better, worse):
    table = np.repeat([1, -1, 0], [better, worse, 360 - better - worse])
    assert (statistics.image_interval(table).low > 0) == (statistics.mcnemar_p(table) <= 0.05)


def test_mcnemar_by_hand():
    assert statistics.mcnemar_p(np.array([1, 1, 1, 1, 0])) == 0.125
    assert statistics.mcnemar_p(np.array([1] * 5 + [-1])) == pytest.approx(2 * 7 / 64)
    assert statistics.mcnemar_p(np.zeros(9)) == 1.0


@pytest.mark.parametrize(("seeds", "alternative"), [(8, "two-sided"), (10, "two-sided"), (10, "less")])
def test_no_difference_is_found_in_one_family_of_twenty(seeds, alternative):
    # Five variants against one baseline, without any effect: in how many studies does a verdict say otherwise?
    rng, false = np.random.default_rng(4), 0
    for _ in range(300):
        base, *others = (accuracies(rng, seeds, 0.0075, 0.4, 360) for _ in range(6))
        found = [statistics.sign_flip_p(one - base, alternative) for one in others]
        false += min(statistics.holm(found)) <= statistics.ALPHA
    assert false / 300 <= 0.05 + 0.02  # two standard errors of the simulation


def test_what_differs_by_the_margin_is_rarely_called_equal():
    rng, margin = np.random.default_rng(5), 0.01
    found = [statistics.crossed_interval(gains(rng, 10, 2000, 0.05, lost=margin), 0.9) for _ in range(400)]
    # a loss that is added to the error of every image, where that stays below one
    assert np.mean([max(-one.low, one.high) < margin for one in found]) <= 0.05 + 0.02


def test_the_difference_that_seeds_can_show():
    rng, shift = np.random.default_rng(6), statistics.detectable(10, 0.4, tests=3)
    drawn = rng.normal(shift, 0.4, (20_000, 10))
    assert (stats.ttest_1samp(drawn, 0, axis=1).pvalue <= 0.05 / 3).mean() == pytest.approx(0.8, abs=0.01)
    assert statistics.detectable(5, 0.4) == math.inf > statistics.detectable(6, 0.4)


def test_wilsons_interval_is_scipys_and_that_of_a_mean_over_seeds_covers():
    for right in (0, 7, 355, 360):
        ours, theirs = statistics.wilson(right / 360, 360), stats.binomtest(right, 360).proportion_ci(method="wilson")
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    rng, hits, truth = np.random.default_rng(7), [], 0.97
    for _ in range(400):  # ten seeds, whose errors are mostly on the same images
        hard = rng.beta(0.1 * (1 - truth), 0.1 * truth, size=360)
        found = statistics.wilson((rng.random((10, 360)) >= hard).mean(), 360)
        hits.append(found.low <= truth <= found.high)
    assert np.mean(hits) >= 0.93


def test_one_seed_has_no_p():
    assert statistics.sign_flip_p([0.3]) is None


@settings(deadline=None, derandomize=True)
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


@settings(deadline=None, derandomize=True)
@given(st.lists(st.floats(-10, 10).filter(lambda x: abs(x) > 1e-3), min_size=2, max_size=9))
def test_one_sided_sign_flip_p_is_scipys(differences):
    for alternative in ("less", "greater"):
        test = stats.permutation_test(
            (np.array(differences),), np.mean, permutation_type="samples", n_resamples=2 ** len(differences),
            alternative=alternative,
        )  # fmt: skip
        assert statistics.sign_flip_p(differences, alternative) == pytest.approx(test.pvalue, abs=1e-9)


def test_holm_by_hand():
    # sorted 0.01 0.02 0.03 0.5 times 4 3 2 1 = 0.04 0.06 0.06 0.5
    assert statistics.holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert statistics.holm([0.6, 0.7]) == [1.0, 1.0]
    assert statistics.holm([]) == []


@settings(deadline=None, derandomize=True)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(p_values):
    adjusted = statistics.holm(p_values)
    for p, a in zip(p_values, adjusted, strict=True):
        assert p <= a <= min(1.0, len(p_values) * p) + 1e-12
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()
