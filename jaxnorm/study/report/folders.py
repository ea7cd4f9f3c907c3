"""A study's folder in its two forms, as trained and as published, and how it becomes a `Study`."""

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import log_softmax

from jaxnorm.errors import UserError
from jaxnorm.files import read_json, read_lines, reading
from jaxnorm.study import home
from jaxnorm.study.report.frames import METRICS, SETTINGS, SPLITS, Arrays, Study, described, named

RUNS, EPOCHS, PREDICTIONS, ARRAYS = "runs.json", "epochs.csv", "predictions.npz", "arrays.npz"
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

    As trained, it has ``RUN/config.json``, ``provenance.json``, ``metrics.jsonl``, ``result.json``, ``predictions.npz``
    and a file an epoch such as ``arrays/epoch_0001.npz`` with arrays such as ``gate/stem_norm``. A publication has
    ``runs.json`` (of each run what differs from the other runs, and once what they share), ``epochs.csv``,
    ``predictions.npz`` and ``arrays.npz``: ``RUN/gate/stem_norm`` is that array of several epochs, stacked;
    ``RUN/epochs/gate`` says of which.

    Attributes:
        path: the folder.
    """

    path: Path

    def object_path(self, run: str, name: str) -> Path:
        """The file that holds `name` of a `run`: its config, provenance or result."""
        return self.path / RUNS if (self.path / RUNS).is_file() else self.path / run / f"{name}.json"

    def objects(self, runs: Iterable[str]) -> dict[str, dict[str, dict[str, Any]]]:
        """By run, of `runs`: config, provenance and result; empty if a file is absent. Those not begun are left out."""
        if (self.path / RUNS).is_file():
            found = read_json(self.path / RUNS) or {}
            with reading(self.path / RUNS):
                shared, own = found["shared"], found["runs"]
                known = [run for run in runs if run in own]
                return {run: {name: {**shared[name], **own[run][name]} for name in OBJECTS} for run in known}
        begun = [run for run in runs if (self.path / run).is_dir()]
        return {run: {name: read_json(self.object_path(run, name)) or {} for name in OBJECTS} for run in begun}

    def epochs(self, runs: Iterable[str], quantiles: list[str]) -> pd.DataFrame:
        """A row for each epoch of each of `runs`; a null is nan. Another number of `quantiles` (columns) is damage."""
        kinds, tables = MEASURED | dict.fromkeys(quantiles, float), []
        if (self.path / EPOCHS).is_file():
            with reading(self.path / EPOCHS):  # text loses no digit
                return pd.read_csv(self.path / EPOCHS, dtype=str)[["run", *kinds]].astype(kinds)
        for run in runs:
            path = self.path / run / "metrics.jsonl"
            with reading(path):
                # A run resumed from an older checkpoint may record an epoch twice: the later line is of its weights.
                last = {line["epoch"]: line for line in read_lines(path)}.values()
                none = [None] * len(quantiles)  # a network of the user's own may sow no pooled features
                rows = [[*(one[name] for name in MEASURED), *(one["feature_quantiles"] or none)] for one in last]
                if rows:
                    tables.append(pd.DataFrame(rows, columns=list(kinds)).astype(kinds).assign(run=run))
        nothing = pd.DataFrame(columns=["run", *kinds]).astype(MEASURED)
        return (pd.concat(tables, ignore_index=True) if tables else nothing)[["run", *kinds]]

    def predictions(self, run: str) -> pd.DataFrame:
        """The answers of a finished `run` to the test images, see `Study.predictions`."""
        path = self.path / run / PREDICTIONS
        if (self.path / PREDICTIONS).is_file():
            with reading(self.path / PREDICTIONS):
                place = self._predictions["run"].tolist().index(run)
                return pd.DataFrame({name: self._predictions[name][place] for name in PREDICTED})
        with reading(path), np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            logits, label = arrays["logits"].astype(np.float64), arrays["label"]
            if logits.ndim != 2 or label.shape != logits.shape[:1] or len(label) == 0:
                raise ValueError(f"logits {logits.shape} and labels {label.shape} do not belong together")
            if label.min() < 0 or label.max() >= logits.shape[1]:
                raise ValueError(f"a label is none of the {logits.shape[1]} classes")
            with np.errstate(invalid="ignore"):  # where a logit is not finite the numbers are nan
                log_probability = log_softmax(logits, axis=1)
            small = np.min_scalar_type(logits.shape[1] - 1)
            likelihood = np.take_along_axis(log_probability, label[:, None].astype(int), axis=1)[:, 0]
            answers = label.astype(small), logits.argmax(axis=1).astype(small), np.exp(log_probability.max(axis=1))
            found = pd.DataFrame(dict(zip(PREDICTED, (*answers, likelihood), strict=True)))
            return found.astype(dict.fromkeys(PREDICTED[2:], np.float32))

    def arrays(self, run: str, kind: str) -> Arrays:
        """Arrays of a `run` of a `kind` (gate, quantiles or histogram)."""
        published = (self.path / ARRAYS).is_file()
        start = f"{run}/{kind}/" if published else f"{kind}/"
        found: Arrays = {}
        for path in [self.path / ARRAYS] if published else sorted((self.path / run).glob("arrays/epoch_*.npz")):
            with reading(path), np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
                for name in filter(lambda name: name.startswith(start), arrays.files):
                    table = np.asarray(arrays[name]) if published else np.asarray(arrays[name])[None]
                    epochs = arrays[f"{run}/epochs/{kind}"].tolist() if published else [int(path.stem[6:])]
                    if table.ndim != 2 or table.shape[1] == 0:
                        raise ValueError(f"{name} has shape {table.shape} for {len(epochs)} epochs")
                    found.setdefault(name.removeprefix(start), {}).update(zip(epochs, table, strict=True))
        return found

    @cached_property
    def _predictions(self) -> dict[str, np.ndarray]:
        with np.load(io.BytesIO((self.path / PREDICTIONS).read_bytes()), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in ("run", *PREDICTED)}


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
    path, files = folder / "study.json", Folder(folder)
    if not path.is_file():
        found = "holds none" if folder.is_dir() else "is a file" if folder.exists() else "does not exist"
        raise UserError(
            f"a study is a folder with a study.json, but {folder} {found}; give the --workdir of a driver, or a folder "
            "that python -m jaxnorm publish made"
        )
    plan = home.printed(read_json(path) or {})
    with reading(path):
        if not all(isinstance(norm, str) for norm in plan["norms"]) or not isinstance(plan.get("grid") or {}, dict):
            raise ValueError("its norms are no names, or its grid is no object")
        rows = [_planned(plan, entry) for entry in plan["runs"]]
        study = Study(folder, plan, pd.DataFrame(), pd.DataFrame(), pd.DataFrame(), files)
        quantiles = study.quantiles
        left_out = dict(plan.get("left_out") or {})  # of a publication: what was being trained then, and how far
    names, evaluations = [row["name"] for row in rows], []
    objects = home.printed(files.objects(names))
    epochs = files.epochs(names, quantiles).rename(columns={"learning_rate": "rate"})
    for row in rows:
        name = row["name"]
        if name in left_out:
            row |= {"status": "unfinished", "epoch": left_out[name]}
        if name in objects:
            last = epochs[epochs.run == name].tail(1).to_dict("records")
            row |= _outcome(files, row, objects[name], last[0] if last else {})
            with reading(files.object_path(name, "result")):
                evaluations += _evaluations(name, objects[name]["result"])
    columns = ["run", "split", "statistics", *METRICS, "num_images", "confusion_matrix"]
    runs, found = _runs(rows), pd.DataFrame(evaluations, columns=columns)
    return replace(study, runs=runs, epochs=described(runs, epochs), evaluations=described(runs, found))


def _planned(plan: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """A run as the plan lists it."""
    name, norm, tags = entry["name"], entry["norm"], list(entry.get("tags") or ())
    if not all(isinstance(text, str) and Path(text).name == text for text in (name, norm, *tags)):
        raise ValueError("a run's name, norm or tag is no name")
    if not isinstance(entry["seed"], int):
        raise ValueError("a run's seed is no whole number")
    about = {"norm_label": str((plan.get("labels") or {}).get(norm) or norm), "tags": " ".join(tags)}
    return _checked({**plan["recipe"], **entry, **about, "status": "missing", "provenance": {}})


def _checked(row: dict[str, Any]) -> dict[str, Any]:
    """The row, if its numbers are numbers."""
    for name, kind in {**TYPED, "lr_rule": object}.items():
        value: Any = row.get(name)
        kinds: Any = {"Int64": int, float: int | float}.get(kind, str)
        if value is not None and not (isinstance(value, kinds) and (kind != "Int64" or abs(value) < 2**53)):
            raise ValueError(f"its {name} is {value!r}")
    return row


def _outcome(files: Folder, row: dict[str, Any], found: Mapping[str, Any], last: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's files say of it beyond the plan's row; `last` is its last epoch."""
    config, provenance, result = (found[name] for name in OBJECTS)
    with reading(files.object_path(row["name"], "provenance")):
        for key in ("git", "versions", "device", "data"):
            if not isinstance(provenance.get(key, {}), dict):
                raise ValueError(f"its {key} is not an object")
    fixed = ("name", "norm", "seed", "tags", "norm_label", "status")
    with reading(files.object_path(row["name"], "config")):
        about = _checked(row | {name: config[name] for name in row if name in config and name not in fixed})
    about["provenance"] = provenance
    about["norm_label"] = str(provenance.get("label") or result.get("label") or row["norm_label"])
    if not result:
        return about | {"status": "unfinished", "epoch": last.get("epoch"), "step": last.get("step")}
    with reading(files.object_path(row["name"], "result")):
        if result["status"] not in ("complete", "diverged", "crashed"):
            raise ValueError(f"its status is {result['status']!r}")
        if result["status"] == "complete" and not all(result.get(split) for split in SPLITS):
            raise ValueError("it is complete, but a split's evaluation is absent")
        return _checked(about | {name: result.get(name) for name in ("status", *OUTCOME)})


def _evaluations(run: str, result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a run's final evaluations."""
    rows = []
    for split in filter(result.get, SPLITS):
        values = result[split]
        matrix = np.array(values["confusion_matrix"], dtype=np.int64)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"its confusion matrix has shape {matrix.shape}")
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
