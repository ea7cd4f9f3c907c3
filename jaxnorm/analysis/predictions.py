"""What a run answered to every test image, and how far its confidence can be trusted."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from jaxnorm.files import reading


@dataclass(frozen=True, eq=False)
class Predictions:
    """Logits (N, C) and labels (N,) of the test images, in the data set's order."""

    logits: np.ndarray
    label: np.ndarray

    @cached_property
    def correct(self) -> np.ndarray:
        """1.0 where the largest logit is the label's, else 0.0; shape (N,)."""
        return (self.logits.argmax(axis=1) == self.label).astype(np.float64)

    @cached_property
    def log_probability(self) -> np.ndarray:
        """log softmax of the logits in float64, shape (N, C)."""
        logits = self.logits.astype(np.float64)
        with np.errstate(invalid="ignore"):  # logits that are not finite give nan here, which the tables show as a dash
            shifted = logits - logits.max(axis=1, keepdims=True)
            return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))

    @property
    def negative_log_likelihood(self) -> float:
        """-mean log p(label), in nats."""
        return float(-np.take_along_axis(self.log_probability, self.label[:, None].astype(int), axis=1).mean())

    def expected_calibration_error(self, bins: int = 15) -> float:
        """sum over bins of (n_b / N) |accuracy_b - confidence_b|, equal-width bins (Guo et al. 2017, arXiv 1706.04599).

        The confidence of an image is its largest probability; a bin holds its upper edge.
        """
        confidence = np.exp(self.log_probability.max(axis=1))
        if not np.isfinite(confidence).all():
            return float("nan")
        # ceil puts a confidence of exactly k/bins into bin k-1, so that 1.0 falls into the last one.
        which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
        gap = np.bincount(which, weights=self.correct - confidence, minlength=bins)
        return float(np.abs(gap).sum() / len(confidence))


def read_predictions(path: Path) -> Predictions | None:
    """The predictions in `path`, or None where there is no such file. Pickles are never loaded.

    Raises:
        UserError: if the file is damaged.
    """
    if not path.is_file():
        return None
    with reading(path), path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        logits, label = arrays["logits"], arrays["label"]
        if logits.ndim != 2 or label.shape != logits.shape[:1] or len(label) == 0:
            raise ValueError(f"logits {logits.shape} and labels {label.shape} do not belong together")
        if label.min() < 0 or label.max() >= logits.shape[1]:
            raise ValueError(f"a label lies outside the {logits.shape[1]} classes")
        return Predictions(logits, label)
