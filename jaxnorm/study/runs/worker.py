"""A worker process: it trains the runs that its parent gives it, one after the other.

It sends (name of a method of `Progress`, *arguments) through a pipe, ("next",) when it wants another run,
("failed", error), or ("done",). It receives the next run, None for the end, or the number of a signal that asks it to
stop. It ends at once when the pipe closes, so that no worker outlives its parent and the lock on the workdir.
"""

import os
import queue
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from jaxnorm.errors import UserError
from jaxnorm.files import cache_folder
from jaxnorm.study.allocator import share_one_heap
from jaxnorm.study.config import Config
from jaxnorm.study.data.dataset import Dataset
from jaxnorm.study.runs.plan import examine
from jaxnorm.study.runs.progress import Progress
from jaxnorm.study.runs.provenance import differences, surroundings
from jaxnorm.study.runs.shares import Share
from jaxnorm.study.runs.signals import SIGNALS, StopRequest, heeded
from jaxnorm.study.runs.study import Execution, train_run
from jaxnorm.study.runs.workdir import Workdir
from jaxnorm.study.streams import open_streams
from jaxnorm.study.training.devices import platform, start, use_compilation_cache

SetUp = Callable[[], Dataset]
"""Loads what a worker needs: the user's modules, which register norms, and the data. It must be picklable."""


class Remote(Progress):
    """Sends what a run reports to the process that shows it.

    Args:
        send: sends its arguments as one message.
    """

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


def train_given_runs(
    connection: Connection,
    share: Share,
    first: Config,
    expected: dict[str, Any],
    set_up: SetUp,
    workdir: Workdir,
    execution: Execution,
) -> None:
    """Trains one run after the other, until there is none or a signal asks it to stop.

    Args:
        connection: to the parent.
        share: what this process has of the machine.
        first: the first run.
        expected: the surroundings that the parent knows, see `provenance.surroundings`.
        set_up: what this process loads first.
        workdir: the study's folder.
        execution: how runs are executed.
    """
    open_streams()
    share.take()
    share_one_heap()
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
            start()
            dataset = set_up()
            share.check(platform())
            _check_same(expected, surroundings(dataset.to_json()))
            use_compilation_cache(cache_folder() / "programs")
            config: Config | None = first
            while config is not None and not stop.is_set:
                train_run(config, dataset, workdir, Remote(send), stop, execution)
                send("next")
                config = given.get()
        except (UserError, OSError) as error:
            send("failed", error)
        send("done")


def _check_same(expected: dict[str, Any], found: dict[str, Any]) -> None:
    """Checks that nothing that decides numbers has changed since the study began, such as an imported file."""
    if changed := differences(expected, found)[0]:
        raise UserError(f"all jobs must train under the same conditions, but in one {'; '.join(changed)}; restore that")


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


def examine_machine(connection: Connection, share: Share, set_up: SetUp) -> None:
    """Sends what `plan.examine` finds in this process, or a `UserError`.

    Args:
        connection: to the parent.
        share: what this process has of the machine.
        set_up: what this process loads first.
    """
    open_streams()
    share.take()
    for number in heeded():
        signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # others may be using the device
    try:
        start()
        connection.send(examine(set_up().to_json()))
    except UserError as error:
        connection.send(error)
