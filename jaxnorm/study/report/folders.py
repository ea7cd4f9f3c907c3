"""A study's folder in its two forms: a directory a run, as trained, and all runs in four files, as published.

A workdir has ``RUN/config.json``, ``provenance.json``, ``metrics.jsonl``, ``result.json``, ``predictions.npz`` and
``arrays/``. A publication has ``runs.json`` (of each run what differs from the other runs, and once what they share),
``epochs.csv``, ``predictions.npz`` and ``arrays.npz``.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jaxnorm import files
from jaxnorm.files import reading
from jaxnorm.study import home
from jaxnorm.study.report.arrays import PACKED, packed, write_arrays

RUNS, EPOCHS, PREDICTIONS = "runs.json", "epochs.csv", "predictions.npz"
OBJECTS = ("config", "provenance", "result")
PREDICTED = ("label", "predicted", "confidence", "log_likelihood")
MEASURED = {
    **dict.fromkeys(("epoch", "step"), int),
    **dict.fromkeys(
        ("learning_rate", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_macro_f1"), float
    ),
    "seconds": float,
}
"""What a line of metrics.jsonl holds besides the quantiles of the features."""


def quantile_columns(percentages: Iterable[float]) -> list[str]:
    """The columns of quantiles: q1, q20, q80, q99 for 1, 20, 80 and 99 per cent."""
    return [f"q{value:g}" for value in percentages]


def object_path(folder: Path, run: str, name: str) -> Path:
    """The file that holds a run's config, provenance or result."""
    return folder / RUNS if (folder / RUNS).is_file() else folder / run / f"{name}.json"


def read_objects(folder: Path, runs: Iterable[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """By run: its config, provenance and result; empty where a file is absent. Runs that have not begun are left out.

    Raises:
        UserError: if a file is damaged.
    """
    if not (folder / RUNS).is_file():
        return {
            run: {name: files.read_json(folder / run / f"{name}.json") or {} for name in OBJECTS}
            for run in runs
            if (folder / run).is_dir()
        }
    found = files.read_json(folder / RUNS) or {}
    with reading(folder / RUNS):
        shared, own = found["shared"], found["runs"]
        return {run: {name: {**shared[name], **own[run][name]} for name in OBJECTS} for run in runs if run in own}


def read_epochs(folder: Path, runs: Iterable[str], percentages: Collection[float]) -> pd.DataFrame:
    """A row for each epoch of each run; a null is nan.

    Raises:
        UserError: if a file is damaged, or an epoch has another number of feature quantiles.
    """
    columns = [*MEASURED, *quantile_columns(percentages)]
    if (folder / EPOCHS).is_file():
        with reading(folder / EPOCHS):
            table = pd.read_csv(folder / EPOCHS, dtype=str)[["run", *columns]]  # text, so that no digit is lost
            return table.astype({name: MEASURED.get(name, float) for name in columns})
    tables = [pd.DataFrame(columns=["run", *columns]).astype(MEASURED)]
    for run in runs:
        path = folder / run / "metrics.jsonl"
        if not path.is_file():
            continue
        with reading(path):
            # What follows the last line feed is empty, or a line that a kill cut off; resuming trains that epoch again.
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
            # A run resumed from an older checkpoint may record an epoch twice; the later line belongs to the weights.
            none = [None] * len(percentages)  # a network of the user's own may sow no pooled features
            last = {
                line["epoch"]: [*(line[name] for name in MEASURED), *(line["feature_quantiles"] or none)]
                for line in lines
            }
            if last:
                table = pd.DataFrame(list(last.values()), columns=columns)
                tables.append(table.astype({name: MEASURED.get(name, float) for name in columns}).assign(run=run))
    return pd.concat(tables[1:] or tables, ignore_index=True)[["run", *columns]]


def read_predictions(folder: Path, run: str) -> pd.DataFrame | None:
    """A run's answers to the test images, see `Study.predictions`, in either form of folder. Loads no pickles."""
    path = folder / PREDICTIONS
    if path.is_file():
        with reading(path), path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            names = arrays["run"].tolist()
            return pd.DataFrame({n: arrays[n][names.index(run)] for n in PREDICTED}) if run in names else None
    path = folder / run / PREDICTIONS
    if not path.is_file():
        return None
    with reading(path), path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        logits, label = arrays["logits"].astype(np.float64), arrays["label"]
        if logits.ndim != 2 or label.shape != logits.shape[:1] or len(label) == 0:
            raise ValueError(f"logits {logits.shape} and labels {label.shape} do not belong together")
        if label.min() < 0 or label.max() >= logits.shape[1]:
            raise ValueError(f"a label is none of the {logits.shape[1]} classes")
        with np.errstate(invalid="ignore"):  # where a logit is not finite the numbers are nan
            shifted = logits - logits.max(axis=1, keepdims=True)
            log_probability = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        likelihood = np.take_along_axis(log_probability, label[:, None].astype(int), axis=1)[:, 0]
        small = np.min_scalar_type(logits.shape[1] - 1)
        answers = (
            label.astype(small),
            logits.argmax(axis=1).astype(small),
            np.exp(log_probability.max(axis=1)),
            likelihood,
        )
        return pd.DataFrame(dict(zip(PREDICTED, answers, strict=True))).astype(dict.fromkeys(PREDICTED[2:], np.float32))


def write_runs(
    folder: Path, source: Path, objects: Mapping[str, Any], epochs: pd.DataFrame, *, histograms: Collection[str]
) -> None:
    """Writes the four files of a publication.

    Of the logits it writes what the tables read: the predicted class, its probability and the label's likelihood.

    Args:
        folder: where to.
        source: the workdir.
        objects: what `read_objects` gives of the runs to publish.
        epochs: what `read_epochs` gives of them.
        histograms: the layers of which histograms are kept.
    """
    objects = home.hidden(objects)
    shared = {
        name: dict.fromkeys(
            set.intersection(*({json.dumps(pair) for pair in run[name].items()} for run in objects.values()))
        )
        for name in OBJECTS
    }
    own = {
        run: {
            name: {k: v for k, v in found[name].items() if json.dumps((k, v)) not in shared[name]} for name in OBJECTS
        }
        for run, found in objects.items()
    }
    common = {name: dict(sorted(json.loads(pair) for pair in pairs)) for name, pairs in shared.items()}
    files.write_text(folder / RUNS, compact({"shared": common, "runs": own}))
    files.write_text(folder / EPOCHS, epochs.to_csv(index=False, lineterminator="\n"))
    answers = {run: found for run in objects if (found := read_predictions(source, run)) is not None}
    if answers:
        stacked = {name: np.stack([found[name].to_numpy() for found in answers.values()]) for name in PREDICTED}
        write_arrays(folder / PREDICTIONS, {"run": np.array(list(answers)), **stacked})
    if arrays := packed(source, objects, histograms):
        write_arrays(folder / PACKED, arrays)


def compact(content: Mapping[str, Any]) -> str:
    """A JSON object with a line for each entry, and for each entry of an entry."""

    def text(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))

    lines = []
    for key, value in content.items():
        if isinstance(value, dict):
            inner = "{\n" + ",\n".join(f"{text(name)}: {text(each)}" for name, each in value.items()) + "\n}"
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            inner = "[\n" + ",\n".join(map(text, value)) + "\n]"
        else:
            inner = text(value)
        lines.append(f"{text(key)}: {inner}")
    return "{\n" + ",\n".join(lines) + "\n}\n"
