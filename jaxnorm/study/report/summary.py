"""summary.csv and summary.json: the results for other programs."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from jaxnorm.study.report.comparisons import chosen, paired
from jaxnorm.study.report.frames import METRICS, SPLITS, Study
from jaxnorm.study.report.published import comparable, published_for
from jaxnorm.study.report.statistics import (
    Interval,
    class_f1,
    expected_calibration_error,
    mean_interval,
    negative_log_likelihood,
    standard_deviation,
)

COLUMNS = ("norm", "seed", "split", *METRICS, "status", "epoch", "step", "num_images", "batch_size", "learning_rate",
           "lr_rule", "ghost_batch_size", "num_replicas", "tags")  # fmt: skip


def summary_csv(study: Study) -> str:
    """One row for each norm, seed and split, in the order of the plan; a run without final figures has empty values.

    Fractions, not per cent; every float with all its digits. No durations: the same runs give the same bytes.
    """
    rows = study.runs.merge(pd.DataFrame({"split": SPLITS}), how="cross")
    final = study.evaluations[study.evaluations.statistics == "running"]
    rows = rows.merge(final[["run", "split", *METRICS, "num_images"]].rename(columns={"run": "name"}), how="left")
    rows["num_images"] = rows.num_images.astype("Int64")
    return rows.to_csv(columns=list(COLUMNS), index=False, lineterminator="\n")


def summary_json(everything: Study) -> dict[str, Any]:
    """Everything the report says, as JSON values: runs, variants, comparisons; fractions, not per cent."""
    plan, found = everything.plan, paired(chosen(everything))
    names = {"p": "p_value", "equal": "equal_within_half_a_point"}
    return {
        **{name: plan.get(name) for name in ("study", "preset", "recipe", "norms", "seeds", "command")},
        "data": dict(everything.data),
        "variants": [_variant(everything, rows) for _, rows in everything.runs.groupby("label", observed=True)],
        "comparisons": [_plain(row) for row in found.rename(columns=names).to_dict("records")],
        "runs": [_run(everything, run) for run in everything.runs.to_dict("records")],
    }


def _variant(study: Study, planned: pd.DataFrame) -> dict[str, Any]:
    variant, runs = planned.variant.iloc[0], planned[planned.status == "complete"]
    found: dict[str, Any] = {"norm": variant, "label": str(planned.label.iloc[0]), "num_complete": len(runs)}
    for split in SPLITS:
        rows = study.final(split)
        rows = rows[rows.variant == variant]
        found[split] = {metric: _moments(rows[metric]) for metric in METRICS}
        found[split]["accuracy_interval"] = mean_interval(rows.accuracy.tolist())
    found["median_epoch_seconds"] = study.epochs.seconds[study.epochs.variant == variant].median()
    reference = published_for(study.recipe).get(variant)
    if reference is not None:
        names = ("name", "train", "validation", "test", "test_macro_f1")
        alike = [comparable(run, run["epoch"]) for run in runs.to_dict("records")]
        found["published"] = {n: getattr(reference, n) for n in names} | {"comparable": bool(alike) and all(alike)}
    return _plain(found)


def _moments(values: Iterable[float]) -> dict[str, Any] | None:
    values = list(values)
    return {"mean": float(np.mean(values)), "sd": standard_deviation(values)} if values else None


def _run(study: Study, run: dict[str, Any]) -> dict[str, Any]:
    names = ("norm", "seed", "status", "epoch", "step", "num_epochs", "diverged_at_step", "error", "num_params",
             "best_val_accuracy", "best_val_epoch")  # fmt: skip
    rows = study.evaluations[(study.evaluations.run == run["name"]) & (study.evaluations.statistics == "running")]
    answers = study.predictions(run["name"])
    return _plain(
        {name: run[name] for name in names}
        | {
            "label": run["norm_label"],
            "splits": {
                row["split"]: {name: row[name] for name in (*METRICS, "num_images")}
                | {"class_f1": class_f1(row["confusion_matrix"]).tolist()}
                for row in rows.to_dict("records")
            },
            "expected_calibration_error": None if answers is None else expected_calibration_error(answers),
            "negative_log_likelihood": None if answers is None else negative_log_likelihood(answers),
        }
    )


def _plain(value: Any) -> Any:
    """`value` as JSON can hold it: no nan, no NumPy or pandas types."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, Interval):
        return {"low": _plain(value.low), "high": _plain(value.high), "method": value.method}
    if value is None or pd.isna(value) or (isinstance(value, float) and not np.isfinite(value)):
        return None
    return value.item() if isinstance(value, np.generic) else value
