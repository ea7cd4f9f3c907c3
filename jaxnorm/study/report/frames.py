"""A study's folder as tables: runs, epochs, evaluations, layers. The rest of `report/` is computed from these."""

import json
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
from jaxnorm.study.report import folders, records
from jaxnorm.study.report.folders import quantile_columns
from jaxnorm.study.report.records import METRICS, OUTCOME, TYPED

SETTINGS = (
    *("norm", "variant", "label", "norm_label", "seed", "batch_size", "learning_rate", "lr_rule"),
    *("ghost_batch_size", "num_replicas", "tags", "status"),
)
"""The columns that describe a run; every row of every table has them."""
PERCENTAGES = (1.0, 20.0, 80.0, 99.0)
"""The quantiles that a run records by default, in per cent."""


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

    def predictions(self, run: str) -> pd.DataFrame | None:
        """A row for each test image: `label`, `predicted`, `confidence` of that class, `log_likelihood` of the label.

        None for a run without predictions. A float32 is kept as such.

        Raises:
            UserError: if the file is damaged.
        """
        return folders.read_predictions(self.folder, run)

    def with_runs(self, runs: pd.DataFrame) -> "Study":
        """The study with these rows in place of `runs`; the other tables follow."""
        runs = _named(runs)
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
    def recipe(self) -> dict[str, Any]:
        """The settings that all runs share."""
        return dict(self.plan["recipe"])

    @property
    def norms(self) -> list[str]:
        """The norms, in the order of the plan."""
        return list(dict.fromkeys([*self.plan["norms"], *self.runs.norm]))

    @property
    def percentages(self) -> list[float]:
        """The recorded quantiles of the features, in per cent."""
        return _percentages(self.plan)

    @property
    def data(self) -> dict[str, Any]:
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

    def _read(self, run: str, kind: str) -> folders.Arrays:
        """Arrays by layer and epoch, of the epochs in the run's metrics: a resumed run trains later ones again."""
        known, found = set(self.epochs.epoch[self.epochs.run == run]), folders.read_arrays(self.folder, run, kind)
        return {layer: {e: by_epoch[e] for e in sorted(by_epoch) if e in known} for layer, by_epoch in found.items()}

    def _described(self, rows: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
        # Large tables: a category takes a byte a row, and is compared a hundred times faster than text.
        runs = self.runs.astype({"norm": "category", "variant": "category", "status": "category"})
        found = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=columns, dtype=float)
        return _described(runs, found[columns].astype({"run": "category", "layer": "category"}))


def read_study(folder: str | Path) -> Study:
    """Reads a workdir or a publication: `study.json`, and every run that it plans. An unfinished run is no error.

    Args:
        folder: what a driver wrote (its ``--workdir``), or what ``python -m jaxnorm publish`` made of it.

    Returns:
        The tables, see `Study`.

    Raises:
        UserError: if `folder` holds no study, or a damaged file (the message names the file).

    Examples:
        >>> import jaxnorm
        >>> study = jaxnorm.read_study("results/digits_seeds")
        >>> accuracy = study.final("test").groupby("norm").accuracy.mean()
        >>> round(float(accuracy["bn"]), 4), round(float(accuracy["gn"]), 4)
        (0.9933, 0.9356)
    """
    folder = Path(folder)
    path = folder / "study.json"
    if not path.is_file():
        raise UserError(
            f"a workdir holds a study.json, but {folder} does not; give the folder that a driver wrote (its --workdir)"
        )
    with reading(path):
        plan = json.loads(path.read_text(encoding="utf-8"))
        if not all(isinstance(norm, str) for norm in plan["norms"]) or not isinstance(plan.get("grid") or {}, dict):
            raise ValueError("its norms are no names, or its grid is no object")
        rows = [records.planned(plan, entry) for entry in plan["runs"]]
        percentages = _percentages(plan)
        left_out = dict(plan.get("left_out") or {})  # of a publication: what was being trained then, and how far
    names = [row["name"] for row in rows]
    objects, evaluations = folders.read_objects(folder, names), []
    epochs = folders.read_epochs(folder, names, percentages).rename(columns={"learning_rate": "rate"})
    for row in rows:
        name = row["name"]
        if name in left_out:
            row |= {"status": "unfinished", "epoch": left_out[name]}
        if name in objects:
            last = epochs[epochs.run == name].tail(1).to_dict("records")
            row |= records.outcome(folder, row, objects[name], last[0] if last else {})
            evaluations += records.evaluations(folder, name, objects[name]["result"])
    runs = _runs(rows)
    columns = ["run", "split", "statistics", *METRICS, "num_images", "confusion_matrix"]
    return Study(
        folder, plan, runs, _described(runs, epochs), _described(runs, pd.DataFrame(evaluations, columns=columns))
    )


