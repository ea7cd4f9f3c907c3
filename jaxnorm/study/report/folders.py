"""A study's folder in its two forms: a directory a run, as trained, and all runs in four files, as published.

A workdir has ``RUN/config.json``, ``provenance.json``, ``metrics.jsonl``, ``result.json``, ``predictions.npz`` and
``arrays/``. A publication has ``runs.json`` (of each run what differs from the other runs, and once what they share),
``epochs.csv``, ``predictions.npz`` and ``arrays.npz``.
"""

import io
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jaxnorm import files
from jaxnorm.files import reading
from jaxnorm.study.report.arrays import PACKED, RunArrays, packed

RUNS, EPOCHS, PREDICTIONS = "runs.json", "epochs.csv", "predictions.npz"
PREDICTED = ("label", "predicted", "confidence", "log_likelihood")
SHARED = ("config", "provenance")


@dataclass(frozen=True)
class RunFiles:
    """What the files of one run hold.

    Attributes:
        config: its configuration; empty where the file is absent, as are the others.
        provenance: what it ran on.
        result: its outcome.
        epochs: the lines of its metrics, with a list `feature_quantiles` in each.
        sources: the file of each of these, by name, for messages.
    """

    config: dict[str, Any]
    provenance: dict[str, Any]
    result: dict[str, Any]
    epochs: list[dict[str, Any]]
    sources: Mapping[str, Path]


def read_runs(folder: Path, names: Iterable[str]) -> dict[str, RunFiles]:
    """By name the files of those runs that have begun, from either form of folder.

    Raises:
        UserError: if a file is damaged.
    """
    if (folder / RUNS).is_file():
        return _published(folder, names)
    return {name: _trained(folder / name) for name in names if (folder / name).is_dir()}


def _trained(run: Path) -> RunFiles:
    sources = {name: run / f"{name}.json" for name in ("config", "provenance", "result")}
    sources["epochs"] = run / "metrics.jsonl"
    objects = {name: _object(sources[name]) for name in ("config", "provenance", "result")}
    rows = []
    if sources["epochs"].is_file():
        with reading(sources["epochs"]):
            # What follows the last line feed is empty, or a line that a kill cut off; resuming trains that epoch again.
            rows = [json.loads(line) for line in sources["epochs"].read_text(encoding="utf-8").split("\n")[:-1]]
    return RunFiles(**objects, epochs=rows, sources=sources)


def _published(folder: Path, names: Iterable[str]) -> dict[str, RunFiles]:
    found = _object(folder / RUNS)
    with reading(folder / RUNS):
        whole = {
            name: {part: {**found["shared"][part], **run[part]} for part in SHARED} | {"result": run["result"]}
            for name, run in found["runs"].items()
        }
    with reading(folder / EPOCHS):
        table = pd.read_csv(folder / EPOCHS, float_precision="round_trip", dtype={"run": str})
        quantiles = [name for name in table if name[0] == "q" and name[1:2].isdigit()]
        table["feature_quantiles"] = table[quantiles].to_numpy(float).tolist()
        rows = {str(name): part.drop(columns=quantiles).to_dict("records") for name, part in table.groupby("run")}
    sources = dict.fromkeys(("config", "provenance", "result"), folder / RUNS) | {"epochs": folder / EPOCHS}
    return {
        name: RunFiles(**whole[name], epochs=rows.get(name, []), sources=sources) for name in names if name in whole
    }


def write_runs(folder: Path, runs: Mapping[str, RunFiles], workdir: Path, *, histograms: Collection[str]) -> None:
    """Writes ``runs.json``, ``epochs.csv``, ``predictions.npz`` and ``arrays.npz`` of the given runs of `workdir`.

    Of the logits it writes what the tables read: the predicted class, its probability and the label's likelihood. Of
    histograms it writes those of the layers named.
    """
    shared = {part: _common([getattr(run, part) for run in runs.values()]) for part in SHARED}
    own = {
        name: {part: _without(getattr(run, part), shared[part]) for part in SHARED} | {"result": run.result}
        for name, run in runs.items()
    }
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(run, ensure_ascii=False)}" for name, run in own.items())
    text = f'{{"shared": {json.dumps(shared, ensure_ascii=False)},\n"runs": {{\n{lines}\n}}}}\n'
    files.write_text(folder / RUNS, text)
    rows = [{"run": name, **row} for name, run in runs.items() for row in run.epochs]
    table = pd.DataFrame(rows)
    if rows:
        percentages = next(iter(runs.values())).config["quantiles"]
        columns = [f"q{value:g}" for value in percentages]
        table[columns] = pd.DataFrame(table.pop("feature_quantiles").tolist(), index=table.index, dtype=float)
    files.write_text(folder / EPOCHS, table.to_csv(index=False, lineterminator="\n"))
    answered = {name: found for name in runs if (found := read_predictions(workdir, name)) is not None}
    if answered:
        stacked = {name: np.stack([table[name].to_numpy() for table in answered.values()]) for name in PREDICTED}
        _write_arrays(folder / PREDICTIONS, {"run": np.array(list(answered)), **stacked})
    if arrays := packed({name: RunArrays(workdir, name) for name in runs}, histograms=histograms):
        _write_arrays(folder / PACKED, arrays)


def read_predictions(folder: Path, run: str) -> pd.DataFrame | None:
    """A run's answers to the test images, see `Study.predictions`, in either form of folder. Loads no pickles."""
    path = folder / PREDICTIONS
    if path.is_file():
        with reading(path), np.load(path, allow_pickle=False) as arrays:
            names = arrays["run"].tolist()
            if run not in names:
                return None
            return pd.DataFrame({name: arrays[name][names.index(run)] for name in PREDICTED})
    path = folder / run / PREDICTIONS
    if not path.is_file():
        return None
    with reading(path), np.load(path, allow_pickle=False) as arrays:
        if "logits" not in arrays:  # TRANSITION
            return pd.DataFrame({name: arrays[name] for name in PREDICTED})
        return _answers(arrays["logits"], arrays["label"])


def _answers(logits: np.ndarray, label: np.ndarray) -> pd.DataFrame:
    """Of logits (N, C). Where one is not finite the numbers are nan, which the tables show as a dash."""
    if logits.ndim != 2 or label.shape != logits.shape[:1] or len(label) == 0:
        raise ValueError(f"logits {logits.shape} and labels {label.shape} do not belong together")
    if label.min() < 0 or label.max() >= logits.shape[1]:
        raise ValueError(f"a label lies outside the {logits.shape[1]} classes")
    wide, small = logits.astype(np.float64), np.min_scalar_type(logits.shape[1] - 1)
    with np.errstate(invalid="ignore"):
        shifted = wide - wide.max(axis=1, keepdims=True)
        log_probability = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    likelihood = np.take_along_axis(log_probability, label[:, None].astype(int), axis=1)[:, 0]
    return pd.DataFrame(
        {
            "label": label.astype(small),
            "predicted": logits.argmax(axis=1).astype(small),
            "confidence": np.exp(log_probability.max(axis=1)).astype(np.float32),
            "log_likelihood": likelihood.astype(np.float32),
        }
    )


def _write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    files.write_bytes(path, buffer.getvalue())


def _common(objects: list[dict[str, Any]]) -> dict[str, Any]:
    first, *others = objects
    return {key: value for key, value in first.items() if all(key in one and one[key] == value for one in others)}


def _without(whole: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in whole.items() if key not in shared}


def _object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; empty where the file is absent."""
    if not path.is_file():
        return {}
    with reading(path):
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it holds no JSON object")
        return found
