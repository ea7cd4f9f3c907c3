"""Whether a network's probabilities can be believed, from the saved predictions of finished runs. Imports no JAX."""

from typing import Any

import numpy as np
import pandas as pd

from jaxnorm.study.report.frames import Study
from jaxnorm.study.report.statistics import Interval, crossed_interval, mean_interval

BINS = 15
"""Bins of equal width for the calibration error, as in Guo et al. 2017 (arXiv 1706.04599)."""
DRAWS = 200


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """The expected calibration error: sum over bins of (n_b / N) |mean confidence_b - accuracy_b|.

    Args:
        confidence: (N,), the probability of the predicted class, 0 to 1.
        right: (N,), whether the prediction is right.

    Returns:
        From 0 to 1.

    References:
        Guo et al. 2017, arXiv 1706.04599.

    Examples:
        >>> round(calibration_error(np.full(4, 0.9), np.array([1, 1, 1, 0])), 3)
        0.15
    """
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(place, np.asarray(confidence, float) - right, BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def calibrated_error(confidence: np.ndarray) -> float:
    """The expected calibration error that a perfectly calibrated network would show on so many images.

    It is not zero, because accuracies of a few images in a bin differ from their probability.

    Args:
        confidence: (N,), the probability of the predicted class.

    Returns:
        The mean over 200 draws in which each prediction is right with its own probability; always the same.
    """
    draw = np.random.default_rng(0)
    rights = draw.random((DRAWS, len(confidence))) < confidence
    return float(np.mean([calibration_error(confidence, right) for right in rights]))


def calibration(study: Study) -> pd.DataFrame:
    """How well the test predictions of each variant's finished runs are calibrated.

    Args:
        study: with predictions, a workdir or a publication.

    Returns:
        A row for each variant with a finished run: `variant`, `norm`, `label`, `seeds`, `images`, `accuracy`,
        `confidence`, `nll` (nats), `brier` (mean of (confidence - right)^2, of the predicted class), `ece`,
        `ece_calibrated` (see `calibrated_error`), all means over seeds; and `nll_interval`, `brier_interval` (for
        another seed and other test images; with one seed for other images alone) and `ece_interval` (Student's t over
        seeds, for these images), each an `Interval` or None.

    Raises:
        UserError: if a file of predictions is damaged.
    """
    found = []
    for variant, runs in study.finished.groupby("variant", sort=False):
        tables = [study.predictions(name) for name in runs.name]
        right = np.array([table.predicted == table.label for table in tables])
        confidence = np.array([table.confidence for table in tables], float)
        nll = -np.array([table.log_likelihood for table in tables], float)
        brier = (confidence - right) ** 2
        errors = [calibration_error(*one) for one in zip(confidence, right, strict=True)]
        found.append(
            {
                "variant": variant,
                "norm": runs.norm.iloc[0],
                "label": str(runs.label.iloc[0]),
                "seeds": len(runs),
                "images": right.shape[1],
                "accuracy": right.mean(),
                "confidence": confidence.mean(),
                "nll": nll.mean(),
                "brier": brier.mean(),
                "ece": np.mean(errors),
                "ece_calibrated": np.mean([calibrated_error(one) for one in confidence]),
                "nll_interval": _interval(nll),
                "brier_interval": _interval(brier),
                "ece_interval": mean_interval(errors),
            }
        )
    return pd.DataFrame(found)


def reliability(study: Study) -> pd.DataFrame:
    """Accuracy by confidence, over all seeds of a variant.

    Args:
        study: as for `calibration`.

    Returns:
        A row for each variant and bin that has predictions: `norm`, `label`, mean `confidence`, `accuracy`, `count`.
    """
    rows: list[dict[str, Any]] = []
    for _, runs in study.finished.groupby("variant", sort=False):
        table = pd.concat([study.predictions(name) for name in runs.name])
        place = np.minimum((table.confidence.astype(float) * BINS).astype(int), BINS - 1)
        bins = table.assign(right=table.predicted == table.label).groupby(place)
        one = bins.agg(confidence=("confidence", "mean"), accuracy=("right", "mean"), count=("right", "size"))
        rows += one.assign(norm=runs.norm.iloc[0], label=str(runs.label.iloc[0])).to_dict("records")
    return pd.DataFrame(rows)


def _interval(values: np.ndarray) -> Interval | None:
    """For the mean of `values`, (seeds, images)."""
    return crossed_interval(values) if len(values) > 1 else mean_interval(values[0])
