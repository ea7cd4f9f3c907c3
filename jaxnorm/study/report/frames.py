"""A study as tables: runs, epochs, evaluations, layers, gates. The rest of `report/` is computed from these."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from jaxnorm.files import reading
from jaxnorm.study.config import REFERENCE_BATCH_SIZE, Recipe

SPLITS = ("train", "validation", "test")
METRICS = ("accuracy", "micro_f1", "macro_f1", "loss")
SETTINGS = (
    *("norm", "variant", "label", "norm_label", "seed", "batch_size", "learning_rate", "lr_rule"),
    *("ghost_batch_size", "num_replicas", "tags", "status"),
)
"""The columns that describe a run; every row of every table has them."""
RULES = {"fixed": "a fixed learning rate", "linear": "a learning rate in proportion to the batch size"}
"""The rules for the learning rate at other batch sizes, in words."""
POOLED = "pooled"
"""The layer of the pooled features, the input of the classifier."""
Arrays = dict[str, dict[int, np.ndarray]]
"""Arrays by layer and epoch."""


class Files(Protocol):
    """What a study reads from its folder when it is first used; see `folders.Folder`."""

    def arrays(self, run: str, kind: str, width: int | None = None) -> Arrays: ...
    def predictions(self, run: str) -> pd.DataFrame: ...


@dataclass(frozen=True, eq=False)
class Study:
    """A study's folder as DataFrames, made by `read_study`.

    Every row of `epochs`, `evaluations`, `layers`, `rates`, `smoothness` and `gates` names its `run` and carries that
    run's settings (the columns `norm, variant, label, norm_label, seed, batch_size, learning_rate, lr_rule,
    ghost_batch_size, num_replicas, tags, status`). A variant is a norm in a setting: `gn` or `gn-bs8-linear`. `label`
    is its name for a reader, an ordered Categorical in the order of the plan; `norm_label` is that of the norm alone.

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
        files: the folder's other files, read when first used.
    """

    folder: Path
    plan: dict[str, Any]
    runs: pd.DataFrame
    epochs: pd.DataFrame
    evaluations: pd.DataFrame
    files: Files

    @cached_property
    def layers(self) -> pd.DataFrame:
        """A row for each run, epoch and layer: quantiles of its output (`q1`, ...), read when first used."""
        return self._table("quantiles", self.quantiles)

    @cached_property
    def rates(self) -> pd.DataFrame:
        """A row for each run with `probe_learning_rate`, epoch and layer: how fast it learns.

        Norms of its kernel (`weight`) and of the gradient by it in the step after the epoch (`gradient`), and the angle
        by which the epoch has turned the kernel (`rotation`, radians). Read when first used.
        """
        return self._table("rates", ["weight", "gradient", "rotation"])

    @cached_property
    def smoothness(self) -> pd.DataFrame:
        """A row for each probed step of each run with `probe_smoothness`: `run`, `epoch`, `step`, and what was found.

        `loss` and `gradient` (norm) before the step, and at 0.5, 1, 2 and 4 rates along the negative gradient the loss
        (such as `loss_0.5`) and by how much the gradient has changed (`change_0.5`). Read when first used.
        """
        rows = [pd.DataFrame(columns=["run", "epoch", "step"])]
        for run in self.runs.name:
            found = self._read(run, "smoothness")
            with reading(self.folder / run):  # columns of different lengths
                for epoch in found.get("step", {}):
                    columns = {name: by_epoch[epoch] for name, by_epoch in found.items()}
                    rows.append(pd.DataFrame(columns).assign(run=run, epoch=epoch))
        return described(self.runs, pd.concat(rows[1:] or rows, ignore_index=True))

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
        return self._of_layers(rows, ["run", "epoch", "layer", "channel", "gate"])

    @cached_property
    def histograms(self) -> pd.DataFrame:
        """Of the last two layers: a row for each run, epoch and bucket, with its `count` of values in `low` to `high`.

        Buckets are those of `training.features.layer_quantiles`; left out are empty ones and values not finite.
        """
        key, rows = np.arange(2**16, dtype=np.uint32) << 16, []
        edges = np.where(key >> 31 == 1, key & 0x7FFFFFFF, ~key).astype(np.uint32).view(np.float32)
        finite = np.isfinite(edges) & np.isfinite(np.append(edges[1:], edges[-1]))
        for run in self.runs.name:
            for layer, by_epoch in [*self._read(run, "histogram", 2**16).items()][-2:]:
                for epoch, counts in by_epoch.items():
                    kept = np.flatnonzero(finite & (counts > 0))
                    one = pd.DataFrame({"low": edges[kept], "high": edges[kept + 1], "count": counts[kept]})
                    rows.append(one.assign(run=run, epoch=epoch, layer=layer))
        return self._of_layers(rows, ["run", "epoch", "layer", "low", "high", "count"])

    def predictions(self, run: str) -> pd.DataFrame:
        """A row for each test image: `label`, `predicted`, `confidence` of that class, `log_likelihood` of the label.

        Args:
            run: the name of a finished run.

        Returns:
            The table. A float32 is kept as such.

        Raises:
            UserError: if the file is absent or damaged.
        """
        return self.files.predictions(run)

    def with_runs(self, runs: pd.DataFrame) -> "Study":
        """The study with other `runs`: some of its own, perhaps with other tags; the other tables follow."""
        runs = named(runs)
        evaluations, epochs = (table[table.run.isin(runs.name)] for table in (self.evaluations, self.epochs))
        own = [name for name in SETTINGS if name in evaluations]
        return replace(
            self,
            runs=runs,
            epochs=described(runs, epochs.drop(columns=own)),
            evaluations=described(runs, evaluations.drop(columns=own)),
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
    def quantiles(self) -> list[str]:
        """The columns of the quantiles in `epochs` and `layers`: q1 for 1 per cent."""
        return [f"q{float(value):g}" for value in self.recipe.get("quantiles") or Recipe().quantiles]

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

    @property
    def digits(self) -> int:
        """Decimals of an accuracy in per cent: two where a variant has several finished seeds."""
        return 2 if self.finished.variant.duplicated().any() else 1

    def final(self, split: str, statistics: str = "running") -> pd.DataFrame:
        """The rows of `evaluations` of finished runs, of a `split` and a kind of batch `statistics`."""
        rows = self.evaluations
        return rows[(rows.split == split) & (rows.statistics == statistics) & (rows.status == "complete")]

    def _read(self, run: str, kind: str, width: int | None = None) -> Arrays:
        """Arrays by layer and epoch, of the epochs in the run's metrics: a resumed run trains later ones again."""
        known, found = set(self.epochs.epoch[self.epochs.run == run]), self.files.arrays(run, kind, width)
        kept = {layer: {e: by_epoch[e] for e in sorted(known & {*by_epoch})} for layer, by_epoch in found.items()}
        return {layer: by_epoch for layer, by_epoch in kept.items() if by_epoch}

    def _table(self, kind: str, columns: list[str]) -> pd.DataFrame:
        """The arrays of a `kind` as rows: each run, epoch and layer has a value for each of the `columns`."""
        rows = [
            pd.DataFrame(np.array([*by_epoch.values()], float), columns=columns).assign(
                run=run, epoch=list(by_epoch), layer=layer
            )
            for run in self.runs.name
            for layer, by_epoch in self._read(run, kind, len(columns)).items()
        ]
        return self._of_layers(rows, ["run", "epoch", "layer", *columns])

    def _of_layers(self, rows: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
        # Large tables: a category takes a byte a row, and is compared a hundred times faster than text.
        runs = self.runs.astype({"norm": "category", "variant": "category", "status": "category"})
        found = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=columns, dtype=float)
        return described(runs, found[columns].astype({"run": "category", "layer": "category"}))


def by_depth(layers: Iterable[str]) -> list[str]:
    """The `layers` of the network as it applies them: a file holds them by name."""
    return sorted(layers, key=lambda name: (not name.startswith("stem"), name == "head", name))


def quantiles_of(rows: pd.DataFrame) -> list[str]:
    """The columns of quantiles in `rows` of epochs or layers, in ascending order."""
    found = [name for name in map(str, rows) if re.fullmatch(r"q\d+(\.\d+)?", name)]
    return sorted(found, key=lambda name: float(name[1:]))


def finished_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each variant the `rows` of its finished runs; of all its runs where none is finished.

    Kept are the epochs that all those runs have: a mean is over the same runs everywhere.
    """
    complete = rows.status == "complete"
    kept = rows[complete | ~rows.variant.isin(rows.variant[complete])]
    runs = kept.groupby("variant", observed=True).run.transform("nunique")
    return kept[kept.groupby(["variant", "epoch"], observed=True).run.transform("nunique") == runs]


def under_rule(rows: pd.DataFrame, rule: str) -> pd.DataFrame:
    """Those of `rows` with real batches (without ghosts) under a `rule` for the learning rate: fixed or linear.

    At batch size 128 both rules give the same rate: a norm that was trained there under one only is under both.
    """
    real = rows[rows.ghost_batch_size.isna()]
    mine, at_reference = real[real.lr_rule == rule], real[real.batch_size == REFERENCE_BATCH_SIZE]
    known = mine.norm[mine.batch_size == REFERENCE_BATCH_SIZE]
    return pd.concat([mine, at_reference[at_reference.norm.isin(mine.norm) & ~at_reference.norm.isin(known)]])


_TAGS = {
    r"^bs(\d+)$": r"batch size \1",
    r"^ghost(\d+)$": r"ghosts of \1",
    r"^lr([\d.e-]+)$": r"rate \1",
    r"^(linear|fixed)$": r"\1 rate",
}


def setting_words(tags: str) -> str:
    """The `tags` of a run in words, to follow its norm: bs8 is ", batch size 8"."""
    return "".join(f", {word}" for word in pd.Series(tags.split(), dtype=str).replace(_TAGS, regex=True))


def named(runs: pd.DataFrame) -> pd.DataFrame:
    """The `runs` with `variant` and `label`, made from their `norm`, `norm_label` and `tags`."""
    variant = runs.norm + runs.tags.map(lambda tags: "".join(f"-{tag}" for tag in tags.split()))
    label = runs.norm_label + runs.tags.map(setting_words)
    return runs.assign(variant=variant, label=pd.Categorical(label, list(dict.fromkeys(label)), ordered=True))


def described(runs: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The `rows`, which name their `run`, with the settings of that run from `runs`."""
    about = runs[list(SETTINGS)].iloc[pd.Index(runs.name).get_indexer(rows.run)]
    return pd.concat([rows.reset_index(drop=True), about.reset_index(drop=True)], axis=1)
