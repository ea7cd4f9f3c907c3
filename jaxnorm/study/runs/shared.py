"""Several processes train one run together: the first keeps its files and decides, the others follow."""

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxnorm.errors import ProcessLost, UserError, one_line
from jaxnorm.study.config import Config
from jaxnorm.study.data.dataset import Dataset
from jaxnorm.study.runs.provenance import differences
from jaxnorm.study.runs.signals import StopRequest
from jaxnorm.study.streams import tell
from jaxnorm.study.training.processes import any_of, barrier, broadcast, num_processes, process_index
from jaxnorm.study.training.record import Memory, Record, Row
from jaxnorm.study.training.run import Result

ASK_EVERY = 20
"""Steps after which the processes ask each other again whether one was asked to stop."""


class SharedRecord(Record):
    """The `Record` of a run in each of several processes: all restore what the first one does, and stop together.

    Args:
        record: the run's directory in the first process, a `Follower` in the others.
        stop: the request to stop of this process.
    """

    def __init__(self, record: Record, stop: StopRequest) -> None:
        self._record, self._stop = record, stop
        self._asked_at, self._stopping = 0, False
        self._rows: list[Row] = []

    @property
    def rows(self) -> list[Row]:
        return self._rows

    def restore(self, saved: dict[str, Any]) -> tuple[dict[str, Any], float]:
        saved, seconds = self._record.restore(saved)
        saved, seconds = broadcast((saved, np.float64(seconds)))
        self.rows[:] = json.loads(broadcast_text(json.dumps(self._record.rows)))
        return saved, float(seconds)

    def save(self, saved: dict[str, Any], seconds: float) -> None:
        self._record.save(saved, seconds)

    def keep(self, epoch: int, arrays: dict[str, np.ndarray]) -> None:
        self._record.keep(epoch, arrays)

    def append(self, row: Row) -> None:
        self._record.append(row)
        self.rows.append(row)

    def stepped(self, step: int) -> None:
        self._record.stepped(step)
        if step - self._asked_at >= ASK_EVERY:
            self._asked_at = step
            self._stopping = any_of(self._stop.is_set)

    def should_save(self) -> bool:
        return self._record.should_save()

    def should_stop(self) -> bool:
        return self._stopping


class Follower(Memory):
    """What a run has in every process but the first, instead of a `RunDirectory`: it writes nothing.

    Args:
        config: the run.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self._config = config

    def begin(self, dataset: Dataset, provenance: dict[str, Any]) -> None:
        """The run begins.

        Args:
            dataset: what it trains on.
            provenance: what is recorded about it.
        """

    def complete(self, result: Result) -> None:
        """The run is over.

        Args:
            result: what `train` has returned.
        """

    def stopped(self) -> None:
        """The run has ended early."""

    def crash(self, error: BaseException) -> None:
        """Prints that the run has crashed.

        Args:
            error: what has ended it.
        """
        words = one_line(f"{type(error).__name__}: {error}")
        tell(f"process {process_index()}: {self._config.name}: {words}")


def broadcast_text(text: str) -> str:
    """Broadcasts a text; every process calls it.

    Args:
        text: this process's text.

    Returns:
        The first process's text.
    """
    if num_processes() == 1:
        return text
    content = np.frombuffer(text.encode(), np.uint8)
    length = int(broadcast(np.int64(len(content))))
    padded = np.zeros(length, np.uint8)
    padded[: min(length, len(content))] = content[:length]
    return bytes(broadcast(padded)).decode()


def broadcast_selection(configs: Sequence[Config], selected: Sequence[Config]) -> list[Config]:
    """Broadcasts which runs the first process has selected; every process calls it.

    Args:
        configs: all runs, the same in every process.
        selected: those that this process selects.

    Returns:
        Those that the first process has selected.
    """
    known = set(selected)
    chosen = broadcast(np.array([config in known for config in configs]))
    return [config for config, is_chosen in zip(configs, chosen, strict=True) if is_chosen]


def check_same(found: dict[str, Any]) -> None:
    """Checks that every process trains on the same images and under the same conditions; every process calls it.

    Args:
        found: the surroundings of this process.

    Raises:
        UserError: in a process whose data, options or imported files differ from the first one's.
    """
    if changed := differences(json.loads(broadcast_text(json.dumps(found))), found)[0]:
        raise UserError(
            f"all processes must train on the same data and under the same conditions, but the first one and process "
            f"{process_index()} differ ({'; '.join(changed)}); check both hosts"
        )


def check_all_crashed(config: Config, error: Exception) -> None:
    """Checks that a run that has crashed here has crashed in every process, as a faulty variant does.

    Args:
        config: the run.
        error: what has ended it here.

    Raises:
        ProcessLost: if it has not. The other processes then notice that this one is gone.
    """
    if num_processes() > 1 and not barrier(f"crash of {config.name}"):
        words = one_line(f"{type(error).__name__}: {error}", 200)
        raise ProcessLost(f"{config.name} has crashed in process {process_index()} alone ({words})") from error


def raise_if_lost(error: Exception) -> None:
    """Raises `ProcessLost` if an error means that another process is gone; only the text of a runtime error says so.

    Args:
        error: what was raised here.

    Raises:
        ProcessLost: if another process is gone.
    """
    # A mistake or a disk error may contain the words below in a path; a loss is already reported.
    if isinstance(error, (UserError, OSError, ProcessLost)):
        return
    text = one_line(error)
    if num_processes() > 1 and re.search("gloo|nccl|coordination service|heartbeat|connection", text, re.I):
        raise ProcessLost(f"another process of this run is gone ({text[:200]})") from error


@contextlib.contextmanager
def noticing_losses() -> Iterator[None]:
    """Makes a `ProcessLost` of every error that means that another process is gone.

    Yields:
        None.

    Raises:
        ProcessLost: in place of such an error.
    """
    try:
        yield
    except Exception as error:
        raise_if_lost(error)
        raise
