"""Several runs at once: this process hands runs to worker processes, each of which trains one after the other.

A worker sends (name of a method of `Progress`, *arguments) through a pipe, ("next",) when it wants another run,
("failed", error), or ("done",). It receives the next run, None for the end, or the number of a signal that asks it to
stop. It ends at once when the pipe closes, so that no worker outlives this process and its lock on the workdir.
"""

import collections
import contextlib
import dataclasses
import math
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from rich.console import Console

from jaxnorm.errors import ProcessLost, UserError
from jaxnorm.files import cache_folder
from jaxnorm.study.config import Config
from jaxnorm.study.data.dataset import Dataset
from jaxnorm.study.runs.plan import Machine, examine
from jaxnorm.study.runs.progress import Display, Progress
from jaxnorm.study.runs.signals import SIGNALS, StopRequest
from jaxnorm.study.runs.study import Execution, outcome, steps_left, train_run, unfinished
from jaxnorm.study.runs.workdir import Workdir
from jaxnorm.study.training.devices import use_compilation_cache

LOOK_SECONDS = 0.2
"""Time between two looks at whether a signal has arrived."""
GPU_MEMORY = 0.9
"""Part of a GPU's memory that the workers on it divide among them."""

SetUp = Callable[[], Dataset]
"""Loads what a worker needs: the user's modules, which register norms, and the data. It must be picklable."""


@dataclasses.dataclass(frozen=True)
class Share:
    """What one worker has of the machine.

    Attributes:
        cores: numbers of its processor cores; empty where the system does not assign cores.
        environment: variables that choose its device.
    """

    cores: tuple[int, ...]
    environment: dict[str, str] = dataclasses.field(default_factory=dict)

    def take(self) -> None:
        """Restricts this process to the share, before JAX looks for devices."""
        if self.cores:
            os.sched_setaffinity(0, self.cores)
        os.environ.update(self.environment)


