"""A grid of runs from its checked options to its report."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxnorm.errors import UserError
from jaxnorm.files import cache_folder
from jaxnorm.study.cli.commands import power, show_report
from jaxnorm.study.cli.imports import load
from jaxnorm.study.cli.options import Options
from jaxnorm.study.cli.recorded import recorded_plan
from jaxnorm.study.config import PRESETS, Config
from jaxnorm.study.data import load_dataset
from jaxnorm.study.data.dataset import Dataset
from jaxnorm.study.exit_codes import is_of_signal
from jaxnorm.study.invocation import command
from jaxnorm.study.planned import Recorded, parsed_plan, read_plan
from jaxnorm.study.runs import jobs, plan
from jaxnorm.study.runs.lock import held
from jaxnorm.study.runs.progress import StudyConsole, say
from jaxnorm.study.runs.provenance import surroundings
from jaxnorm.study.runs.shared import check_same, noticing_losses
from jaxnorm.study.runs.study import Execution, steps_left, train_grid, unfinished
from jaxnorm.study.runs.tensorboard import writer_package
from jaxnorm.study.runs.workdir import Workdir
from jaxnorm.study.streams import tell
from jaxnorm.study.training import devices, processes
from jaxnorm.study.training.run import check_fits, check_network


def train_and_report(
    options: Options, configs: Sequence[Config], *, study: str, load_data: Callable[[], Dataset] | None = None
) -> int:
    """Trains what is missing of a grid in its workdir and writes the report.

    Args:
        options: the flags, checked.
        configs: all runs.
        study: the driver's name.
        load_data: loads the data; by default those that the options name.

    Returns:
        The exit code.

    Raises:
        UserError: before anything is written, if devices, data and workdir do not fit.
    """
    processes.initialize_processes(options.coordinator, options.num_processes, options.process_id)
    if options.tensorboard:
        writer_package()
    trainer = _SideBySide(options) if options.jobs > 1 else _InThisProcess(options, load_data)
    configs = trainer.prepared(configs)
    workdir = Workdir(options.workdir, study=study, varied=options.varied)
    console = StudyConsole(quiet=options.quiet)
    with contextlib.ExitStack() as stack:
        stack.enter_context(noticing_losses())
        if trainer.is_first:
            if not options.dry_run:
                stack.enter_context(held(workdir.path))
            notes = workdir.check(configs, allow_changes=options.allow_changes)  # before a download
            planned = workdir.planned(_plan(options, study), demanded=options.plan is not None)
        dataset = trainer.load()
        for config in configs:
            check_fits(config, dataset)
        _check_networks(configs, dataset)
        trainer.check_same(dataset)
        if not trainer.is_first:
            return 0 if options.dry_run else trainer.train(configs, dataset, workdir, console)

        machine = trainer.examine(dataset)
        if dataset.fingerprint:
            notes += workdir.check_surroundings(configs, machine.surroundings, allow_changes=options.allow_changes)
        todo = steps_left(unfinished(configs, workdir), dataset, workdir)
        plan.announce(configs, todo, dataset, machine, workdir.path, console, jobs=options.jobs)
        seeds = len({config.seed for config in configs})
        expected = power(parsed_plan(planned.plan), seeds) if planned else "Comparisons: chosen by the tool, no plan"
        for note in [expected, *options.notes(), *(f"Note: {note}" for note in notes)]:
            say(console, note)
        if options.dry_run:
            say(console, "Dry run: nothing is trained and nothing is written")
            return 0
        workdir.describe(configs, preset=options.preset, command=command(), planned=planned)
        code = trainer.train(configs, dataset, workdir, console)
        if is_of_signal(code):
            say(console, f"To go on: {command()}")
        else:
            show_report(workdir.path, console)
            if options.quiet:
                _tell_quietly(configs, workdir)
    return code


def _check_networks(configs: Sequence[Config], dataset: Dataset) -> None:
    """Tries networks that are not the published one, each with each norm: a run may end otherwise, a study not."""
    usual = Config()
    for norm in dict.fromkeys(config.norm for config in configs):
        config = next(config for config in configs if config.norm == norm)
        if (config.model, config.num_filters) != (usual.model, usual.num_filters):
            check_network(config, dataset)


def _plan(options: Options, study: str) -> Recorded | None:
    """The plan file that is named, else that of the study in `--config`, else the preset's for its own data."""
    if options.plan:
        return read_plan(options.plan, study)
    if options.config:
        return recorded_plan(options.config)
    is_preset_s = options.dataset == PRESETS[options.preset]["dataset"]
    return read_plan(Path(options.preset), study) if is_preset_s else None


