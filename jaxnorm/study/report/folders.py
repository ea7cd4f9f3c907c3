"""A study's folder in its two forms: a directory a run, as trained, and all runs in four files, as published.

A workdir has ``RUN/config.json``, ``provenance.json``, ``metrics.jsonl``, ``result.json``, ``predictions.npz``, and a
file an epoch such as ``arrays/epoch_0001.npz`` with arrays such as ``gate/stem_norm``. A publication has ``runs.json``
(of each run what differs from the other runs, and once what they share), ``epochs.csv``, ``predictions.npz`` and
``arrays.npz``: ``RUN/gate/stem_norm`` is that array of several epochs, stacked; ``RUN/epochs/gate`` says of which.
"""

import io
import json
import zipfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import log_softmax

from jaxnorm import files
from jaxnorm.files import reading
from jaxnorm.study import home

RUNS, EPOCHS, PREDICTIONS, ARRAYS = "runs.json", "epochs.csv", "predictions.npz", "arrays.npz"
OBJECTS = ("config", "provenance", "result")
PREDICTED = ("label", "predicted", "confidence", "log_likelihood")
MEASURED = {
    **dict.fromkeys(("epoch", "step"), int),
    **dict.fromkeys(("learning_rate", "train_loss", "train_accuracy"), float),
    **dict.fromkeys(("val_loss", "val_accuracy", "val_macro_f1", "seconds"), float),
}
"""What a line of metrics.jsonl holds besides the quantiles of the features."""

Arrays = dict[str, dict[int, np.ndarray]]
"""Arrays by layer and epoch."""


def quantile_columns(percentages: Iterable[float]) -> list[str]:
    """The columns of quantiles: q1, q20, q80, q99 for 1, 20, 80 and 99 per cent."""
    return [f"q{value:g}" for value in percentages]


def object_path(folder: Path, run: str, name: str) -> Path:
    """The file that holds a run's config, provenance or result."""
    return folder / RUNS if (folder / RUNS).is_file() else folder / run / f"{name}.json"


