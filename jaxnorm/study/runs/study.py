"""Runs a grid of configurations: skips what is complete, goes on after a failure, stops when asked."""

import dataclasses
import time
import traceback
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from rich.console import Console

from jaxnorm import files
from jaxnorm.conv import kernels
from jaxnorm.errors import UserError
from jaxnorm.study import home
from jaxnorm.study.allocator import keep_freed_memory, release_freed_memory
from jaxnorm.study.config import Config
from jaxnorm.study.data.dataset import Dataset
from jaxnorm.study.registry import NORMS
from jaxnorm.study.runs import processes
from jaxnorm.study.runs.directory import RunDirectory
from jaxnorm.study.runs.estimate import seconds_for
from jaxnorm.study.runs.progress import Display, duration, say
from jaxnorm.study.runs.provenance import command, provenance, surroundings
from jaxnorm.study.runs.signals import StopRequest
from jaxnorm.study.runs.workdir import Workdir
from jaxnorm.study.training.loop import Result, check_fits, train_team
from jaxnorm.study.training.parallel import Wanted, devices_for
from jaxnorm.study.training.record import Record, Row, Stopped
from jaxnorm.study.training.team import team_for, teams

COMPLETE, CRASHED, MISTAKE, DIVERGED = 0, 1, 2, 3  # exit codes; 130 and 143 mean stopped and saved
STOPPED = 128
SAVE_COST_FACTOR = 50  # a checkpoint each 50 times its own cost: at most 2 % of the time


@dataclasses.dataclass(frozen=True)
class Execution:
    """How a grid is carried out: what does not decide its numbers beyond rounding.

    Attributes:
        data_parallel: devices that share each batch of a run that trains alone.
        steps_per_call: steps for which the host is not asked; None chooses by platform.
        checkpoint_every_seconds: time between checkpoints; None for 50 times what one costs.
        parallel_seeds: runs at most that train in lockstep, of those that differ in their seed alone.
    """

    data_parallel: Wanted = "auto"
    steps_per_call: int | None = None
    checkpoint_every_seconds: float | None = None
    parallel_seeds: int = 1


class DirectoryRecord:
    """A run's `Record` on disk: rows and checkpoints in its directory, progress on the display, stop by signal."""

    def __init__(
        self,
        workdir: Workdir,
        config: Config,
        steps_per_epoch: int,
        display: Display,
        stop: StopRequest,
        checkpoint_every_seconds: float | None,
        parallel_seeds: int = 1,
    ) -> None:
        self.directory = workdir.directory(config)
        self.checkpoints = workdir.checkpoints(config)
        self.rows: list[Row] = []
        self._config, self._display, self._stop = config, display, stop
        self._steps_per_epoch, self._every_seconds = steps_per_epoch, checkpoint_every_seconds
        self._saved_at, self._save_cost = time.monotonic(), 1.0
        self._stepped = False
        self._parallel_seeds = parallel_seeds  # all of them are saved together

    def restore(self, numbers: dict[str, Any]) -> tuple[dict[str, Any], float]:
        """The newest checkpoint that verifies; if none was ever saved, the run starts over.

        Raises:
            UserError: if none of those that were saved can be trusted, or training is past the epoch to stop after.
        """
        found = self.checkpoints.restore(numbers, last_step=self._config.num_epochs * self._steps_per_epoch)
        restored, seconds = (found.numbers, found.seconds) if found else (numbers, 0.0)
        step = int(restored["step"])
        for problem in found.problems if found else ():
            self._display.note(self._config, f"{problem}; put aside, going on from step {step}")
        if step > self._config.last_epoch * self._steps_per_epoch:
            raise UserError(
                f"{self._config.name} in {self.directory.path.parent} is trained to step {step}, but "
                f"--stop-after-epoch {self._config.stop_after_epoch} asks for less; raise it or choose another "
                "--workdir"
            )
        self.directory.reopen(step, self._steps_per_epoch)
        self.rows = self.directory.rows
        self._display.resume(self._config, step)
        return restored, seconds

    def save(self, numbers: dict[str, Any], seconds: float) -> None:
        """Writes a checkpoint and notes what it cost."""
        step = int(numbers["step"])  # waits for the device, which is no cost of saving
        started = time.monotonic()
        self.checkpoints.save(step, numbers, seconds)
        self._saved_at = time.monotonic()
        self._save_cost = self._saved_at - started

    def keep(self, epoch: int, arrays: dict[str, np.ndarray]) -> None:
        """Writes the epoch's arrays."""
        self.directory.keep(epoch, arrays)

    def append(self, row: Row) -> None:
        """Writes the epoch's line."""
        self.directory.append(row)
        self.rows.append(row)
        self._display.epoch(self._config, row)

    def stepped(self, step: int) -> None:
        """Moves the display on; after the first step, when all is compiled, memory stays for the next one."""
        if not self._stepped:
            self._stepped = True
            keep_freed_memory()
        self._display.stepped(self._config, step)

    def should_save(self) -> bool:
        """Whether the time since the last checkpoint is 50 times what that one took, or as long as asked for."""
        wait = self._every_seconds
        if wait is None:
            wait = SAVE_COST_FACTOR * self._save_cost * self._parallel_seeds
        return time.monotonic() - self._saved_at > wait

    def should_stop(self) -> bool:
        """Whether a signal has arrived."""
        return self._stop.signal is not None


