"""Several processes train one run: the first keeps its files and tells the others, which keep nothing."""

import contextlib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jaxnorm.errors import ProcessLost, UserError
from jaxnorm.study.config import Config
from jaxnorm.study.data.dataset import Dataset
from jaxnorm.study.runs.signals import StopRequest
from jaxnorm.study.training.loop import train
from jaxnorm.study.training.parallel import Wanted, all_reach, any_of, devices_for, told
from jaxnorm.study.training.record import Memory, Record, Row, Stopped

ASK_EVERY = 20  # steps between two questions whether any process was asked to stop
NO_MORE = -1


class Together:
    """A `Record` that all processes share: what it restores is the first one's, and a stop is everybody's.

    Args:
        own: the run's record in the first process, a `Memory` in the others.
        stop: signals that reach this process.
    """

    def __init__(self, own: Record, stop: StopRequest) -> None:
        self._own, self._stop = own, stop
        self._asked_at, self._stopping = 0, False
        self.rows: list[Row] = []

    def restore(self, numbers: dict[str, Any]) -> tuple[dict[str, Any], float]:
        """The first process's numbers and rows, in every process."""
        numbers, seconds = self._own.restore(numbers)
        numbers, seconds = told((numbers, np.float64(seconds)))
        self.rows[:] = json.loads(tell_text(json.dumps(self._own.rows)))
        return numbers, float(seconds)

    def save(self, numbers: dict[str, Any], seconds: float) -> None:
        """In the first process, a checkpoint."""
        self._own.save(numbers, seconds)

    def keep(self, epoch: int, arrays: dict[str, np.ndarray]) -> None:
        """In the first process, the epoch's arrays."""
        self._own.keep(epoch, arrays)

    def append(self, row: Row) -> None:
        """The epoch's line; the seconds in it are each process's own."""
        self._own.append(row)
        self.rows.append(row)

    def stepped(self, step: int) -> None:
        """Moves the display on; now and then asks all processes whether one was asked to stop."""
        self._own.stepped(step)
        if step - self._asked_at >= ASK_EVERY:
            self._asked_at = step
            self._stopping = any_of(self._stop.signal is not None)

    def should_save(self) -> bool:
        """The first process's own time; the others keep nothing."""
        return self._own.should_save()

    def should_stop(self) -> bool:
        """What the processes last agreed on."""
        return self._stopping


def tell_text(text: str) -> str:
    """The first process's text, in every process."""
    if jax.process_count() == 1:
        return text
    content = np.frombuffer(text.encode(), np.uint8)
    length = int(told(np.int64(len(content))))
    padded = np.zeros(length, np.uint8)
    padded[: min(length, len(content))] = content[:length]
    return bytes(told(padded)).decode()


def check_same_data(dataset: Dataset) -> None:
    """Checks that every process has read the same images.

    Raises:
        UserError: in a process whose data differ from the first one's.
    """
    if tell_text(dataset.fingerprint) != dataset.fingerprint:
        raise UserError(
            f"all processes must read the same data, but process {jax.process_index()} has read other images than the "
            f"first from {dataset.source}; check --data-dir on its host"
        )


def call(index: int) -> None:
    """In the first process: which run comes next, or `NO_MORE`."""
    told(np.int32(index))


def follow(
    configs: Sequence[Config], dataset: Dataset, data_parallel: Wanted = "auto", steps_per_call: int | None = None
) -> int:
    """In every process but the first: takes part in each run that the first one calls, and keeps nothing.

    Returns:
        The exit code that the first process ends with.

    Raises:
        ProcessLost: if another process is gone, or this one has crashed alone.
    """
    with StopRequest() as stop:
        while (index := int(told(np.int32(0)))) != NO_MORE:
            config = configs[index]
            devices, record = devices_for(config, data_parallel), Together(Memory(), stop)
            try:
                train(config, dataset, record=record, devices=devices, steps_per_call=steps_per_call)
            except Stopped:
                continue
            except Exception as error:
                raise_if_lost(error)
                print(f"process {jax.process_index()}: {config.name}: {type(error).__name__}: {error}", file=sys.stderr)
                check_all_crashed(config, error)
    return int(told(np.int32(0)))


def check_all_crashed(config: Config, error: Exception) -> None:
    """Checks that a run that has crashed here has done so in every process, as a faulty variant does.

    Raises:
        ProcessLost: if the others train on; they notice that this process is gone.
    """
    if not all_reach(f"crash of {config.name}"):
        words = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ProcessLost(f"{config.name} has crashed in process {jax.process_index()} alone ({words})") from error


def raise_if_lost(error: Exception) -> None:
    """Raises `ProcessLost` where the text of a runtime error (all that tells) says that another process is gone."""
    text = " ".join(str(error).split())
    # A mistake or a disk, whatever words are in its path; or it is said already.
    if isinstance(error, (UserError, OSError, ProcessLost)):
        return
    if jax.process_count() > 1 and re.search("gloo|nccl|coordination service|heartbeat|connection", text, re.I):
        raise ProcessLost(f"another process of this run is gone ({text[:200]})") from error


@contextlib.contextmanager
def noticing_losses() -> Iterator[None]:
    """Turns errors that mean that another process is gone into `ProcessLost`."""
    try:
        yield
    except Exception as error:
        raise_if_lost(error)
        raise
