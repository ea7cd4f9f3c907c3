"""Several runs at once: this process hands runs to worker processes and shows what they report."""

import collections
import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from rich.console import Console

from jaxnorm.errors import ProcessLost, UserError
from jaxnorm.study.config import Config
from jaxnorm.study.data.dataset import Dataset
from jaxnorm.study.registry import NORMS
from jaxnorm.study.runs.plan import Machine
from jaxnorm.study.runs.progress import Display, Progress
from jaxnorm.study.runs.provenance import provenance
from jaxnorm.study.runs.shares import Share, shares
from jaxnorm.study.runs.signals import SIGNALS, StopRequest
from jaxnorm.study.runs.study import Execution, outcome, steps_left, unfinished
from jaxnorm.study.runs.tensorboard import also_tensorboard
from jaxnorm.study.runs.time_limit import TimeLimit
from jaxnorm.study.runs.workdir import Workdir
from jaxnorm.study.runs.worker import SetUp, examine_machine, train_given_runs

LOOK_SECONDS = 0.2
"""Time between two looks at whether a signal has arrived."""


def examine_elsewhere(jobs: int, set_up: SetUp) -> Machine:
    """`plan.examine` as a worker sees the machine, in a process of its own, so that this one occupies no accelerator.

    Args:
        jobs: number of workers.
        set_up: what a worker loads first.

    Returns:
        What was found.

    Raises:
        UserError: if the process ends without an answer.
    """
    process, connection = _start(examine_machine, shares(jobs)[0], set_up)
    try:
        answer = connection.recv()
    except (EOFError, OSError):
        process.join()
        raise UserError(
            f"a process must be able to look at the devices, but {_how_it_ended(process)}; use --jobs 1 to see why"
        ) from None
    process.join()
    if isinstance(answer, BaseException):
        raise answer
    machine: Machine = answer
    return machine


def train_side_by_side(
    configs: Sequence[Config],
    dataset: Dataset,
    workdir: Workdir,
    console: Console,
    execution: Execution,
    *,
    jobs: int,
    machine: Machine,
    set_up: SetUp,
) -> int:
    """Trains every run of a grid that is not finished, several at a time, each in a worker process.

    A run whose worker dies has crashed; another worker continues with the next run.

    Args:
        configs: the runs, in the order in which they begin.
        dataset: what they train on.
        workdir: the study's folder, which this process holds.
        console: where to report.
        execution: how the runs are executed.
        jobs: number of workers.
        machine: where they train.
        set_up: what a worker loads first.

    Returns:
        The exit code, as that of `study.train_grid`.

    Raises:
        UserError: if the user has to fix something first, such as damaged checkpoints.
        OSError: if the disk does not accept more. In both cases the other runs are stopped and saved.
    """
    waiting = collections.deque(unfinished(configs, workdir))
    free = shares(jobs, machine)
    workers: dict[Connection, _Worker] = {}
    failure: Exception | None = None
    steps = steps_left(waiting, dataset, workdir)
    limit = TimeLimit(execution.seconds, steps)
    with contextlib.ExitStack() as stack:
        stack.callback(_close, workers)  # if there is an error here, that ends them
        stop = stack.enter_context(StopRequest())
        display: Progress = stack.enter_context(Display(console, steps, jobs))
        if execution.tensorboard:
            display = stack.enter_context(also_tensorboard(display, configs, workdir))
        while (waiting or workers) and not _is_too_late(limit, stop):
            if stop.is_set or failure is not None:
                waiting.clear()
                for worker in workers.values():
                    worker.stop(stop.signal or signal.SIGTERM)
            while waiting and free:
                expected = machine.surroundings
                worker = _Worker(limit.take(waiting), free.pop(0), expected, set_up, workdir, execution)
                workers[worker.connection] = worker
            for worker in _ready(workers):
                kind, *values = worker.receive()
                if kind == "gone":
                    del workers[worker.connection]
                    free.append(worker.share)
                    worker.bury(workdir, dataset, machine, display)
                elif kind == "failed":
                    failure = failure or values[0]
                elif kind == "next":
                    worker.give(limit.take(waiting) if waiting else None)
                elif kind == "done":
                    worker.config = None
                else:
                    getattr(display, kind)(*values)
                    if kind == "end":
                        worker.config = None  # its outcome is written
                        result = workdir.directory(values[0]).result or {}
                        limit.ended(values[0], complete=result.get("status") == "complete")
    if failure is not None:
        raise failure
    return outcome(configs, workdir, stop if stop.is_set else None)


def _is_too_late(limit: TimeLimit, stop: StopRequest) -> bool:
    """Asks all to stop when the time is over; whether a run that cannot, such as one that compiles, must end now."""
    if limit.is_over and not stop.is_set:
        stop.request(signal.SIGTERM)
    return limit.is_overdue


class _Worker:
    """A worker process as this process sees it; `config` is the run that it trains and has not ended."""

    def __init__(self, config: Config, share: Share, *arguments: Any) -> None:
        self.config: Config | None = config
        self.share = share
        self._process, self.connection = _start(train_given_runs, share, config, *arguments)
        self._is_stopping = False

    def give(self, config: Config | None) -> None:
        """Gives it the next run, or tells it to end."""
        self.config = config
        self._send(config)

    def stop(self, number: int) -> None:
        """Asks it once to save and end. Not by a signal: a terminal sends one, too, and two end a process at once."""
        if not self._is_stopping:
            self._is_stopping = True
            self._send(number)

    def receive(self) -> Any:
        """Its next message, see `worker`; ("gone",) if it is no longer there."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            return ("gone",)

    def bury(self, workdir: Workdir, dataset: Dataset, machine: Machine, progress: Progress) -> None:
        """The process is gone: the run that it had has crashed."""
        self._process.join()
        self.connection.close()
        if self.config is not None:
            run = workdir.directory(self.config, progress=progress)
            if not run.is_finished:
                if run.manifest is None:
                    run.begin(dataset, provenance(NORMS[self.config.norm].label, machine.surroundings))
                run.crash(ProcessLost(_how_it_ended(self._process)))

    def _send(self, message: Config | int | None) -> None:
        with contextlib.suppress(OSError):  # it has died, and the next look at its pipe shows that
            self.connection.send(message)


def _close(connections: Iterable[Connection]) -> None:
    for connection in connections:
        connection.close()


def _ready(workers: dict[Connection, _Worker]) -> Iterator[_Worker]:
    """The workers that have sent something or died, after a short wait if there are none."""
    for connection in wait(list(workers), LOOK_SECONDS):
        if isinstance(connection, Connection):
            yield workers[connection]


def _how_it_ended(process: BaseProcess) -> str:
    code = process.exitcode or 0
    if code >= 0:
        return f"its process ended with exit code {code}"
    return f"its process was ended by {signal.Signals(-code).name}"


def _start(target: Callable[..., None], *arguments: Any) -> tuple[BaseProcess, Connection]:
    """Starts a process with one end of a pipe. It begins with the signals blocked, so that none is lost."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=target, args=(theirs, *arguments), daemon=True)
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
    theirs.close()
    return process, ours
