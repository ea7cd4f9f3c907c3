"""A study's folder in its two forms, as trained and as published, and how it becomes a `Study`."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jaxnorm.errors import UserError
from jaxnorm.files import json_object, reading
from jaxnorm.study import home
from jaxnorm.study.report.frames import METRICS, SETTINGS, SPLITS, Arrays, Study, described, named
from jaxnorm.study.runs.agreement import (
    PREDICTIONS,
    Recorded,
    answers,
    check_predictions,
    check_run,
    read_run,
    unpacked,
)
from jaxnorm.study.runs.manifest import METRICS as LINES
from jaxnorm.study.runs.manifest import Manifest, read_sealed, settled

RUNS, EPOCHS, ARRAYS = "runs.json", "epochs.csv", "arrays.npz"
KINDS = ("gate", "quantiles", "histogram", "rates", "smoothness")
"""Of the arrays of an epoch: their names begin with one of these."""
OBJECTS = ("config", "provenance", "result")
PREDICTED = ("label", "predicted", "confidence", "log_likelihood")
MEASURED = {
    **dict.fromkeys(("epoch", "step"), int),
    **dict.fromkeys(("learning_rate", "train_loss", "train_accuracy"), float),
    **dict.fromkeys(("val_loss", "val_accuracy", "val_macro_f1", "seconds"), float),
}
"""What a line of metrics.jsonl holds besides the quantiles of the features."""
OUTCOME = {
    **dict.fromkeys(("num_epochs", "epoch", "step", "num_params", "diverged_at_step", "best_val_epoch"), "Int64"),
    **dict.fromkeys(("seconds", "best_val_accuracy"), float),
    "error": object,
}
"""What a result says of a run, and the types of these columns."""
TYPED = {
    **dict.fromkeys(("batch_size", "ghost_batch_size", "num_replicas"), "Int64"),
    **OUTCOME,
    "learning_rate": float,
}
"""The columns of `Study.runs` that are not text, and their types."""


@dataclass(frozen=True)
class Folder:
    """The files of a study's folder. Each method raises a `UserError` that names the file if one is damaged.

    As trained, it has ``RUN/config.json``, ``provenance.json``, ``metrics.jsonl``, ``result.json``,
    ``predictions.npz``, a file an epoch such as ``arrays/epoch_0001.npz`` with arrays such as ``gate/stem_norm``, and
    the hashes of all in ``manifest.json``. A publication has ``runs.json`` (of each run what differs from the other
    runs, and once what they share), ``epochs.csv``, ``predictions.npz`` and ``arrays.npz``: ``RUN/gate/stem_norm`` is
    that array of several epochs, stacked; ``RUN/epochs/gate`` says of which. Their hashes are in ``study.json``.

    Attributes:
        path: the folder.
        published: the hashes of a publication; None for a folder as trained.
    """

    path: Path
    published: Manifest | None = None

    @classmethod
    def of(cls, path: Path, plan: Mapping[str, Any]) -> "Folder":
        """The folder at `path` with that `plan`."""
        return cls(path, Manifest(path, "", plan["files"]) if plan.get("published") else None)

    def object_path(self, run: str, name: str) -> Path:
        """The file that holds `name` of a `run`: its config, provenance or result."""
        return self.path / RUNS if self.published else self.path / run / f"{name}.json"

    def read(self, planned: Mapping[str, Any], quantiles: list[str]) -> tuple[Recorded, pd.DataFrame] | None:
        """What the files of a run say, checked, and its epochs as a table; None if it has not begun.

        Args:
            planned: the run in the plan, see `check_run`.
            quantiles: the columns of quantiles of the features; another number in the files is damage.
        """
        run, kinds = planned["name"], MEASURED | dict.fromkeys(quantiles, float)
        if self.published:
            with reading(self.path / RUNS):
                if run not in self._runs["runs"]:
                    return None
            with reading(self.path / EPOCHS):
                table = self._epochs[self._epochs.run == run][["run", *kinds]].astype(kinds)
            with reading(self.path / RUNS):
                shared, own = self._runs["shared"], self._runs["runs"][run]
                config, provenance, result = ({**shared[name], **own[name]} for name in OBJECTS)
                check_run(planned, config, provenance, table.to_dict("records"), result)
                labels = None
                if result["status"] == "complete":
                    found = [
                        column.to_numpy() for _, column in self.predictions(run).drop(columns="confidence").items()
                    ]
                    labels = check_predictions(result, *found)
            return Recorded(config, provenance, [], result, labels), table
        folder = self.path / run
        if not folder.is_dir():
            return None
        said = settled(folder, lambda manifest: manifest and read_run(manifest, planned)) or Recorded({}, {}, [], None)
        said.provenance.pop("config", None)  # it is beside it
        with reading(folder / LINES):
            none = [None] * len(quantiles)  # a network of the user's own may sow no pooled features
            rows = [[*(row[name] for name in MEASURED), *(row["feature_quantiles"] or none)] for row in said.rows]
            table = pd.DataFrame(rows, columns=list(kinds)).astype(kinds).assign(run=run)
        return said, table

    def predictions(self, run: str) -> pd.DataFrame:
        """The answers of a complete `run` to the test images, see `Study.predictions`."""
        if self.published:
            with reading(self.path / PREDICTIONS):
                place = self._predictions["run"].tolist().index(run)
                return pd.DataFrame({name: self._predictions[name][place] for name in PREDICTED})
        path = self.path / run / PREDICTIONS
        content = self._manifest(run).content(PREDICTIONS)
        with reading(path):
            return pd.DataFrame(dict(zip(PREDICTED, answers(unpacked(content)), strict=True)))

    def arrays(self, run: str, kind: str, width: int | None = None) -> Arrays:
        """Arrays of a `run` of a kind in `KINDS`. Another length than `width` is damage."""
        manifest = self.published or self._manifest(run)
        start = f"{run}/{kind}/" if self.published else f"{kind}/"
        names = [ARRAYS] if self.published else [name for name in manifest.files if name.startswith("arrays/")]
        found: Arrays = {}
        for file in sorted(set(names) & set(manifest.files)):
            with reading(self.path / file if self.published else self.path / run / file):
                arrays = self._arrays if self.published else unpacked(manifest.content(file))
                for name in filter(lambda name: name.startswith(start), arrays):
                    table = arrays[name] if self.published else arrays[name][None]
                    epochs = arrays[f"{run}/epochs/{kind}"].tolist() if self.published else [int(file[-8:-4])]
                    by_epoch = found.setdefault(name.removeprefix(start), {})
                    if table.ndim != 2 or table.shape[1] == 0 or table.dtype.kind not in "fiu":
                        raise ValueError(f"{name} has shape {table.shape} and type {table.dtype}")
                    by_epoch.update(zip(epochs, table, strict=True))
                    if {*map(len, by_epoch.values())} - {width or table.shape[1]}:
                        raise ValueError(f"{name} has other lengths than {width or table.shape[1]}")
        return found

    def _manifest(self, run: str) -> Manifest:
        return Manifest.read(self.path / run) or Manifest(self.path / run, run)

    def _content(self, name: str) -> bytes:
        return self.published.content(name) if self.published else b""

    @cached_property
    def _runs(self) -> dict[str, Any]:
        return json_object(self._content(RUNS), self.path / RUNS)

    @cached_property
    def _epochs(self) -> pd.DataFrame:
        return pd.read_csv(io.BytesIO(self._content(EPOCHS)), dtype=str)  # text loses no digit

    @cached_property
    def _predictions(self) -> dict[str, np.ndarray]:
        return unpacked(self._content(PREDICTIONS))

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        return unpacked(self._content(ARRAYS))


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
    plan = read_sealed(path) if path.is_file() else None
    if plan is None:
        found = "holds none" if folder.is_dir() else "is a file" if folder.exists() else "does not exist"
        raise UserError(
            f"a study is a folder with a study.json, but {folder} {found}; give the --workdir of a driver, or a folder "
            "that python -m jaxnorm publish made"
        )
    plan = home.printed(plan)
    with reading(path):
        if not all(isinstance(norm, str) for norm in plan["norms"]) or not isinstance(plan.get("grid") or {}, dict):
            raise ValueError("its norms are no names, or its grid is no object")
        files = Folder.of(folder, plan)
        planned = [{**plan["recipe"], **entry} for entry in plan["runs"]]
        rows = [_planned(plan, entry) for entry in planned]
        if len({row["name"] for row in rows}) < len(rows):
            raise ValueError("a run is there twice")
        study = Study(folder, plan, pd.DataFrame(), pd.DataFrame(), pd.DataFrame(), files)
        quantiles = study.quantiles
    evaluations: list[dict[str, Any]] = []
    labels: str | None = None
    known: dict[str, Any] = {}
    tables = [pd.DataFrame(columns=["run", *MEASURED, *quantiles]).astype(MEASURED)]
    for row, entry in zip(rows, planned, strict=True):
        if (found_files := files.read(entry, quantiles)) is not None:
            recorded, table = Recorded(*home.printed(list(found_files[0]))), found_files[1]
            for name, value in recorded.provenance.items():  # what runs have in common is held once
                recorded.provenance[name] = known.setdefault(f"{name}: {value!r}", value)
            last = table.tail(1).to_dict("records")
            row |= _outcome(files, row, recorded, last[0] if last else {})
            with reading(files.object_path(row["name"], "result")):
                evaluations += _evaluations(row["name"], recorded.result or {})
            tables += [table] if last else []
            if recorded.labels != (labels := labels or recorded.labels) and recorded.labels is not None:
                raise UserError(
                    f"all runs of a study have the same test images, but those of {row['name']} in {folder} are other "
                    "ones than those of the runs before it; delete the run that was copied in and train it again"
                )
    epochs = pd.concat(tables[1:] or tables, ignore_index=True)[["run", *MEASURED, *quantiles]]
    epochs = epochs.rename(columns={"learning_rate": "rate"})
    columns = ["run", "split", "statistics", *METRICS, "num_images", "confusion_matrix"]
    runs, found = _runs(rows), pd.DataFrame(evaluations, columns=columns)
    return replace(study, runs=runs, epochs=described(runs, epochs), evaluations=described(runs, found))


def _planned(plan: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """A run as the plan lists it."""
    name, norm, tags = entry["name"], entry["norm"], list(entry.get("tags") or ())
    if not all(isinstance(text, str) and Path(text).name == text for text in (name, norm, *tags)) or len(name) > 200:
        raise ValueError("a run's name, norm or tag is no name")
    if type(entry["seed"]) is not int or name != "-".join([norm, *tags, f"seed{entry['seed']}"]):
        raise ValueError("a run's seed is no whole number, or its name is not that of its norm, tags and seed")
    about = {"norm_label": str((plan.get("labels") or {}).get(norm) or norm), "tags": " ".join(tags)}
    left_out = dict(plan.get("left_out") or {})  # of a publication: what was being trained then, and how far
    state = {"status": "unfinished", "epoch": left_out[name]} if name in left_out else {"status": "missing"}
    return _checked({**entry, **about, **state, "provenance": {}})


def _checked(row: dict[str, Any]) -> dict[str, Any]:
    """The row, if its numbers are numbers."""
    for name, kind in {**TYPED, "lr_rule": object}.items():
        value: Any = row.get(name)
        kinds: Any = {"Int64": int, float: int | float}.get(kind, str)
        if value is not None and not (isinstance(value, kinds) and (kind != "Int64" or abs(value) < 2**53)):
            raise ValueError(f"its {name} is {value!r}")
    return row


def _outcome(files: Folder, row: dict[str, Any], found: Recorded, last: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's files say of it beyond the plan's row; `last` is its last epoch."""
    config, provenance, result = found.config, found.provenance, found.result
    fixed = ("name", "norm", "seed", "tags", "norm_label", "status")
    with reading(files.object_path(row["name"], "config")):
        about = _checked(row | {name: config[name] for name in row if name in config and name not in fixed})
    about["provenance"] = provenance
    about["norm_label"] = str(provenance.get("label") or row["norm_label"])
    if not result:
        return about | {"status": "unfinished", "epoch": last.get("epoch"), "step": last.get("step")}
    with reading(files.object_path(row["name"], "result")):
        return _checked(about | {name: result.get(name) for name in ("status", *OUTCOME)})


