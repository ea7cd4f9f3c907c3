"""Trains a grid of runs: skips what is finished, continues after a failure, stops when asked."""

import contextlib
import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from rich.console import Console

from jaxnorm import files
from jaxnorm.errors import UserError
from jaxnorm.study.allocator import release_freed_memory
from jaxnorm.study.config import Config
from jaxnorm.study.data.dataset import Dataset
from jaxnorm.study.exit_codes import ExitCode
from jaxnorm.study.registry import NORMS
from jaxnorm.study.runs.directory import RunDirectory
from jaxnorm.study.runs.progress import Display, Progress
from jaxnorm.study.runs.provenance import provenance, surroundings
from jaxnorm.study.runs.shared import Follower, SharedRecord, broadcast_selection, check_all_crashed, raise_if_lost
from jaxnorm.study.runs.signals import StopRequest
from jaxnorm.study.runs.tensorboard import also_tensorboard
from jaxnorm.study.runs.workdir import Workdir
from jaxnorm.study.training.devices import NumDevices, devices_for
from jaxnorm.study.training.processes import any_of, broadcast, is_first, num_processes
from jaxnorm.study.training.record import Stopped
from jaxnorm.study.training.run import train


@dataclasses.dataclass(frozen=True)
class Execution:
    """How runs are executed. It changes their numbers by rounding at most.

    Attributes:
        num_devices: devices that share each batch.
        steps_per_call: steps in one dispatch; None chooses by platform.
        checkpoint_every_seconds: time between checkpoints; None chooses by what one costs.
        seconds: after which runs in several jobs are stopped and saved.
        tensorboard: write each epoch as TensorBoard events, too.
    """

    num_devices: NumDevices = "auto"
    steps_per_call: int | None = None
    checkpoint_every_seconds: float | None = None
    seconds: float = math.inf
    tensorboard: bool = False


def train_grid(
    configs: Sequence[Config], dataset: Dataset, workdir: Workdir, console: Console, execution: Execution
) -> int:
    """Trains every run of a grid that is not finished, one after the other, each in its own directory.

    Several processes that train together all call this. The first one, which holds the workdir, decides what is trained
    and writes it.

    Args:
        configs: the runs, in the order in which they are trained.
        dataset: what they train on.
        workdir: the study's folder; only the first process uses it.
        console: where the first process reports.
        execution: how the runs are executed.

    Returns:
        The exit code: that of `outcome`, or that of a signal for a study that was stopped and saved.
    """
    todo = broadcast_selection(configs, unfinished(configs, workdir) if is_first() else [])
    with StopRequest() as stop, contextlib.ExitStack() as stack:
        display = Progress()
        if is_first():
            display = stack.enter_context(Display(console, steps_left(todo, dataset, workdir)))
            if execution.tensorboard:
                display = stack.enter_context(also_tensorboard(display, configs, workdir))
        for config in todo:
            if any_of(stop.is_set):
                break
            train_run(config, dataset, workdir, display, stop, execution)
        stopping = any_of(stop.is_set)
    return int(broadcast(np.int32(outcome(configs, workdir, stop if stopping else None) if is_first() else 0)))


def train_run(
    config: Config, dataset: Dataset, workdir: Workdir, progress: Progress, stop: StopRequest, execution: Execution
) -> None:
    """Trains one run and writes its outcome. A crash is an outcome, too.

    Args:
        config: the run.
        dataset: what it trains on.
        workdir: the study's folder.
        progress: where the run reports.
        stop: the request to stop that it obeys.
        execution: how it is executed.

    Raises:
        UserError: if the user has to fix something first, such as damaged checkpoints.
        OSError: if the disk does not accept more.
        ProcessLost: if another process of the run is gone.
    """
    run: RunDirectory | Follower = Follower(config)
    if is_first():
        every = execution.checkpoint_every_seconds
        run = workdir.directory(config, progress=progress, stop=stop, checkpoint_every_seconds=every)
    devices = devices_for(config, execution.num_devices)
    recorded = provenance(NORMS[config.norm].label, surroundings(dataset.to_json()))
    run.begin(dataset, {**recorded, "data_parallel": devices.count, "steps_per_call": execution.steps_per_call})
    record = SharedRecord(run, stop) if num_processes() > 1 else run
    try:
        result = train(config, dataset, record=record, devices=devices, steps_per_call=execution.steps_per_call)
    except Stopped:
        run.stopped()
    except UserError:
        raise
    except Exception as error:
        if files.is_of_storage(error):  # there is no room for the other runs either, nor for an outcome
            raise
        raise_if_lost(error)
        run.crash(error)
        check_all_crashed(config, error)
    else:
        run.complete(result)
    finally:
        release_freed_memory()


def unfinished(configs: Sequence[Config], workdir: Workdir) -> list[Config]:
    """The runs that still have to be trained.

    Args:
        configs: the runs.
        workdir: the study's folder.

    Returns:
        Those of `configs` that are not finished.
    """
    return [config for config in configs if not workdir.directory(config).is_finished]


def steps_left(configs: Sequence[Config], dataset: Dataset, workdir: Workdir) -> dict[Config, int]:
    """The number of steps that each run still has to do.

    Args:
        configs: the runs.
        dataset: what they train on.
        workdir: the study's folder.

    Returns:
        Steps by run.
    """
    left = {}
    for config in configs:
        total = len(dataset.train) // config.batch_size * config.last_epoch
        done = max(workdir.directory(config).checkpoints.steps(), default=0)
        left[config] = max(total - done, 0)
    return left


def outcome(configs: Sequence[Config], workdir: Workdir, stop: StopRequest | None = None) -> int:
    """The exit code that the runs' outcomes give.

    Args:
        configs: the runs.
        workdir: the study's folder.
        stop: the request to stop, if there was one.

    Returns:
        Complete, crashed or diverged, see `ExitCode`; that of the signal if it left runs unfinished.
    """
    if stop is not None and unfinished(configs, workdir):
        return stop.exit_code
    statuses = {(workdir.directory(config).result or {}).get("status") for config in configs}
    if "crashed" in statuses:
        return ExitCode.CRASHED
    return ExitCode.DIVERGED if "diverged" in statuses else ExitCode.COMPLETE
