"""The batch-size study as a grid of cells: a norm at a batch size, a rule for the rate, with or without ghosts."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jaxnorm.study.analysis.runs import STATISTICS, Run, Study
from jaxnorm.study.config import REFERENCE_BATCH_SIZE

RULES = ("fixed", "linear")
RULE_NAMES = {"fixed": "Fixed rate", "linear": "Linear rate"}
KINDS = {
    "running": "running averages",
    "precise": "precise statistics, own batch size",
    "precise_128": "precise statistics, batches of 128",
    "evaluation_batch": "statistics of the evaluation batch",
}
"""What the final weights were evaluated with, in words."""


@dataclass(frozen=True, eq=False)
class Cell:
    """All seeds of one norm in one setting."""

    norm: str
    batch_size: int
    lr_rule: str
    ghost: int | None
    runs: tuple[Run, ...]

    @property
    def finished(self) -> tuple[Run, ...]:
        """The runs with final figures."""
        return tuple(run for run in self.runs if run.complete)

    @property
    def validation(self) -> list[float]:
        """Validation accuracy after the last epoch."""
        return [run.splits["validation"].accuracy for run in self.finished]

    @property
    def best_validation(self) -> list[float]:
        """The highest validation accuracy after any epoch."""
        return [run.best_val_accuracy for run in self.finished if run.best_val_accuracy is not None]

    @property
    def test(self) -> list[float]:
        """Test accuracy after the last epoch."""
        return [run.splits["test"].accuracy for run in self.finished]

    def with_statistics(self, kind: str, split: str = "validation") -> list[float]:
        """Accuracy of the same weights with another kind of statistics; empty where that was not evaluated."""
        found = [run.statistics.get(kind, {}).get(split) for run in self.finished]
        return [one.accuracy for one in found if one is not None]

    @property
    def epoch_seconds(self) -> list[float]:
        """Seconds of every epoch but each run's first, into which compilation falls, where there are more."""
        return [epoch.seconds for run in self.runs for epoch in (run.epochs[1:] or run.epochs)]


def cells(study: Study) -> list[Cell]:
    """Every cell that was planned: by norm, rule, ghosts after real batches, then falling batch size."""
    groups: dict[tuple[str, int, str, int | None], list[Run]] = {}
    for run in study.runs:
        if run.batch_size is not None:
            groups.setdefault((run.norm, run.batch_size, run.lr_rule, run.ghost_batch_size), []).append(run)
    norms = list(dict.fromkeys([*study.norms, *(run.norm for run in study.runs)]))

    def order(key: tuple[str, int, str, int | None]) -> tuple[int, int, bool, int, int]:
        norm, size, rule, ghost = key
        return norms.index(norm), rule not in RULES[:1], ghost is not None, -size, -(ghost or 0)

    return [Cell(*key, tuple(groups[key])) for key in sorted(groups, key=order)]


def real(study: Study, norm: str, rule: str) -> list[Cell]:
    """A norm's cells without ghosts under one rule, by falling batch size.

    At the reference batch size the linear rule gives the fixed rate: where only one of the two was trained there, it
    stands for both.
    """
    found = {cell.batch_size: cell for cell in cells(study) if cell.norm == norm and cell.ghost is None}
    mine = {c.batch_size: c for c in cells(study) if c.norm == norm and c.ghost is None and c.lr_rule == rule}
    if mine and REFERENCE_BATCH_SIZE in found:
        mine.setdefault(REFERENCE_BATCH_SIZE, found[REFERENCE_BATCH_SIZE])
    return [mine[size] for size in sorted(mine, reverse=True)]


def ghosts(study: Study, norm: str | None = None) -> list[Cell]:
    """The cells with statistics over parts of the batch, of one norm or of all."""
    return [cell for cell in cells(study) if cell.ghost is not None and norm in (None, cell.norm)]


def rules(study: Study) -> list[str]:
    """The rules under which anything was planned."""
    known = {cell.lr_rule for cell in cells(study)}
    return [rule for rule in RULES if rule in known]


def sizes(study: Study) -> list[int]:
    """All batch sizes, falling."""
    return sorted({cell.batch_size for cell in cells(study) if cell.ghost is None}, reverse=True)


def norms_of(study: Study, keep: Callable[[Cell], bool] = lambda _: True) -> list[str]:
    """The norms that have a cell of some kind, in the study's order."""
    return list(dict.fromkeys(cell.norm for cell in cells(study) if keep(cell)))


def has_statistics(cell: Cell) -> bool:
    """Whether the cell's weights were evaluated with more than their running averages."""
    return any(cell.with_statistics(kind) for kind in STATISTICS)


def mean(values: list[float]) -> float | None:
    """The mean; None of nothing."""
    return float(np.mean(values)) if values else None


def epoch_medians(study: Study, norm: str) -> dict[int, float]:
    """Median seconds of an epoch by falling batch size, of the cells without ghosts, over rules and seeds."""
    seconds: dict[int, list[float]] = {}
    for cell in cells(study):
        if cell.norm == norm and cell.ghost is None and cell.epoch_seconds:
            seconds.setdefault(cell.batch_size, []).extend(cell.epoch_seconds)
    return {size: float(np.median(seconds[size])) for size in sorted(seconds, reverse=True)}


def slowdown(study: Study, norm: str) -> tuple[int, int, float] | None:
    """A small and a large batch size, and how many times longer an epoch takes at the small one; None for one size.

    8 and 128, as in the published study, where both were trained; otherwise the smallest and the largest.
    """
    seconds = epoch_medians(study, norm)
    small, large = (8, 128) if {8, 128} <= set(seconds) else (min(seconds, default=0), max(seconds, default=0))
    return (small, large, seconds[small] / seconds[large]) if small < large and seconds[large] else None


@dataclass(frozen=True)
class Loss:
    """What a small batch loses in validation accuracy against the largest one, as fractions."""

    small: Cell
    large: Cell
    whole: float
    """With running averages."""
    training: float
    """Of it with precise statistics, from batches of 128: what recomputing does not bring back."""

    @property
    def averages(self) -> float:
        """The rest."""
        return self.whole - self.training


def losses(study: Study, norm: str, rule: str) -> list[Loss]:
    """A norm's losses under a rule by falling batch size, where running and precise statistics were evaluated."""

    def accuracy(cell: Cell, kind: str) -> float:
        return float(np.mean(cell.with_statistics(kind)))

    done = [c for c in real(study, norm, rule) if c.with_statistics("running") and c.with_statistics("precise_128")]
    return [
        Loss(
            small,
            done[0],
            accuracy(done[0], "running") - accuracy(small, "running"),
            accuracy(done[0], "precise_128") - accuracy(small, "precise_128"),
        )
        for small in done[1:]
    ]