def _evaluations(run: str, result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a run's final evaluations."""
    rows = []
    for split in filter(result.get, SPLITS):
        values = result[split]
        matrix = np.array(values["confusion_matrix"], dtype=np.int64)
        row = {name: float(values[name]) for name in METRICS} | {"num_images": int(values["num_images"])}
        rows.append({"run": run, "split": split, "statistics": "running", **row, "confusion_matrix": matrix})
    for kind, others in (result.get("statistics") or {}).items():
        for split, one in others.items() if kind != "running" else ():  # that is the same as above
            loss = float("nan" if one["loss"] is None else one["loss"])
            row = {"accuracy": float(one["accuracy"]), "loss": loss, "num_images": int(one["num_images"])}
            rows.append({"run": run, "split": split, "statistics": kind, **row})
    return rows


def _runs(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The table of runs, with the columns that describe a variant."""
    own = [name for name in SETTINGS if name not in ("variant", "label")]
    columns = dict.fromkeys(["name", *own, *OUTCOME, "provenance", *(name for row in rows for name in row)])
    frame = pd.DataFrame(rows, columns=list(columns))
    said = {row["norm"]: row["norm_label"] for row in reversed(rows) if row["norm_label"] != row["norm"]}
    frame["norm_label"] = frame.norm.map(said).fillna(frame.norm)
    for name, kind in TYPED.items():
        frame[name] = (pd.to_numeric(frame[name]) if kind == "Int64" else frame[name]).astype(kind)
    return named(frame.fillna({"num_replicas": 1, "lr_rule": "fixed"}))
