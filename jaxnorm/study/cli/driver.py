"""What every driver does with its options: check, train what is missing, report."""

import contextlib
import functools
from pathlib import Path
from typing import TYPE_CHECKING

from jaxnorm.errors import UserError
from jaxnorm.files import cache_folder
from jaxnorm.study.allocator import share_one_heap
from jaxnorm.study.cli.entry import is_running
from jaxnorm.study.cli.imports import load
from jaxnorm.study.cli.options import Options
from jaxnorm.study.exit_codes import is_of_signal
from jaxnorm.study.runs.lock import check_free, held

if TYPE_CHECKING:
    from jaxnorm.study.data.dataset import Dataset


def drive(options: Options, *, study: str) -> int:
    """Trains what is missing of a grid in its workdir, writes the report and returns the exit code.

    Args:
        options: the flags.
        study: the driver's name; a workdir belongs to one driver.

    Raises:
        UserError: before anything is written, if options, data and workdir do not fit.
    """
    if is_running():  # the process belongs to this program, which may set its memory
        share_one_heap()
    if options.may_be_first:
        check_free(options.workdir)
    options.check()

    # Late, so that --help and mistakes in flags load neither JAX nor matplotlib.
    from jaxnorm.study.cli.commands import show_report
    from jaxnorm.study.data import load_dataset
    from jaxnorm.study.runs import jobs, plan
    from jaxnorm.study.runs.progress import StudyConsole, say
    from jaxnorm.study.runs.provenance import command
    from jaxnorm.study.runs.shared import check_same_data, noticing_losses
    from jaxnorm.study.runs.study import Execution, train_grid, unfinished
    from jaxnorm.study.runs.workdir import Workdir
    from jaxnorm.study.training import devices
    from jaxnorm.study.training.run import check_fits

    devices.initialize_processes(options.coordinator, options.num_processes, options.process_id)
    several_jobs = options.jobs > 1
    if several_jobs and devices.is_distributed():
        raise UserError(f"--jobs starts its processes itself, but is {options.jobs} in one of several; drop it")
    num_devices = 1 if several_jobs else options.data_parallel
    configs = [devices.with_replicas(config, num_devices) for config in options.configs()]
    is_first = several_jobs or devices.is_first()  # with jobs, this process must not start a device
    if not several_jobs:
        devices.use_compilation_cache(cache_folder() / "programs")
        for config in configs:
            devices.devices_for(config, num_devices)

    workdir = Workdir(options.workdir, study=study, varied=options.varied)
    execution = Execution(num_devices, options.steps_per_call, options.checkpoint_every_seconds)
    console = StudyConsole()
    with contextlib.ExitStack() as stack:
        stack.enter_context(noticing_losses())
        if is_first:
            stack.enter_context(held(workdir.path))
            notes = workdir.check(configs, allow_changes=options.allow_changes)  # before a download
        dataset = load_dataset(options.dataset, data_dir=options.data_dir)
        for config in configs:
            check_fits(config, dataset)
        if not several_jobs:
            check_same_data(dataset)
        if not is_first:
            return train_grid(configs, dataset, workdir, console, execution)

        set_up = functools.partial(_set_up, options.imports, options.dataset, options.data_dir)
        examined = jobs.examine_elsewhere(options.jobs, set_up) if several_jobs else plan.examine(dataset.to_json())
        notes += workdir.check_surroundings(configs, examined.surroundings, allow_changes=options.allow_changes)
        todo = unfinished(configs, workdir)
        plan.announce(configs, todo, dataset, examined, workdir.path, console, jobs=options.jobs)
        for note in [*options.notes(), *(f"Note: {note}" for note in notes)]:
            say(console, note)
        workdir.describe(configs, preset=options.preset, command=command())
        if several_jobs:
            code = jobs.train_side_by_side(
                configs, dataset, workdir, console, execution, jobs=options.jobs, machine=examined, set_up=set_up
            )
        else:
            code = train_grid(configs, dataset, workdir, console, execution)
        if is_of_signal(code):
            say(console, f"To go on: {command()}")
        else:
            show_report(workdir.path, console)
    return code


def _set_up(imports: tuple[str, ...], dataset: str, data_dir: Path | None) -> "Dataset":
    """What a worker of `--jobs` loads first."""
    from jaxnorm.study.data import load_dataset

    for name in imports:
        load(name)
    return load_dataset(dataset, data_dir=data_dir, progress=False)