def _percentages(plan: Mapping[str, Any]) -> list[float]:
    return [float(value) for value in plan["recipe"].get("quantiles") or PERCENTAGES]


def finished_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each variant the rows of its finished runs; of all its runs where none is finished.

    Rows of epochs are kept where all those runs have that epoch, so that a mean is over the same runs everywhere.
    """
    complete = rows.status == "complete"
    kept = rows[complete | ~rows.variant.isin(rows.variant[complete])]
    runs = kept.groupby("variant", observed=True).run.transform("nunique")
    return kept[kept.groupby(["variant", "epoch"], observed=True).run.transform("nunique") == runs]


def under_rule(rows: pd.DataFrame, rule: str) -> pd.DataFrame:
    """The rows of real batches (without ghosts) under a rule for the learning rate: fixed or linear.

    At batch size 128 both rules give the same rate: a norm that was trained there under one only is under both.
    """
    real = rows[rows.ghost_batch_size.isna()]
    mine, at_reference = real[real.lr_rule == rule], real[real.batch_size == REFERENCE_BATCH_SIZE]
    known = mine.norm[mine.batch_size == REFERENCE_BATCH_SIZE]
    return pd.concat([mine, at_reference[at_reference.norm.isin(mine.norm) & ~at_reference.norm.isin(known)]])


TAGS = {
    r"^bs(\d+)$": r"batch size \1",
    r"^ghost(\d+)$": r"ghosts of \1",
    r"^lr([\d.e-]+)$": r"rate \1",
    r"^(linear|fixed)$": r"\1 rate",
}


def setting_words(tags: Iterable[str]) -> str:
    """Tags in words: bs8 is batch size 8."""
    return ", ".join(pd.Series(list(tags), dtype=str).replace(TAGS, regex=True))


def _runs(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The table of runs, with the columns that describe a variant."""
    own = [name for name in SETTINGS if name not in ("variant", "label")]
    columns = dict.fromkeys(["name", *own, *OUTCOME, "provenance", *(name for row in rows for name in row)])
    frame = pd.DataFrame(rows, columns=list(columns))
    said = {row["norm"]: row["norm_label"] for row in reversed(rows) if row["norm_label"] != row["norm"]}
    frame["norm_label"] = frame.norm.map(said).fillna(frame.norm)
    for name, kind in TYPED.items():
        frame[name] = (pd.to_numeric(frame[name]) if kind == "Int64" else frame[name]).astype(kind)
    return _named(frame.fillna({"num_replicas": 1, "lr_rule": "fixed"}))


def _named(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with `variant` and `label` made from `norm`, `norm_label` and `tags`."""
    tags = runs.tags.str.split()
    variant = ["-".join([norm, *each]) for norm, each in zip(runs.norm, tags, strict=True)]
    label = [
        ", ".join([norm, *filter(None, [setting_words(each)])])
        for norm, each in zip(runs.norm_label, tags, strict=True)
    ]
    return runs.assign(variant=variant, label=pd.Categorical(label, list(dict.fromkeys(label)), ordered=True))


def _described(runs: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with the settings of their run."""
    about = runs[list(SETTINGS)].iloc[pd.Index(runs.name).get_indexer(rows.run)]
    return pd.concat([rows.reset_index(drop=True), about.reset_index(drop=True)], axis=1)