def _tell_quietly(configs: Sequence[Config], workdir: Workdir) -> None:
    """What is left to say after `--quiet`: on standard error what went wrong, on standard output a path."""
    for config in configs:
        result = workdir.directory(config).result
        if result is not None and result["status"] != "complete":
            tell(f"{config.name}: {result['status']} {result['error'] or ''}".rstrip())
    print(workdir.path / "summary.csv")


def _loader(options: Options) -> Callable[[], Dataset]:
    """Loads the user's modules, then the data. A worker of `--jobs` calls it, too."""
    return functools.partial(
        _load,
        options.imports,
        options.dataset,
        data_dir=options.data_dir,
        image_size=options.image_size,
        progress=not options.quiet,
        download=not options.dry_run,
    )


def _execution(options: Options, num_devices: devices.NumDevices) -> Execution:
    return Execution(
        num_devices, options.steps_per_call, options.checkpoint_every_seconds, tensorboard=options.tensorboard
    )


class _InThisProcess:
    """One run after the other in this process. Several processes may train each run together."""

    def __init__(self, options: Options, load_data: Callable[[], Dataset] | None) -> None:
        devices.start()
        self._execution = _execution(options, options.data_parallel)
        self.is_first = processes.is_first()
        self.load = load_data or _loader(options)

    def prepared(self, configs: Sequence[Config]) -> list[Config]:
        """The runs with their number of replicas; checks that the devices can share the batches."""
        devices.use_compilation_cache(cache_folder() / "programs")
        configs = [devices.with_replicas(config, self._execution.num_devices) for config in configs]
        for config in configs:
            devices.devices_for(config, self._execution.num_devices)
        return configs

    def check_same(self, dataset: Dataset) -> None:
        """Checks that all processes have read the same images, and compute with them in the same way."""
        if processes.num_processes() > 1:
            check_same(surroundings(dataset.to_json()))

    def examine(self, dataset: Dataset) -> plan.Machine:
        """Looks at the machine."""
        return plan.examine(dataset.to_json())

    def train(self, configs: Sequence[Config], dataset: Dataset, workdir: Workdir, console: StudyConsole) -> int:
        """Trains every run that is not finished; every process calls it."""
        return train_grid(configs, dataset, workdir, console, self._execution)


class _SideBySide:
    """Several runs at the same time, each in a worker process on one device. This process starts no device."""

    is_first = True

    def __init__(self, options: Options) -> None:
        if processes.is_distributed():
            raise UserError(f"--jobs starts its processes itself, but is {options.jobs} in one of several; drop it")
        self._execution = _execution(options, 1)
        self._jobs = options.jobs
        self.load = _loader(options)
        self._set_up = _loader(dataclasses.replace(options, quiet=True))

    def prepared(self, configs: Sequence[Config]) -> list[Config]:
        """The runs with their number of replicas."""
        return [devices.with_replicas(config, self._execution.num_devices) for config in configs]

    def check_same(self, dataset: Dataset) -> None:
        """Nothing: each worker compares its images and surroundings with what the first process found."""

    def examine(self, dataset: Dataset) -> plan.Machine:  # noqa: ARG002
        """Looks at the machine through a process of its own."""
        self._machine = jobs.examine_elsewhere(self._jobs, self._set_up)
        return self._machine

    def train(self, configs: Sequence[Config], dataset: Dataset, workdir: Workdir, console: StudyConsole) -> int:
        """Trains every run that is not finished, after `examine`."""
        return jobs.train_side_by_side(
            configs,
            dataset,
            workdir,
            console,
            self._execution,
            jobs=self._jobs,
            machine=self._machine,
            set_up=self._set_up,
        )


def _load(imports: tuple[str, ...], dataset: str, **options: Any) -> Dataset:
    for name in imports:
        load(name)
    return load_dataset(dataset, **options)
