"""What the files of a run must say alike: the plan, its configuration, its epochs and its outcome."""

import hashlib
import io
import math
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import log_softmax

from jaxnorm import files
from jaxnorm.study.config import REVISABLE
from jaxnorm.study.runs.manifest import Manifest

SPLITS = ("train", "validation", "test")
STATUSES = ("complete", "diverged", "crashed")
MAY_DIFFER = (*REVISABLE, "stop_after_epoch")
"""Fields of a run's configuration that its study's plan may have otherwise, since they may change on the way."""
FRACTIONS = ("train_accuracy", "val_accuracy", "val_macro_f1")
PREDICTIONS = "predictions.npz"
MOST_UNPACKED = 2**31
"""Bytes that the arrays of one file may have in memory."""
Object = Mapping[str, Any]


class Recorded(NamedTuple):
    """What the files of a run say.

    Attributes:
        config: its configuration.
        provenance: what it was trained on.
        rows: its epochs.
        result: its outcome; None while there is none.
        labels: SHA-256 of the labels of its test images; None for a run that is not complete.
    """

    config: dict[str, Any]
    provenance: dict[str, Any]
    rows: list[dict[str, Any]]
    result: dict[str, Any] | None
    labels: str | None = None


def read_run(manifest: Manifest, planned: Object) -> Recorded | None:
    """Reads the files of a run and checks them: each against its hash, and all against each other and the plan.

    Args:
        manifest: of the run.
        planned: as for `check_run`.

    Returns:
        What they say; None if the run has only just begun.

    Raises:
        UserError: naming what is damaged, gone, or of another run.
    """
    manifest.check()
    config, provenance = manifest.json("config.json"), manifest.json("provenance.json")
    if config is None or provenance is None:
        return None
    rows, result, labels = manifest.lines(), manifest.json("result.json"), None
    with files.reading(manifest.folder):
        check_run(planned, config, provenance, rows, result)
        if result is not None and result["status"] == "complete":
            label, predicted, _, log_likelihood = answers(unpacked(manifest.content(PREDICTIONS)))
            labels = check_predictions(result, label, predicted, log_likelihood)
    return Recorded(config, provenance, rows, result, labels)


def unpacked(content: bytes) -> dict[str, np.ndarray]:
    """The arrays of an .npz file. Pickles are refused, and what would not fit into memory.

    Args:
        content: of the file.

    Returns:
        Arrays by name.

    Raises:
        ValueError, zipfile.BadZipFile, ...: what NumPy and zipfile raise for a damaged file, see `files.reading`.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        size = sum(member.file_size for member in packed.infolist())
    if size > MOST_UNPACKED:
        raise ValueError(f"it unpacks to {size:,} bytes")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


def answers(arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What the test logits answer.

    Args:
        arrays: ``logits`` (N, classes) and ``label`` (N,).

    Returns:
        Of each image its label, the predicted class, the float32 probability of that class and the float32 logarithm
        of the label's probability; nan where a logit is not finite.

    Raises:
        ValueError: if logits and labels do not belong together.
    """
    logits, label = arrays["logits"].astype(np.float64), arrays["label"]
    if logits.ndim != 2 or label.shape != logits.shape[:1] or len(label) == 0:
        raise ValueError(f"logits {logits.shape} and labels {label.shape} do not belong together")
    if label.dtype.kind not in "iu" or label.min() < 0 or label.max() >= logits.shape[1]:
        raise ValueError(f"a label is none of the {logits.shape[1]} classes")
    with np.errstate(invalid="ignore"):
        log_probability = log_softmax(logits, axis=1)
    small = np.min_scalar_type(logits.shape[1] - 1)
    likelihood = np.take_along_axis(log_probability, label[:, None].astype(int), axis=1)[:, 0]
    best = np.exp(log_probability.max(axis=1))
    return label.astype(small), logits.argmax(1).astype(small), best.astype(np.float32), likelihood.astype(np.float32)


def check_run(
    planned: Object, config: Object, provenance: Object, rows: Sequence[Object], result: Object | None
) -> None:
    """Checks that the files of a run agree.

    Args:
        planned: the run in its study's plan: its recipe, norm, seed, tags and name.
        config: its ``config.json``.
        provenance: its ``provenance.json``.
        rows: its ``metrics.jsonl``: of each epoch number, step, losses, accuracies and seconds.
        result: its ``result.json``; None while there is none.

    Raises:
        ValueError: naming what differs.
    """
    name = "-".join([config["norm"], *config["tags"], f"seed{config['seed']}"])
    _same("name", name, planned["name"])
    for field in planned.keys() & config.keys() - {*MAY_DIFFER}:
        _same(field, config[field], planned[field])
    data = provenance["data"]
    steps = data["num_train"] // config["batch_size"]
    for number, row in enumerate(rows, 1):
        _same("epoch", row["epoch"], number)
        _same("step", row["step"], number * steps)
        numbers = [row["train_loss"], row["val_loss"], row["seconds"]]
        if not all(map(_is_fraction, (row[name] for name in FRACTIONS))) or not all(map(_is_positive, numbers)):
            raise ValueError(f"its epoch {number} holds a number that cannot be")
        features = row.get("feature_quantiles")  # None where the network sows none; a publication has columns instead
        if features is not None and (len(features) != len(config["quantiles"]) or not all(map(_is_number, features))):
            raise ValueError(f"its epoch {number} has no {len(config['quantiles'])} quantiles of features")
    if len(rows) > config["num_epochs"]:
        raise ValueError(f"it has {len(rows)} epochs of {config['num_epochs']}")
    if result is not None:
        _check_result(config, data, rows, result, steps)


