"""Intervals and paired tests over seeds and over test images: arrays in, numbers out."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

BCA_FROM = 10
"""Seeds from which the BCa bootstrap covers well; five values have 126 distinct resamples, too few."""
EXACT_UP_TO = 16
"""Seeds up to which all 2^n sign patterns are tried; beyond, 100,000 random ones."""


@dataclass(frozen=True)
class Interval:
    """A 95 % interval.

    Attributes:
        low: lower end.
        high: upper end.
        method: how it was made.
    """

    low: float
    high: float
    method: str


def standard_error(accuracy: float, num_images: int) -> float:
    """sqrt(p (1 - p) / N): the noise that the choice of N = `num_images` puts on p, an `accuracy`."""
    return math.sqrt(max(accuracy * (1 - accuracy), 0.0) / num_images)


def mean_interval(values: Sequence[float]) -> Interval | None:
    """95 % interval of the mean: Student's t below 10 `values`, BCa bootstrap (Efron 1987) from there; None for one.

    Of paired differences it is the paired interval. Resampling is seeded: equal values give equal intervals.
    """
    array = np.asarray(values, dtype=np.float64)
    if len(array) < 2:
        return None
    mean = float(array.mean())
    method = "Student's t" if len(array) < BCA_FROM else "BCa bootstrap"
    if np.ptp(array) == 0:  # no spread: both methods end at the mean, but divide by zero on the way
        return Interval(mean, mean, method)
    if len(array) < BCA_FROM:
        half = float(stats.t.ppf(0.975, len(array) - 1)) * float(array.std(ddof=1)) / math.sqrt(len(array))
        return Interval(mean - half, mean + half, method)
    found = stats.bootstrap(
        (array,), np.mean, n_resamples=9999, confidence_level=0.95, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    return Interval(float(found.low), float(found.high), method)


def sign_flip_p(differences: Sequence[float]) -> float | None:
    """Two-sided p of the paired sign-flip test: the share of sign patterns whose |mean| reaches the observed one.

    Exact up to 16 differences, 100,000 seeded random patterns beyond (the observed one counted in). Not below 2 / 2^n:
    five seeds cannot go below 0.0625.

    `differences` are one number a seed; None for fewer than two.

    Examples:
        >>> sign_flip_p([1.0, 2.0, 3.0, 4.0, 5.0])
        0.0625
    """
    array = np.asarray(differences, dtype=np.float64)
    if len(array) < 2:
        return None
    least = abs(array.sum()) * (1 - 1e-12)  # patterns that tie but for rounding count as reaching it
    if len(array) <= EXACT_UP_TO:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=len(array))))
        return float((np.abs(signs @ array) >= least).mean())
    signs = np.random.default_rng(0).choice((1.0, -1.0), size=(99_999, len(array)))
    return float((1 + (np.abs(signs @ array) >= least).sum()) / 100_000)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979) of m `p_values`, in their order: p_(i) (m - i + 1), monotone, at most 1.

    Examples:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def image_interval(differences: np.ndarray, num_resamples: int = 10_000) -> Interval:
    """95 % percentile bootstrap of the mean over images of paired `differences`, shape (N,).

    They take few values (correct minus correct, averaged over the seeds), so that each of `num_resamples` resamples of
    the images is one multinomial draw over those values: the same distribution, at a thousandth of the work.
    """
    values, counts = np.unique(np.asarray(differences, dtype=np.float64), return_counts=True)
    draws = np.random.default_rng(0).multinomial(counts.sum(), counts / counts.sum(), size=num_resamples)
    low, high = np.quantile(draws @ values / counts.sum(), (0.025, 0.975))
    return Interval(float(low), float(high), "bootstrap over test images")
