"""What keeps a run's numbers while it trains, and may stop it: on disk, or nowhere."""

from typing import Any, Protocol

import numpy as np

Row = dict[str, Any]


class Stopped(Exception):
    """Training was asked to stop; the state after the last finished step is saved."""


class Record(Protocol):
    """Where a run keeps what must survive it, and hears from outside. `Memory` is one that keeps nothing."""

    rows: list[Row]
    """Lines of the epochs finished so far."""

    def restore(self, numbers: dict[str, Any]) -> tuple[dict[str, Any], float]:
        """The saved numbers in the shape of `numbers`, or `numbers` themselves; cuts `rows` back to their step.

        With them the seconds that the unfinished epoch had taken.
        """

    def save(self, numbers: dict[str, Any], seconds: float) -> None:
        """Keeps the numbers of a state, and the seconds that its unfinished epoch has taken."""

    def keep(self, epoch: int, arrays: dict[str, np.ndarray]) -> None:
        """Keeps the arrays of a finished epoch: gates, and the layers' quantiles and histograms."""

    def append(self, row: Row) -> None:
        """Keeps the line of a finished epoch."""

    def stepped(self, step: int) -> None:
        """Hears that `step` steps are done."""

    def should_save(self) -> bool:
        """Whether it is time for a checkpoint."""

    def should_stop(self) -> bool:
        """Whether the run has been asked to end early."""


class Memory:
    """A record that lives as long as the run."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.arrays: dict[int, dict[str, np.ndarray]] = {}

    def restore(self, numbers: dict[str, Any]) -> tuple[dict[str, Any], float]:
        """Nothing is ever saved: the numbers as they are."""
        return numbers, 0.0

    def save(self, numbers: dict[str, Any], seconds: float) -> None:
        """Keeps nothing."""

    def keep(self, epoch: int, arrays: dict[str, np.ndarray]) -> None:
        """Keeps the arrays for the caller."""
        self.arrays[epoch] = arrays

    def append(self, row: Row) -> None:
        """Keeps the line for the caller."""
        self.rows.append(row)

    def stepped(self, step: int) -> None:
        """Tells nobody."""

    def should_save(self) -> bool:
        """Never."""
        return False

    def should_stop(self) -> bool:
        """Never."""
        return False