def check_predictions(result: Object, label: np.ndarray, predicted: np.ndarray, log_likelihood: np.ndarray) -> str:
    """Checks that the answers to the test images are those that a result sums up.

    Args:
        result: of a complete run.
        label: (N,), integers from 0.
        predicted: (N,), as `label`.
        log_likelihood: (N,), of the labels.

    Returns:
        SHA-256 of the labels, which are the same for all runs of a study.

    Raises:
        ValueError: saying what differs.
    """
    found = np.zeros_like(np.array(result["test"]["confusion_matrix"]))
    np.add.at(found, (label, predicted), 1)
    if found.tolist() != result["test"]["confusion_matrix"]:
        raise ValueError("the confusion matrix of the test split is not that of predictions.npz")
    _close("loss of the test split", result["test"]["loss"], -float(np.mean(log_likelihood, dtype=np.float64)), 1e-4)
    return hashlib.sha256(label.astype("<i8").tobytes()).hexdigest()


def _check_result(config: Object, data: Object, rows: Sequence[Object], result: Object, steps: int) -> None:
    if result["status"] not in STATUSES:
        raise ValueError(f"its status is {result['status']!r}")
    for field in ("norm", "seed", "num_epochs"):
        _same(field, result[field], config[field])
    _same("epoch", result["epoch"], len(rows))
    best = max(rows, key=lambda row: row["val_accuracy"], default={})
    _same("best_val_accuracy", result["best_val_accuracy"], best.get("val_accuracy"))
    _same("best_val_epoch", result["best_val_epoch"], best.get("epoch"))
    complete = result["status"] == "complete"
    for split in SPLITS:
        if (result[split] is None) == complete:
            raise ValueError(f"it is {result['status']}, but the evaluation of its {split} split says otherwise")
        if complete:
            _check_metrics(split, result[split], data[f"num_{split}"], len(data["class_names"]))
    if result["status"] == "crashed":
        return
    _close("seconds", result["seconds"], sum(row["seconds"] for row in rows), 1e-3)
    if complete:
        _same("step", result["step"], len(rows) * steps)
    if not isinstance(result["num_params"], int) or isinstance(result["diverged_at_step"], int) == complete:
        raise ValueError("its number of parameters or the step at which it diverged is not one")
    for kind, splits in (result["statistics"] or {}).items():
        for split, one in splits.items():
            if not _is_fraction(one["accuracy"]) or not (one["loss"] is None or _is_positive(one["loss"])):
                raise ValueError(f"its {split} accuracy or loss under {kind} statistics cannot be")


def _check_metrics(split: str, metrics: Object, num_images: int, num_classes: int) -> None:
    matrix = np.array(metrics["confusion_matrix"])
    if matrix.shape != (num_classes, num_classes) or matrix.dtype.kind != "i" or matrix.min() < 0:
        raise ValueError(f"the confusion matrix of its {split} split is none of {num_classes} classes")
    _same(f"number of {split} images", metrics["num_images"], num_images)
    _same(f"number of {split} images in the confusion matrix", int(matrix.sum()), num_images)
    right, asked = np.diag(matrix), matrix.sum(0) + matrix.sum(1)
    f1 = np.divide(2 * right, asked, out=np.zeros(num_classes), where=asked > 0)
    for name, value in (("accuracy", right.sum() / num_images), ("micro_f1", right.sum() / num_images)):
        _close(f"{name} of the {split} split", metrics[name], float(value), 1e-9)
    _close(f"macro_f1 of the {split} split", metrics["macro_f1"], float(f1.mean()), 1e-9)
    if not _is_positive(metrics["loss"]):
        raise ValueError(f"the loss of its {split} split is {metrics['loss']!r}")


def _same(name: str, found: Any, expected: Any) -> None:
    if found != expected or isinstance(found, bool) != isinstance(expected, bool):
        raise ValueError(f"its {name} is {str(found)[:80]}, but should be {str(expected)[:80]}")


def _close(name: str, found: Any, expected: float, tolerance: float) -> None:
    if not _is_number(found) or not math.isclose(found, expected, rel_tol=tolerance, abs_tol=tolerance):
        raise ValueError(f"the {name} is {str(found)[:80]}, but should be {expected:.9g}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_fraction(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value > -1e-6
