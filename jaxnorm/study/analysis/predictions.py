"""What a run answered to every test image, and how far its confidence can be trusted."""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from jaxnorm.files import reading


@dataclass(frozen=True, eq=False)
class Predictions:
    """What the tables need of the test images' logits, in the data set's order; every array has the shape (N,).

    Attributes:
        label: the true class.
        predicted: the class with the largest logit, the first of several.
        confidence: its probability, float32.
        log_likelihood: log p(label) in nats, float32.
    """

    label: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    log_likelihood: np.ndarray

    @classmethod
    def from_logits(cls, logits: np.ndarray, label: np.ndarray) -> "Predictions":
        """Of logits (N, C). Where one is not finite the numbers are nan, which the tables show as a dash."""
        wide = logits.astype(np.float64)
        with np.errstate(invalid="ignore"):
            shifted = wide - wide.max(axis=1, keepdims=True)
            log_probability = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return cls(
            label.astype(np.min_scalar_type(logits.shape[1] - 1)),
            logits.argmax(axis=1).astype(np.min_scalar_type(logits.shape[1] - 1)),
            np.exp(log_probability.max(axis=1)).astype(np.float32),
            np.take_along_axis(log_probability, label[:, None].astype(int), axis=1)[:, 0].astype(np.float32),
        )

    @property
    def correct(self) -> np.ndarray:
        """1.0 where the largest logit is the label's, else 0.0; shape (N,)."""
        return (self.predicted == self.label).astype(np.float64)

    @property
    def negative_log_likelihood(self) -> float:
        """-mean log p(label), in nats."""
        return float(-self.log_likelihood.mean(dtype=np.float64))

    def expected_calibration_error(self, bins: int = 15) -> float:
        """sum over bins of (n_b / N) |accuracy_b - confidence_b|, equal-width bins (Guo et al. 2017, arXiv 1706.04599).

        The confidence of an image is its largest probability; a bin holds its upper edge.
        """
        if not np.isfinite(self.confidence).all():
            return float("nan")
        # ceil puts a confidence of exactly k/bins into bin k-1, so that 1.0 falls into the last one.
        confidence = self.confidence.astype(np.float64)
        which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
        gap = np.bincount(which, weights=self.correct - confidence, minlength=bins)
        return float(np.abs(gap).sum() / len(confidence))


def read_predictions(path: Path) -> Predictions | None:
    """The predictions in `path`, or None where there is no such file. Pickles are never loaded.

    The file holds a run's logits and labels, or what `write_predictions` has made of them.

    Raises:
        UserError: if the file is damaged.
    """
    if not path.is_file():
        return None
    with reading(path), path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        label = arrays["label"]
        if "logits" not in arrays:
            found = Predictions(**{field.name: arrays[field.name] for field in fields(Predictions)})
            shapes = {getattr(found, field.name).shape for field in fields(Predictions)}
            if len(shapes) > 1 or label.ndim != 1 or len(label) == 0:
                raise ValueError(f"arrays of the shapes {sorted(shapes)} do not belong together")
            return found
        logits = arrays["logits"]
        if logits.ndim != 2 or label.shape != logits.shape[:1] or len(label) == 0:
            raise ValueError(f"logits {logits.shape} and labels {label.shape} do not belong together")
        if label.min() < 0 or label.max() >= logits.shape[1]:
            raise ValueError(f"a label lies outside the {logits.shape[1]} classes")
        return Predictions.from_logits(logits, label)


def write_predictions(path: Path, predictions: Predictions) -> None:
    """A file with the predictions in place of ten logits an image: a fifth of the bytes, and the same tables."""
    with path.open("wb") as file:
        np.savez_compressed(file, **{field.name: getattr(predictions, field.name) for field in fields(Predictions)})