def shares(jobs: int, machine: Machine | None = None) -> list[Share]:
    """Divides the machine among workers.

    All workers have equally many cores, since the number of threads decides the last bits of a run. GPUs are given out
    in turn.

    Args:
        jobs: number of workers.
        machine: where they train; None divides the cores alone.

    Raises:
        UserError: if the devices cannot be divided.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    size = max(len(cores) // jobs, 1)
    starts = [job * size % len(cores) if cores else 0 for job in range(jobs)]  # more jobs than cores share them
    divided = [tuple(cores[start : start + size]) for start in starts]
    if machine is None or machine.platform == "cpu":
        return [Share(own) for own in divided]
    if machine.platform != "gpu":
        raise UserError(
            f"--jobs gives each run a CPU or GPU of its own, but the devices are {machine.platform}s; drop it"
        )
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if len(names) < machine.num_devices:
        names = [str(number) for number in range(machine.num_devices)]
    environment = {}
    if jobs > machine.num_devices and "XLA_PYTHON_CLIENT_MEM_FRACTION" not in os.environ:
        part = GPU_MEMORY / math.ceil(jobs / machine.num_devices)
        environment = {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{part:.3f}"}
    return [
        Share(own, {**environment, "CUDA_VISIBLE_DEVICES": names[job % machine.num_devices]})
        for job, own in enumerate(divided)
    ]


def examine_elsewhere(jobs: int, set_up: SetUp) -> Machine:
    """`plan.examine` as a worker sees the machine, in a process of its own, so that this one occupies no accelerator.

    Args:
        jobs: number of workers.
        set_up: what a worker loads first.

    Raises:
        UserError: if the process ends without an answer.
    """
    process, connection = _start(_examine, shares(jobs)[0], set_up)
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
    with contextlib.ExitStack() as stack:
        stack.callback(_close, workers)  # if there is an error here, that ends them
        stop = stack.enter_context(StopRequest())
        display = stack.enter_context(Display(console, steps_left(waiting, dataset, workdir), jobs))
        while waiting or workers:
            if stop.is_set or failure is not None:
                waiting.clear()
                for worker in workers.values():
                    worker.stop(stop.signal or signal.SIGTERM)
            while waiting and free:
                worker = _Worker(waiting.popleft(), free.pop(0), dataset.fingerprint, set_up, workdir, execution)
                workers[worker.connection] = worker
            for worker in _ready(workers):
                try:
                    kind, *values = worker.connection.recv()
                except (EOFError, OSError):
                    del workers[worker.connection]
                    free.append(worker.share)
                    worker.bury(workdir, display)
                    continue
                if kind == "failed":
                    failure = failure or values[0]
                elif kind == "next":
                    worker.give(waiting.popleft() if waiting else None)
                elif kind == "done":
                    worker.config = None
                else:
                    getattr(display, kind)(*values)
                    if kind == "end":
                        worker.config = None  # its outcome is written
    if failure is not None:
        raise failure
    return outcome(configs, workdir, stop if stop.is_set else None)


class _Worker:
    """A worker process as this process sees it; `config` is the run that it trains and has not ended."""

    def __init__(self, config: Config, share: Share, *arguments: Any) -> None:
        self.config: Config | None = config
        self.share = share
        self._process, self.connection = _start(_work, share, config, *arguments)
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

    def bury(self, workdir: Workdir, progress: Progress) -> None:
        """The process is gone: the run that it had has crashed."""
        self._process.join()
        self.connection.close()
        if self.config is not None:
            run = workdir.directory(self.config, progress=progress)
            if not run.is_finished:
                run.path.mkdir(parents=True, exist_ok=True)
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


# The rest runs in the other processes.


class _Remote(Progress):
    """Sends what a run reports to the process that shows it."""

    def __init__(self, send: Callable[..., None]) -> None:
        self._send = send

    def begin(self, config: Config, steps_per_epoch: int) -> None:
        self._send("begin", config, steps_per_epoch)

    def resume(self, config: Config, step: int) -> None:
        self._send("resume", config, step)

    def stepped(self, config: Config, step: int) -> None:
        self._send("stepped", config, step)

    def epoch(self, config: Config, row: dict[str, Any]) -> None:
        self._send("epoch", config, row)

    def note(self, config: Config, words: str) -> None:
        self._send("note", config, words)

    def end(self, config: Config, outcome: str) -> None:
        self._send("end", config, outcome)


def _work(
    connection: Connection,
    share: Share,
    first: Config,
    fingerprint: str,
    set_up: SetUp,
    workdir: Workdir,
    execution: Execution,
) -> None:
    share.take()
    given: queue.SimpleQueue[Config | None] = queue.SimpleQueue()

    def send(*message: Any) -> None:
        try:
            connection.send(message)
        except OSError:  # the other process is gone
            os._exit(1)

    with StopRequest(quiet=True) as stop:
        threading.Thread(target=_listen, args=(connection, given, stop), daemon=True).start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        try:
            dataset = set_up()
            if dataset.fingerprint != fingerprint:
                raise UserError(f"the data must not change, but {dataset.source} has other images now; restore them")
            use_compilation_cache(cache_folder() / "programs")
            config: Config | None = first
            while config is not None and not stop.is_set:
                train_run(config, dataset, workdir, _Remote(send), stop, execution)
                send("next")
                config = given.get()
        except (UserError, OSError) as error:
            send("failed", error)
        send("done")


def _listen(connection: Connection, given: "queue.SimpleQueue[Config | None]", stop: StopRequest) -> None:
    """Takes messages from the pipe, and ends this process when there is nobody at its other end."""
    while True:
        try:
            message = connection.recv()
        except (EOFError, OSError):
            os._exit(1)
        if isinstance(message, int):
            stop.request(message)
        else:
            given.put(message)


def _examine(connection: Connection, share: Share, set_up: SetUp) -> None:
    share.take()
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # others may be using the device
    try:
        connection.send(examine(set_up().to_json()))
    except UserError as error:
        connection.send(error)