def run_study(
    configs: Sequence[Config],
    dataset: Dataset,
    workdir: Workdir,
    *,
    preset: str,
    console: Console,
    execution: Execution = Execution(),
) -> int:
    """Trains every run of a grid that is not finished yet, each in its own directory.

    A run that crashes or diverges is recorded as such and the others go on. The caller holds the workdir.

    Args:
        configs: the runs, in the order in which they are trained and shown.
        dataset: what all of them train on.
        workdir: the study's folder, checked against `configs`.
        preset: name of the preset the recipe started from.
        console: where to report.
        execution: how they are carried out.

    Returns:
        The exit code: 0 complete, 1 a run crashed, 3 a run diverged, 130 or 143 stopped and saved.
    """
    workdir.describe(configs, preset=preset, command=command())
    todo = to_train(configs, workdir)
    steps = {config: len(dataset.train.label) // config.batch_size * config.last_epoch for config in todo}
    images = sum(count * config.batch_size for config, count in steps.items())
    stopped = False
    with StopRequest() as stop, Display(console, images, len(todo)) as display:
        hand_on([config for config in configs if workdir.is_finished(config)], configs, workdir, display)
        for team in teams(todo, execution.parallel_seeds):
            if stop.signal is not None:
                break
            display.begin(team, len(dataset.train) // team[0].batch_size)
            for config in team:
                display.skip(steps[config] - _steps_left(workdir, config, steps[config]))
            processes.call(configs.index(team[0]))  # with several, a team has one run
            try:
                run_team(team, dataset, workdir, display, stop, execution)
                for config in team if len(team) > 1 else ():  # what one has met, or all together, is not each one's
                    if (workdir.directory(config).result or {}).get("status") == "crashed":
                        display.note(config, "once more, alone")
                        run_team([config], dataset, workdir, display, stop, execution)
            except Stopped:
                for config in team:
                    if not workdir.is_finished(config):
                        display.end(config, "stopped and saved")
                stopped = True
                break
            for config in team:
                result = workdir.directory(config).result or {}
                if result.get("status") != "complete":
                    display.skip(steps[config] - result.get("step", 0))
            hand_on(team, configs, workdir, display)
    processes.call(processes.NO_MORE)
    stopped |= stop.signal is not None and not all(map(workdir.is_finished, configs))
    code = stop.exit_code if stopped else _exit_code(configs, workdir)
    processes.call(code)
    if code >= STOPPED:
        say(console, f"To go on: {command()}")
    return code


def to_train(configs: Sequence[Config], workdir: Workdir) -> list[Config]:
    """The runs of a grid that are not finished, without those that only wait for the outcome of another."""
    return [c for c in configs if not workdir.is_finished(c) and workdir.twin(c, configs) is None]


def hand_on(ended: Sequence[Config], configs: Sequence[Config], workdir: Workdir, display: Display) -> None:
    """Gives the outcomes of runs that have ended to those of the grid that compute the same."""
    for config in configs:
        twin = workdir.twin(config, configs)
        if twin is not None and twin in ended and not workdir.is_finished(config):
            workdir.directory(config).adopt(workdir.directory(twin), config)
            display.note(config, f"computes what {twin.name} does, and takes over its outcome")


def _exit_code(configs: Sequence[Config], workdir: Workdir) -> int:
    statuses = {(workdir.directory(config).result or {}).get("status") for config in configs}
    return CRASHED if "crashed" in statuses else DIVERGED if "diverged" in statuses else COMPLETE


def run_team(
    configs: Sequence[Config],
    dataset: Dataset,
    workdir: Workdir,
    display: Display,
    stop: StopRequest,
    execution: Execution = Execution(),
) -> None:
    """Trains a run, or several at once, each in its directory, and writes the outcomes; a crash is an outcome too."""
    label = NORMS[configs[0].norm].label
    devices = devices_for(configs[0], execution.data_parallel)
    steps_per_epoch = len(dataset.train) // configs[0].batch_size
    records: list[Record] = []
    for config in configs:
        shared = {"data_parallel": devices.count, "parallel_seeds": len(configs)}
        workdir.directory(config).begin(config, {**provenance(label, dataset), **shared})
        record: Record = DirectoryRecord(
            workdir, config, steps_per_epoch, display, stop, execution.checkpoint_every_seconds, len(configs)
        )
        records.append(processes.Together(record, stop) if jax.process_count() > 1 else record)
    unfinished = dict(zip(configs, records, strict=True))
    result = None
    try:
        for config, result in train_team(
            configs, dataset, records, alone=devices, steps_per_call=execution.steps_per_call
        ):
            _finish(workdir.directory(config), config, label, result, dataset)
            del unfinished[config]
            _tell(display, config, result)
    except (Stopped, UserError):
        raise
    except Exception as error:
        if files.is_of_storage(error):  # nor would the other runs, or this one's outcome, find room
            raise
        processes.raise_if_lost(error)
        words = " ".join(f"{type(error).__name__}: {error}".split())
        for config, record in unfinished.items():
            directory = workdir.directory(config)
            files.write_text(directory.path / "crash.txt", home.hidden(traceback.format_exc()))
            rows = record.rows or directory.rows  # those on disk, if it was not even restored
            step, epoch = (rows[-1]["step"], rows[-1]["epoch"]) if rows else (0, 0)
            outcome = dict(status="crashed", epoch=epoch, step=step, error=home.hidden(words))
            directory.finish(_outcome(config, label, rows, **outcome))
            display.end(config, f"crashed: {words} (traceback in {directory.path / 'crash.txt'})")
        if result is None:
            processes.check_all_crashed(configs[0], error)
    finally:
        release_freed_memory()


def _tell(display: Display, config: Config, result: Result) -> None:
    if result.status == "diverged":
        display.end(config, f"diverged at step {result.diverged_at_step}")
        return
    seeds = max((row.get("parallel_seeds", 1) for row in result.rows), default=1)
    shared = f", shared by {seeds} seeds" if seeds > 1 else ""
    display.end(
        config, f"test accuracy {100 * result.splits['test'].accuracy:.2f} %  ({duration(result.seconds)}{shared})"
    )


def _finish(directory: RunDirectory, config: Config, label: str, result: Result, dataset: Dataset) -> None:
    predictions = None
    if result.test_logits is not None:
        predictions = {"logits": result.test_logits, "label": np.asarray(dataset.test.label, np.int32)}
    outcome = _outcome(
        config,
        label,
        result.rows,
        status=result.status,
        epoch=result.epoch,
        step=result.step,
        num_params=result.num_params,
        seconds=result.seconds,
        diverged_at_step=result.diverged_at_step,
        statistics=result.statistics,
        **{name: metrics.to_json() for name, metrics in result.splits.items()},
    )
    directory.finish(outcome, predictions)


def _outcome(config: Config, label: str, rows: list[Row], **fields: Any) -> dict[str, Any]:
    best = max(rows, key=lambda row: row["val_accuracy"], default=None)
    return {
        "norm": config.norm,
        "label": label,
        "seed": config.seed,
        "num_epochs": config.num_epochs,
        "num_params": None,
        "seconds": None,
        "diverged_at_step": None,
        "error": None,
        "best_val_accuracy": best and best["val_accuracy"],
        "best_val_epoch": best and best["epoch"],
        "statistics": None,
        "train": None,
        "validation": None,
        "test": None,
        **fields,
    }


def announce(
    configs: Sequence[Config], dataset: Dataset, workdir: Workdir, console: Console, *, parallel_seeds: int = 1
) -> None:
    """Says what is about to be done, on which data and device, and about how long it takes."""
    todo = to_train(configs, workdir)
    waiting = [config for config in configs if not workdir.is_finished(config) and config not in todo]
    first = configs[0]
    of = "" if first.last_epoch == first.num_epochs else f" (of a schedule of {first.num_epochs})"
    sizes = ", ".join(map(str, dict.fromkeys(config.batch_size for config in configs)))
    seeds = [str(seed) for seed in dict.fromkeys(config.seed for config in configs)]
    lines = [
        f"Data: {dataset.description}, {len(dataset.train):,} training images, from {dataset.source}",
        f"Plan: {_counted(len(configs), 'run')} of {_counted(first.last_epoch, 'epoch')}{of}, batch size {sizes}: "
        + ", ".join(dict.fromkeys(config.norm for config in configs))
        + f"; seeds {', '.join(seeds if len(seeds) <= 10 else [*seeds[:9], '...', seeds[-1]])}",
        f"Into: {workdir.path}",
    ]
    if waiting:
        verb = "computes what another does and takes" if len(waiting) == 1 else "compute what others do and take"
        lines.append(f"Same: {_counted(len(waiting), 'run')} {verb} over the outcome")
    if (done := len(configs) - len(todo) - len(waiting)) > 0:
        lines.append(f"Done: {done} of {_counted(len(configs), 'run')}, left as they are")
    if todo:
        at_once = teams(todo, parallel_seeds)
        largest = max(map(len, at_once))
        if largest > 1:
            devices = team_for(largest)
            over = f", spread over {devices.count} devices" if devices.count > 1 else ""
            lines.append(f"Seeds: up to {largest} at once{over}")
        gaining = jax.devices()[0].platform != "cpu"  # CPU devices share their cores
        spread = {config: team_for(len(team)).count for team in at_once for config in team if gaining}
        seconds = seconds_for(todo, dataset, spread)
        lines.append(f"Time: training takes about {duration(seconds)} on {jax.devices()[0].platform.upper()}")
        if jax.default_backend() == "cpu" and kernels.alone() and (reason := kernels.missing()) is not None:
            lines.append(f"Convolutions: XLA's, not our own kernels, because {reason}; {kernels.COST}")
    for line in lines:
        say(console, line)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def check(configs: Sequence[Config], dataset: Dataset, workdir: Workdir, *, allow_changes: bool = False) -> list[str]:
    """Finds every mistake that can be found before anything is written.

    Args:
        configs: the runs.
        dataset: what they train on.
        workdir: where they go.
        allow_changes: let runs go on with another learning rate, and under other versions, flags, data and imported
            norms, or on another platform, than they began with.

    Returns:
        What a reader should know: differences that are allowed.

    Raises:
        UserError: naming the first mistake.
    """
    for config in configs:
        check_fits(config, dataset)
    changed = workdir.check(configs, allow_changes=allow_changes)
    refused, allowed = workdir.changes(surroundings(dataset))
    if refused and not allow_changes and not all(map(workdir.is_finished, configs)):
        raise UserError(
            f"{workdir.path} holds runs made under other conditions ({'; '.join(refused)}); restore those, choose "
            "another --workdir, or accept with --allow-changes that the runs then differ in this, too"
        )
    return changed + refused + allowed


def _steps_left(workdir: Workdir, config: Config, total: int) -> int:
    done = max(workdir.checkpoints(config).steps(), default=0)
    return total - min(done, total)
