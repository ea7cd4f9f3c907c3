"""summary.csv and summary.json: the results for other programs."""

from typing import Any

import numpy as np
import pandas as pd

from jaxnorm.study.report.comparisons import chosen, paired
from jaxnorm.study.report.frames import METRICS, SPLITS, Study
from jaxnorm.study.report.statistics import Interval

_COLUMNS = (
    *("norm", "seed", "split", *METRICS, "status", "epoch", "step", "num_images", "batch_size", "learning_rate"),
    *("lr_rule", "ghost_batch_size", "num_replicas", "tags"),
)


def summary_csv(study: Study) -> str:
    """One row for each norm, seed and split, in the order of the plan; a run without final figures has empty values.

    Of a `study` with all its runs: fractions, not per cent; every float with all its digits. No durations: the same
    runs give the same bytes.
    """
    final = study.evaluations[study.evaluations.statistics == "running"].rename(columns={"run": "name"})
    rows = study.runs.merge(pd.DataFrame({"split": SPLITS}), how="cross")
    rows = rows.merge(final[["name", "split", *METRICS, "num_images"]], how="left").astype({"num_images": "Int64"})
    return rows.to_csv(columns=list(_COLUMNS), index=False, lineterminator="\n")


def summary_json(study: Study) -> dict[str, Any]:
    """Settings, data and comparisons of a `study` with all its runs, as JSON values: fractions, not per cent."""
    found = paired(chosen(study)).rename(columns={"p": "p_value"}).drop(columns="narrow")
    facts = {
        name: study.plan.get(name) for name in ("study", "preset", "recipe", "norms", "seeds", "command", "planned")
    }
    return dict(_plain({**facts, "data": study.data, "comparisons": found.to_dict("records")}))


def _plain(value: Any) -> Any:
    """`value` as JSON can hold it: no nan, no NumPy or pandas types."""
    if isinstance(value, Interval):
        value = vars(value)
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if value is None or pd.isna(value) or (isinstance(value, float) and not np.isfinite(value)):
        return None
    return value.item() if isinstance(value, np.generic) else value
