"""Intervals and tests over seeds and over test images: arrays in, numbers out."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special  # scipy.stats would take a quarter of the memory of a report

LEAST_SEEDS = 4
"""Seeds from which an interval over seeds is given: two or three accuracies near 99 % are too often the same number."""
EXACT_UP_TO = 16
"""Seeds up to which all 2^n sign patterns are tried; beyond, 100,000 random ones."""
ALPHA = 0.05
"""The level of every test."""


@dataclass(frozen=True)
class Interval:
    """An interval for a mean or a difference.

    Attributes:
        low: lower end.
        high: upper end.
        method: how it was made.
    """

    low: float
    high: float
    method: str

    @property
    def excludes_zero(self) -> bool:
        """Whether zero is outside."""
        return self.low > 0 or self.high < 0


def wilson(accuracy: float, num_images: int) -> Interval:
    """Wilson's 95 % interval of an `accuracy` on N = `num_images`: it has a width at 100 % too.

    A mean over seeds needs no whole number of successes: an image's mean over them varies less than a single answer,
    so that the interval for other images is never too narrow.

    Examples:
        >>> round(wilson(1.0, 360).low, 4)
        0.9894
    """
    square = special.ndtri(0.975) ** 2 / num_images
    middle, half = accuracy + square / 2, math.sqrt(square * (accuracy * (1 - accuracy) + square / 4))
    return Interval(float((middle - half) / (1 + square)), float((middle + half) / (1 + square)), "Wilson")


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval | None:
    """Student's t interval of the mean of `values` at a `level`; None for fewer than 4, or without any spread.

    Of paired differences it is the paired interval.
    """
    array = np.asarray(values, dtype=np.float64)
    if len(array) < LEAST_SEEDS or np.ptp(array) == 0:
        return None
    half = float(special.stdtrit(len(array) - 1, (1 + level) / 2) * array.std(ddof=1) / math.sqrt(len(array)))
    return Interval(float(array.mean() - half), float(array.mean() + half), "Student's t")


def image_interval(differences: np.ndarray, level: float = 0.95) -> Interval:
    """Interval over test images of one seed's paired `differences`, shape (N,), of values -1, 0 and 1.

    Bonett and Price (2012): the normal interval after adding one image in favour of each side. Unlike the plain one it
    agrees with the exact test where few images differ.
    """
    array = np.append(np.asarray(differences, dtype=np.float64), (1, -1))
    half = float(special.ndtri((1 + level) / 2) * array.std() / math.sqrt(len(array)))
    return Interval(float(array.mean() - half), float(array.mean() + half), "Bonett and Price")


def crossed_interval(differences: np.ndarray, level: float = 0.95) -> Interval:
    """Interval for another seed and other test images, of paired `differences`, shape (S, N), of two seeds or more.

    Seeds and images are crossed random effects; degrees of freedom after Satterthwaite (1946).
    """
    seeds, images = differences.shape
    mean, by_seed, by_image = differences.mean(), differences.mean(1), differences.mean(0)
    rest = differences - by_seed[:, None] - by_image + mean
    freedom = np.array([seeds - 1, images - 1, (seeds - 1) * (images - 1)])
    sums = np.array([images * ((by_seed - mean) ** 2).sum(), seeds * ((by_image - mean) ** 2).sum(), (rest**2).sum()])
    squares = sums / freedom
    variance = max(squares[0] + squares[1] - squares[2], squares[0], squares[1])
    of_variance = float((squares**2 / freedom).sum())
    half = 0.0
    if of_variance > 0:
        edge = special.stdtrit(variance**2 / of_variance, (1 + level) / 2)
        half = float(edge * math.sqrt(variance / differences.size))
    return Interval(float(mean - half), float(mean + half), "crossed random effects")


def mcnemar_p(differences: np.ndarray) -> float:
    """Two-sided p of McNemar's exact test on one seed's paired `differences`, of values -1, 0 and 1.

    Examples:
        >>> mcnemar_p(np.array([1, 1, 1, 1, 0, 0]))
        0.125
    """
    ours, theirs = int((differences > 0).sum()), int((differences < 0).sum())
    return min(1.0, 2 * float(special.bdtr(min(ours, theirs), ours + theirs, 0.5)))


def sign_flip_p(differences: Sequence[float], alternative: str = "two-sided") -> float | None:
    """p of the paired sign-flip test: the share of sign patterns whose |mean| reaches the observed one.

    Exact up to 16 differences, 100,000 seeded random patterns beyond (the observed one counted in). Not below 2 / 2^n:
    five seeds cannot go below 0.0625. Where the `alternative` is less or greater instead of two-sided, the mean counts
    without its absolute value, and p is not below 1 / 2^n.

    `differences` are one number a seed; None for fewer than two.

    Examples:
        >>> sign_flip_p([1.0, 2.0, 3.0, 4.0, 5.0])
        0.0625
    """
    array = np.asarray(differences, dtype=np.float64)
    if len(array) < 2:
        return None
    reach = {"two-sided": np.abs, "less": np.negative, "greater": np.positive}[alternative]
    least = reach(array.sum()) - 1e-12 * np.abs(array).sum()  # patterns that tie but for rounding count as reaching it
    if len(array) <= EXACT_UP_TO:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=len(array))))
        return float((reach(signs @ array) >= least).mean())
    draw, reached = np.random.default_rng(0), 0
    for part in range(40):  # 100,000 patterns, a few at a time: those of 200 seeds would take 300 MB
        signs = draw.choice((1.0, -1.0), size=(2500, len(array)))
        if part == 0:
            signs[0] = 1  # the observed one
        reached += int((reach(signs @ array) >= least).sum())
    return reached / 100_000


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


def detectable(seeds: int, deviation: float, tests: int = 1, power: float = 0.8) -> float:
    """The true difference that `seeds` pairs show with a `power`, at a standard `deviation` of the differences.

    Of Student's two-sided t test at 5 % over `tests`, the first step of Holm; infinite where the sign-flip test's
    smallest p, 2 / 2^n, is above that.

    Examples:
        >>> round(detectable(10, 0.5), 2), detectable(5, 0.5)
        (0.5, inf)
    """
    level = ALPHA / tests
    if seeds < 2 or 2 / 2**seeds > level:
        return math.inf
    edge = special.stdtrit(seeds - 1, 1 - level / 2)
    return float(special.nctdtrinc(seeds - 1, 1 - power, edge) * deviation / math.sqrt(seeds))