def read_objects(folder: Path, runs: Iterable[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """By run: its config, provenance and result; empty where a file is absent. Runs that have not begun are left out.

    Raises:
        UserError: if a file is damaged, as all functions that read here do.
    """
    if (folder / RUNS).is_file():
        found = files.read_json(folder / RUNS) or {}
        with reading(folder / RUNS):
            shared, own = found["shared"], found["runs"]
            return {run: {name: {**shared[name], **own[run][name]} for name in OBJECTS} for run in runs if run in own}
    begun = [run for run in runs if (folder / run).is_dir()]
    return {run: {name: files.read_json(object_path(folder, run, name)) or {} for name in OBJECTS} for run in begun}


def read_epochs(folder: Path, runs: Iterable[str], percentages: Collection[float]) -> pd.DataFrame:
    """A row for each epoch of each run; a null is nan. An epoch with another number of quantiles is damage."""
    quantiles = quantile_columns(percentages)
    kinds = MEASURED | dict.fromkeys(quantiles, float)
    if (folder / EPOCHS).is_file():
        with reading(folder / EPOCHS):
            return pd.read_csv(folder / EPOCHS, dtype=str)[["run", *kinds]].astype(kinds)  # text loses no digit
    tables = []
    for run in runs:
        path = folder / run / "metrics.jsonl"
        if not path.is_file():
            continue
        with reading(path):
            # What follows the last line feed is empty, or a line that a kill cut off; resuming trains that epoch again.
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
            # A run resumed from an older checkpoint may record an epoch twice; the later line belongs to the weights.
            last = {line["epoch"]: line for line in lines}.values()
            none = [None] * len(quantiles)  # a network of the user's own may sow no pooled features
            rows = [[*(one[name] for name in MEASURED), *(one["feature_quantiles"] or none)] for one in last]
            if rows:
                tables.append(pd.DataFrame(rows, columns=list(kinds)).astype(kinds).assign(run=run))
    found = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["run", *kinds]).astype(MEASURED)
    return found[["run", *kinds]]


def read_predictions(folder: Path, run: str) -> pd.DataFrame | None:
    """A run's answers to the test images, see `Study.predictions`; None for a run without. Loads no pickles."""
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
            log_probability = log_softmax(logits, axis=1)
        small = np.min_scalar_type(logits.shape[1] - 1)
        likelihood = np.take_along_axis(log_probability, label[:, None].astype(int), axis=1)[:, 0]
        confidence = np.exp(log_probability.max(axis=1))
        answers = (label.astype(small), logits.argmax(axis=1).astype(small), confidence, likelihood)
        return pd.DataFrame(dict(zip(PREDICTED, answers, strict=True))).astype(dict.fromkeys(PREDICTED[2:], np.float32))


def read_arrays(folder: Path, run: str, kind: str, layers: Collection[str] | None = None) -> Arrays:
    """A run's arrays of a kind (gate, quantiles or histogram): of all layers, or of those named."""
    published = (folder / ARRAYS).is_file()
    start = f"{run}/{kind}/" if published else f"{kind}/"
    found: Arrays = {}
    for path in [folder / ARRAYS] if published else sorted((folder / run).glob("arrays/epoch_*.npz")):
        with reading(path), path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            names = [name for name in arrays.files if name.startswith(start)]
            for name in [name for name in names if layers is None or name.removeprefix(start) in layers]:
                table = np.asarray(arrays[name]) if published else np.asarray(arrays[name])[None]
                epochs = arrays[f"{run}/epochs/{kind}"].tolist() if published else [int(path.stem[len("epoch_") :])]
                if table.ndim != 2 or table.shape[1] == 0:
                    raise ValueError(f"{name} has shape {table.shape} for {len(epochs)} epochs")
                found.setdefault(name.removeprefix(start), {}).update(zip(epochs, table, strict=True))
    return found


def write_runs(
    folder: Path, source: Path, objects: Mapping[str, Any], epochs: pd.DataFrame, *, histograms: Collection[str]
) -> None:
    """Writes the four files of a publication into `folder`.

    Of the logits of the workdir `source` it writes what the tables read (the predicted class, its probability and the
    label's likelihood), of histograms those of the layers named in `histograms`. `objects` and `epochs` are what
    `read_objects` and `read_epochs` give of the runs to publish.
    """
    objects = home.hidden(objects)
    shared = {}
    for name in OBJECTS:
        texts = [{(key, _text(value)) for key, value in found[name].items()} for found in objects.values()]
        shared[name] = {key: json.loads(text) for key, text in sorted(set.intersection(*texts))}
    own = {
        run: {name: {key: one for key, one in found[name].items() if key not in shared[name]} for name in OBJECTS}
        for run, found in objects.items()
    }
    files.write_text(folder / RUNS, compact({"shared": shared, "runs": own}))
    files.write_text(folder / EPOCHS, epochs.to_csv(index=False, lineterminator="\n"))
    answers = {run: found for run in objects if (found := read_predictions(source, run)) is not None}
    if answers:
        stacked = {name: np.stack([found[name].to_numpy() for found in answers.values()]) for name in PREDICTED}
        _write_arrays(folder / PREDICTIONS, {"run": np.array(list(answers)), **stacked})
    packed: dict[str, np.ndarray] = {}
    for run in objects:
        for kind, layers in (("gate", None), ("quantiles", None), ("histogram", histograms)):
            found = read_arrays(source, run, kind, layers)
            common = sorted(set.intersection(*map(set, found.values()))) if found else []
            packed |= {f"{run}/epochs/{kind}": np.array(common, np.int32)} if common else {}
            packed |= {f"{run}/{kind}/{layer}": np.stack([one[e] for e in common]) for layer, one in found.items()}
    if packed:
        _write_arrays(folder / ARRAYS, packed)


def compact(content: Mapping[str, Any]) -> str:
    """A JSON object with a line for each entry, and for each entry of an entry."""
    lines = []
    for key, value in content.items():
        inner = _text(value)
        if isinstance(value, dict):
            inner = "{\n" + ",\n".join(f"{_text(name)}: {_text(each)}" for name, each in value.items()) + "\n}"
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            inner = "[\n" + ",\n".join(map(_text, value)) + "\n]"
        lines.append(f"{_text(key)}: {inner}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an .npz file with LZMA, an eighth smaller than with deflate; `numpy.load` reads it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue(), zipfile.ZIP_LZMA)
    files.write_bytes(path, buffer.getvalue())
