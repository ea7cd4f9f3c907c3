"""How features are distributed: quantiles of a layer's activations over a whole split."""

from collections.abc import Sequence

import numpy as np

PERCENTAGES = (1.0, 20.0, 80.0, 99.0)


def feature_quantiles(features: np.ndarray, percentages: Sequence[float] = PERCENTAGES) -> list[float]:
    """Exact quantiles of all values of `features` together, linear between neighbours.

    Args:
        features: activations of any shape; the study takes the pooled ones, (images, 64), in evaluation mode.
        percentages: within 0..100.

    Example:
        >>> feature_quantiles(np.arange(101.0), (1, 50))
        [1.0, 50.0]
    """
    return [float(value) for value in np.quantile(features.astype(np.float64), np.asarray(percentages) / 100)]
