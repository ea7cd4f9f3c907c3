"""What was recorded of every layer: paths of quantiles over the epochs, gates, and how much a layer's values grew."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxnorm.study.analysis.runs import Run, Study

Path = tuple[list[int], np.ndarray]
"""Epochs, and one row of numbers for each."""
POOLED = "pooled"


@functools.lru_cache(maxsize=2)
def layer_paths(study: Study) -> Mapping[str, Mapping[str, Path]]:
    """Quantiles (epochs, Q) by variant and layer, the mean over its runs; without variants that recorded none."""
    return _paths(study, "quantiles")


@functools.lru_cache(maxsize=2)
def gate_paths(study: Study) -> Mapping[str, Mapping[str, Path]]:
    """Gates (epochs, channels of all seeds) by variant and layer; without variants that have none."""
    return _paths(study, "gate")


def _paths(study: Study, kind: str) -> dict[str, dict[str, Path]]:
    found = {}
    for variant in study.variants:
        having = [run for run in study.of(variant) if run.arrays]
        runs = [run for run in having if run.complete] or having
        tables = [one for run in runs if (one := _read(run, kind))]
        if not tables:
            continue
        layers = [layer for layer in tables[0] if all(layer in table for table in tables)]
        found[variant] = {layer: _joined([table[layer] for table in tables], kind) for layer in layers}
    return found


def _read(run: Run, kind: str) -> dict[str, dict[int, np.ndarray]]:
    """Arrays by layer and epoch, of the epochs that the run's metrics know: a resumed run trains later ones again."""
    known = {epoch.epoch for epoch in run.epochs}
    found: dict[str, dict[int, np.ndarray]] = {}
    for arrays in run.arrays:
        if arrays.epoch in known:
            for layer, values in arrays.read(kind).items():
                found.setdefault(layer, {})[arrays.epoch] = values.astype(np.float64)
    return found


def _joined(tables: Sequence[Mapping[int, np.ndarray]], kind: str) -> Path:
    epochs = sorted(set.intersection(*(set(table) for table in tables)))
    stacked = [np.array([table[epoch] for epoch in epochs]) for table in tables]
    return epochs, np.concatenate(stacked, axis=1) if kind == "gate" else np.mean(stacked, axis=0)


def layer_names(study: Study) -> tuple[str, ...]:
    """Every layer of which quantiles were recorded, in the order in which the network applies them."""
    return tuple(dict.fromkeys(layer for paths in layer_paths(study).values() for layer in paths))


def last_convolution(study: Study) -> str | None:
    """The last convolution of the main path: what lies deepest before norm and ReLU; None without recorded layers."""
    names = [name for name in layer_names(study) if name != POOLED and not name.endswith("proj")]
    return names[-1] if names else None


@dataclass(frozen=True)
class Growth:
    """By how much a layer's highest recorded quantile has grown."""

    variant: str
    layer: str
    first: float
    last: float

    @property
    def ratio(self) -> float:
        """Last over first epoch; nan where the first is not positive."""
        return self.last / self.first if self.first > 0 else float("nan")


def growths(study: Study) -> tuple[Growth, ...]:
    """Of every variant and layer: the highest recorded quantile after the first and after the last epoch."""
    return tuple(
        Growth(variant, layer, float(table[0, -1]), float(table[-1, -1]))
        for variant, paths in layer_paths(study).items()
        for layer, (epochs, table) in paths.items()
        if len(epochs) > 1
    )
