"""A study's folder as tables: runs, epochs, evaluations, layers. The rest of `report/` is computed from these."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jaxnorm.errors import UserError
from jaxnorm.files import reading
from jaxnorm.study.config import REFERENCE_BATCH_SIZE
from jaxnorm.study.report import records
from jaxnorm.study.report.arrays import RunArrays
from jaxnorm.study.report.folders import read_predictions, read_runs
from jaxnorm.study.report.records import METRICS, OF_AN_EPOCH, OUTCOME, PERCENTAGES, quantile_columns

STATISTICS = ("running", "precise", "precise_128", "evaluation_batch")
"""What the final weights are evaluated with: the running averages, and others where that was asked for."""
SETTINGS = (
    *("norm", "variant", "label", "norm_label", "seed", "batch_size", "learning_rate", "lr_rule"),
    *("ghost_batch_size", "num_replicas", "tags", "status"),
)
"""The columns that describe a run; every row of every table has them."""


@dataclass(frozen=True, eq=False)
class Study:
    """A study's folder as DataFrames, made by `read_study`.

    Every row of `epochs`, `evaluations`, `layers` and `gates` names its `run` and carries that run's settings (the
    columns `norm, variant, label, norm_label, seed, batch_size, learning_rate, lr_rule, ghost_batch_size, num_replicas,
    tags, status`). A variant is a norm in a setting: `gn` or `gn-bs8-linear`. `label` is its name for a reader, an
    ordered Categorical in the order of the plan; `norm_label` is that of the norm alone.

    Attributes:
        folder: the folder.
        plan: what `study.json` says.
        runs: a row for each planned run, in the order of the plan: `name`, the settings, `num_epochs`, `epoch`, `step`,
            `num_params`, `seconds`, `diverged_at_step`, `error`, `best_val_accuracy`, `best_val_epoch`, the other
            fields of its configuration, and `provenance` (a dict). `status` is complete, diverged, crashed, unfinished
            (without a result) or missing (not begun).
        epochs: a row for each epoch of each run: `epoch`, `step`, `rate` (learning rate in that epoch), `train_loss`,
            `train_accuracy`, `val_loss`, `val_accuracy`, `val_macro_f1`, `seconds`, and the quantiles of the pooled
            features in columns such as `q1`, `q20`, `q80`, `q99`.
        evaluations: a row for each run, split and kind of statistics (`split`, `statistics`): `accuracy`, `micro_f1`,
            `macro_f1`, `loss`, `num_images`, and `confusion_matrix` (true by predicted class). Fractions and nats.
    """

    folder: Path
    plan: dict[str, Any]
    runs: pd.DataFrame
    epochs: pd.DataFrame
    evaluations: pd.DataFrame

    @cached_property
    def layers(self) -> pd.DataFrame:
        """A row for each run, epoch and layer: quantiles of its output (`q1`, ...), read when first used."""
        columns = quantile_columns(self.percentages)
        rows = [
            pd.DataFrame(np.array([*by_epoch.values()], float), columns=columns).assign(
                run=run, epoch=list(by_epoch), layer=layer
            )
            for run in self.runs.name
            for layer, by_epoch in self._read(run, "quantiles").items()
        ]
        return self._described(rows, ["run", "epoch", "layer", *columns])

    @cached_property
    def gates(self) -> pd.DataFrame:
        """A row for each run, epoch, layer and channel: `gate` from 0 (instance norm) to 1 (batch norm)."""
        rows = []
        for run in self.runs.name:
            for layer, by_epoch in self._read(run, "gate").items():
                table = np.array([*by_epoch.values()], float)
                index = pd.MultiIndex.from_product([list(by_epoch), range(table.shape[1])], names=["epoch", "channel"])
                one = pd.DataFrame({"gate": table.ravel()}, index).reset_index()
                rows.append(one.assign(run=run, layer=layer))
        return self._described(rows, ["run", "epoch", "layer", "channel", "gate"])

    def histograms(self, layer: str) -> dict[str, dict[int, np.ndarray]]:
        """By variant and epoch: counts (65536,) of a layer's values on the validation images, summed over runs."""
        found: dict[str, dict[int, np.ndarray]] = {}
        recorded = {
            run: by_layer.get(layer, {})
            for run in self.runs.name
            if (by_layer := self._read(run, "histogram", [layer]))
        }
        for run in finished_rows(self.runs[self.runs.name.isin(recorded)]).itertuples():
            by_epoch = found.setdefault(run.variant, {})
            for epoch, counts in sorted(recorded[run.name].items()):
                by_epoch[epoch] = by_epoch.get(epoch, 0) + counts
        return found

    def predictions(self, run: str) -> pd.DataFrame | None:
        """A row for each test image: `label`, `predicted`, `confidence` of that class, `log_likelihood` of the label.

        None for a run without predictions. A float32 is kept as such.

        Raises:
            UserError: if the file is damaged.
        """
        return read_predictions(self.folder, run)

    def where(self, keep: pd.Series) -> "Study":
        """The study with some of its runs, in the order of the plan; `keep` has a bool for each row of `runs`."""
        return self.with_runs(self.runs[keep])

    def with_runs(self, runs: pd.DataFrame) -> "Study":
        """The study with these rows in place of `runs`; the other tables follow."""
        runs = named(runs)
        evaluations, epochs = (table[table.run.isin(runs.name)] for table in (self.evaluations, self.epochs))
        own = [name for name in SETTINGS if name in evaluations]
        return replace(
            self,
            runs=runs,
            epochs=_described(runs, epochs.drop(columns=own)),
            evaluations=_described(runs, evaluations.drop(columns=own)),
        )

    @property
    def name(self) -> str:
        """The kind of study: compare_norms, batch_size_study or feature_evolution."""
        return str(self.plan["study"])

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The settings that all runs share."""
        recipe: dict[str, Any] = self.plan["recipe"]
        return recipe

    @property
    def norms(self) -> list[str]:
        """The norms, in the order of the plan."""
        return list(dict.fromkeys([*self.plan["norms"], *self.runs.norm]))

    @property
    def num_epochs(self) -> int | None:
        """Length of the schedule."""
        return self.recipe.get("num_epochs")

    @property
    def percentages(self) -> tuple[float, ...]:
        """The recorded quantiles of the features, in per cent."""
        return tuple(float(value) for value in self.recipe.get("quantiles") or PERCENTAGES)

    @property
    def data(self) -> Mapping[str, Any]:
        """What the first run recorded about its data; empty before any has started."""
        return next((known["data"] for known in self.runs.provenance if known.get("data")), {})

    @property
    def data_description(self) -> str:
        """The data in words, as it is named at every figure."""
        return str(self.data.get("description") or self.recipe.get("dataset", "unknown"))

    @property
    def labels(self) -> dict[str, str]:
        """By variant: its name for a reader, in the order of the plan."""
        return dict(zip(self.runs.variant, self.runs.label.astype(str), strict=True))

    @property
    def finished(self) -> pd.DataFrame:
        """The rows of `runs` that have final figures."""
        return self.runs[self.runs.status == "complete"]

    def final(self, split: str, statistics: str = "running") -> pd.DataFrame:
        """The rows of `evaluations` of finished runs, on one split with one kind of statistics."""
        rows = self.evaluations
        return rows[(rows.split == split) & (rows.statistics == statistics) & (rows.status == "complete")]

    def _read(self, run: str, kind: str, layers: Iterable[str] | None = None) -> dict[str, dict[int, np.ndarray]]:
        """Arrays by layer and epoch, of the epochs in the run's metrics: a resumed run trains later ones again."""
        known = set(self.epochs.epoch[self.epochs.run == run])
        found = RunArrays(self.folder, run).read(kind, None if layers is None else set(layers))
        return {layer: {e: by_epoch[e] for e in sorted(by_epoch) if e in known} for layer, by_epoch in found.items()}

    def _described(runs: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with the settings of their run."""
    about = runs[list(SETTINGS)].iloc[pd.Index(runs.name).get_indexer(rows.run)]
    return pd.concat([rows.reset_index(drop=True), about.reset_index(drop=True)], axis=1)


def _frame(rows: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    """A table that has all `columns`, even without rows."""
    return pd.DataFrame(rows, columns=list(dict.fromkeys([*columns, *(name for row in rows for name in row)])))
