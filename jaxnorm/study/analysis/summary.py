"""summary.csv and summary.json: the results for other programs."""

import csv
import io
from typing import Any

import numpy as np

from jaxnorm.study.analysis.comparison import Comparison
from jaxnorm.study.analysis.reference import comparable, references_for
from jaxnorm.study.analysis.runs import SPLITS, Run, Study
from jaxnorm.study.analysis.statistics import Interval, mean_interval, standard_deviation

METRICS = ("accuracy", "micro_f1", "macro_f1", "loss")
HEADER = ("norm", "seed", "split", *METRICS, "status", "epoch", "step", "num_images")
SETTINGS = ("batch_size", "learning_rate", "lr_rule", "ghost_batch_size", "num_replicas", "tags")


def summary_csv(study: Study) -> str:
    """One row for each norm, seed and split, in the study's order; a run without final figures keeps its rows, empty.

    Fractions, not per cent; every float with all its digits. No durations: the same runs give the same bytes.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*HEADER, *SETTINGS])
    for run in study.runs:
        setting = [_blank(run.batch_size), _blank(run.learning_rate), run.lr_rule, _blank(run.ghost_batch_size)]
        setting += [repr(run.num_replicas), " ".join(run.tags)]
        for split in SPLITS:
            found = run.splits.get(split)
            metrics = [repr(getattr(found, metric)) for metric in METRICS] if found else [""] * len(METRICS)
            images = found.num_images if found else ""
            writer.writerow(
                [run.norm, run.seed, split, *metrics, run.status, _blank(run.epoch), _blank(run.step), images, *setting]
            )
    return buffer.getvalue()


def summary_json(study: Study, comparisons: tuple[Comparison, ...]) -> dict[str, Any]:
    """Everything the report says, as JSON values: runs, variants, comparisons; fractions, not per cent."""
    return {
        "study": study.name,
        "preset": study.preset,
        "recipe": dict(study.recipe),
        "norms": list(study.norms),
        "seeds": list(study.seeds),
        "command": study.command,
        "data": dict(study.data),
        "variants": [_variant(study, norm) for norm in study.variants],
        "comparisons": [_comparison(one) for one in comparisons],
        "runs": [_run(run) for run in study.runs],
    }


def _variant(study: Study, norm: str) -> dict[str, Any]:
    runs = study.finished(norm)
    found: dict[str, Any] = {"norm": norm, "label": study.label(norm), "num_complete": len(runs)}
    for split in SPLITS:
        found[split] = {metric: _moments([getattr(run.splits[split], metric) for run in runs]) for metric in METRICS}
        found[split]["accuracy_interval"] = _interval(mean_interval([run.splits[split].accuracy for run in runs]))
    seconds = [epoch.seconds for run in study.of(norm) for epoch in run.epochs]
    found["median_epoch_seconds"] = float(np.median(seconds)) if seconds else None
    found["parallel_seeds"] = max((epoch.parallel_seeds for run in study.of(norm) for epoch in run.epochs), default=1)
    reference = references_for(study.recipe).get(norm)
    if reference is not None:
        found["published"] = {
            "name": reference.name,
            "train": reference.train,
            "validation": reference.validation,
            "test": reference.test,
            "test_macro_f1": reference.test_macro_f1,
            "comparable": bool(runs) and all(comparable(run.settings, run.epoch) for run in runs),
        }
    return found


def _moments(values: list[float]) -> dict[str, Any] | None:
    if not values:
        return None
    mean = float(np.mean(values))
    return {"mean": _finite(mean), "sd": _finite(standard_deviation(values))}


def _comparison(one: Comparison) -> dict[str, Any]:
    return {
        "norm": one.norm,
        "baseline": one.baseline,
        "planned": one.planned,
        "seeds": list(one.seeds),
        "differences": list(one.differences),
        "mean": one.mean,
        "interval": _interval(one.interval),
        "p_value": one.p_value,
        "holm_p": one.holm_p,
        "image_interval": _interval(one.image_interval),
        "equal_within_half_a_point": one.equal,
    }


def _run(run: Run) -> dict[str, Any]:
    predictions = run.predictions
    return {
        "norm": run.norm,
        "seed": run.seed,
        "label": run.label,
        "status": run.status,
        "epoch": run.epoch,
        "step": run.step,
        "num_epochs": run.num_epochs,
        "diverged_at_step": run.diverged_at_step,
        "error": run.error,
        "num_params": run.num_params,
        "best_val_accuracy": run.best_val_accuracy,
        "best_val_epoch": run.best_val_epoch,
        "splits": {
            split: {metric: _finite(getattr(found, metric)) for metric in METRICS}
            | {"num_images": found.num_images, "class_f1": found.class_f1.tolist()}
            for split, found in run.splits.items()
        },
        "expected_calibration_error": predictions and _finite(predictions.expected_calibration_error()),
        "negative_log_likelihood": predictions and _finite(predictions.negative_log_likelihood),
    }


def _interval(interval: Interval | None) -> dict[str, Any] | None:
    if interval is None:
        return None
    return {"low": _finite(interval.low), "high": _finite(interval.high), "method": interval.method}


def _finite(value: float | None) -> float | None:
    """JSON knows no nan."""
    return value if value is not None and np.isfinite(value) else None


def _blank(value: float | None) -> str:
    return "" if value is None else repr(value)
