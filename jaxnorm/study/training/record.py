"""What keeps a run's results while it trains, and may stop it: on disk, or in memory."""

from typing import Any, Protocol

import numpy as np

Row = dict[str, Any]


class Stopped(Exception):
    """Training was asked to stop; the state after the last finished step is saved."""


class Record(Protocol):
    """Keeps what a run must not lose, and decides when it saves and stops. `Memory` is the simplest one.

    Attributes:
        rows: one mapping per finished epoch, see `jaxnorm.study.training.epoch.epoch_row`.
    """

    @property
    def rows(self) -> list[Row]:
        """The rows of the finished epochs."""

    def restore(self, saved: dict[str, Any]) -> tuple[dict[str, Any], float]:
        """The newest saved fields of the state, and the seconds that its unfinished epoch has taken.

        Cuts `rows` back to the epochs before that state's step.

        Args:
            saved: the fields of the initial state, `TrainState.saved`; returned where nothing was saved.

        Returns:
            The saved fields and the seconds.
        """

    def save(self, saved: dict[str, Any], seconds: float) -> None:
        """Keeps fields of the state.

        Args:
            saved: `TrainState.saved`.
            seconds: time that the unfinished epoch has taken.
        """

    def keep(self, epoch: int, arrays: dict[str, np.ndarray]) -> None:
        """Keeps the arrays of a finished epoch.

        Args:
            epoch: counted from 1.
            arrays: by name, see `jaxnorm.study.training.epoch.epoch_arrays`.
        """

    def append(self, row: Row) -> None:
        """Adds the row of a finished epoch to `rows`.

        Args:
            row: see `jaxnorm.study.training.epoch.epoch_row`.
        """

    def stepped(self, step: int) -> None:
        """Is called when steps have been dispatched.

        Args:
            step: updates dispatched so far.
        """

    def should_save(self) -> bool:
        """Whether it is time for a checkpoint.

        Returns:
            True if it is.
        """

    def should_stop(self) -> bool:
        """Whether the run has been asked to end early.

        Returns:
            True if it has.
        """


class Memory(Record):
    """A record that lasts as long as the object; it restores nothing and never stops a run.

    Attributes:
        rows: one mapping per finished epoch.
        arrays: the arrays of each finished epoch, by epoch from 1.
    """

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self.arrays: dict[int, dict[str, np.ndarray]] = {}

    @property
    def rows(self) -> list[Row]:
        return self._rows

    def restore(self, saved: dict[str, Any]) -> tuple[dict[str, Any], float]:
        return saved, 0.0

    def save(self, saved: dict[str, Any], seconds: float) -> None:
        pass

    def keep(self, epoch: int, arrays: dict[str, np.ndarray]) -> None:
        self.arrays[epoch] = arrays

    def append(self, row: Row) -> None:
        self.rows.append(row)

    def stepped(self, step: int) -> None:
        pass

    def should_save(self) -> bool:
        return False

    def should_stop(self) -> bool:
        return False
