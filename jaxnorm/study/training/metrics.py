"""Metrics of a split's logits: accuracy, micro and macro F1, loss, confusion matrix."""

from typing import Any, NamedTuple

import numpy as np
from scipy.special import logsumexp
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score


class Metrics(NamedTuple):
    """Metrics of one split under fixed weights; every image counts once.

    Attributes:
        accuracy: fraction of images whose largest logit is their label's.
        micro_f1: F1 over all decisions together; with one label an image it equals the accuracy.
        macro_f1: unweighted mean of the classes' F1; a class that is neither a label nor predicted counts 0.
        loss: mean cross entropy, natural logarithm, summed in float64; NaN or infinite where a logit is not finite.
        num_images: images in the split.
        confusion_matrix: (classes, classes), row = true class, column = predicted class.
    """

    accuracy: float
    micro_f1: float
    macro_f1: float
    loss: float
    num_images: int
    confusion_matrix: list[list[int]]

    def to_json(self) -> dict[str, Any]:
        """The fields by name.

        Returns:
            JSON values.
        """
        return self._asdict()


def measure(logits: np.ndarray, label: np.ndarray) -> Metrics:
    """Computes the metrics of a split.

    Args:
        logits: (N, classes), of any float dtype.
        label: (N,), integers from 0.

    Returns:
        The metrics.

    Examples:
        >>> measure(np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]]), np.array([0, 1, 1])).accuracy
        0.6666666666666666
    """
    classes = np.arange(logits.shape[1])
    predicted = logits.argmax(axis=1)
    logits = logits.astype(np.float64)
    with np.errstate(invalid="ignore"):  # of logits that are not finite; the loss then is not either
        losses = logsumexp(logits, axis=1) - logits[np.arange(len(label)), label]
    return Metrics(
        accuracy=float(accuracy_score(label, predicted)),
        micro_f1=float(f1_score(label, predicted, average="micro", labels=classes)),
        macro_f1=float(f1_score(label, predicted, average="macro", labels=classes, zero_division=0)),
        loss=float(losses.mean()),
        num_images=len(label),
        confusion_matrix=confusion_matrix(label, predicted, labels=classes).tolist(),
    )
