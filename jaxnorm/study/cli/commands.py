"""The commands of ``python -m jaxnorm``, which do not train."""

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from jaxnorm.errors import UserError
from jaxnorm.study.cli.imports import load, load_jax
from jaxnorm.study.cli.parser import parsed
from jaxnorm.study.planned import Plan, parsed_plan, read_plan
from jaxnorm.study.runs.progress import StudyConsole, say
from jaxnorm.study.words import counted


def show_report(workdir: Path, console: Console) -> None:
    """Writes a study's tables, figures and page, and prints the table and the page's path.

    Args:
        workdir: the study's folder.
        console: where to print.
    """
    from jaxnorm.study.report.write import print_table, write_report

    print_table(write_report(workdir), console)
    say(console, f"Report: {workdir / 'report.html'}")


def report(workdir: Annotated[Path, tyro.conf.Positional]) -> int:
    """Rebuilds the tables, figures and the page of a study's folder from its run directories.

    Args:
        workdir: the folder that a driver of experiments/ has filled.

    Returns:
        The exit code.
    """
    show_report(workdir, StudyConsole())
    return 0


def publish(workdir: Annotated[Path, tyro.conf.Positional], folder: Annotated[Path, tyro.conf.Positional]) -> int:
    """Copies the finished runs of a study, without checkpoints, to a folder, and rebuilds the report there.

    The workdir is only read: a driver may train there at the same time.

    Args:
        workdir: the folder that a driver of experiments/ has filled.
        folder: where to, such as results/NAME: a new folder, or an earlier publication of the same study.

    Returns:
        The exit code.
    """
    from jaxnorm.study.report.formats import NAMED, listed
    from jaxnorm.study.report.publish import OUTCOMES, publish
    from jaxnorm.study.report.write import print_table

    study, console = publish(workdir, folder), StudyConsole()
    print_table(study, console)
    finished = study.runs.status.isin(OUTCOMES)
    if not finished.all():
        say(console, f"Not finished, left out: {listed(study.runs.name[~finished].tolist(), NAMED)}")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    say(console, f"Published: {counted(finished.sum(), 'run')}, {size / 1e6:.1f} MB in all, {folder}")
    return 0


def calibration(folder: Annotated[Path, tyro.conf.Positional], workdir: Path = Path("runs/calibration")) -> int:
    """Says how far the probabilities of a study's networks can be believed: NLL, Brier score, calibration error.

    Args:
        folder: a workdir with finished runs, or a publication.
        workdir: where the page, its figures and calibration.json are written.

    Returns:
        The exit code.
    """
    from jaxnorm.study.probes.calibration_page import write_calibration
    from jaxnorm.study.report.folders import read_study

    console = StudyConsole()
    for one in write_calibration(read_study(folder), workdir).itertuples():
        scores = f"NLL {one.nll:.3f}, Brier {one.brier:.4f}, calibration error {100 * one.ece:.2f} %"
        say(console, f"{one.label}: {scores} ({100 * one.ece_calibrated:.2f} % if calibrated)")
    say(console, f"Report: {workdir / 'report.html'}")
    return 0


def curvature(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional],
    images: int = 256,
    products: int = 20,
    imports: Annotated[
        tuple[str, ...], tyro.conf.arg(name="import", metavar="FILE_OR_MODULE"), tyro.conf.UseAppendAction
    ] = (),
    data_dir: Path | None = None,
) -> int:
    """Computes the largest eigenvalue of the Hessian of the training loss under the final weights of finished runs.

    The loss is that of a training step, on the first training images without augmentation.

    Args:
        runs: folders of finished runs, such as runs/compare_norms/bn-seed0.
        images: how many training images.
        products: Hessian products of Lanczos' method; each takes about as long as two gradients.
        imports: a Python file or module to load first, for the norms it registers; repeatable.
        data_dir: folder of CIFAR-10; default $JAXNORM_DATA_DIR, then the cache folder.

    Returns:
        The exit code.

    Raises:
        UserError: if a flag is out of range, or a folder holds no finished run.
    """
    for flag, value in (("--images", images), ("--products", products)):
        if value < 1:
            raise UserError(f"{flag} must be at least 1, but is {value}; give 1 or more")
    if not runs:
        raise UserError("curvature must be given the folder of a finished run, but is given none; name one or more")
    load_jax()
    for name in imports:
        load(name)
    from jaxnorm.study.data import load_dataset
    from jaxnorm.study.probes.curvature import curvature_of_run
    from jaxnorm.study.runs.trained import load_run

    console, loaded = StudyConsole(), [load_run(folder) for folder in runs]
    datasets = {
        name: load_dataset(name, data_dir=None if name == "digits" else data_dir)
        for name in dict.fromkeys(run.config.dataset for run in loaded)
    }
    for folder, run in zip(runs, loaded, strict=True):
        found = curvature_of_run(run, datasets[run.config.dataset], images=images, products=products)
        ends = (
            f"largest eigenvalue {found.largest:.4g} (error up to {found.residual:.2g}), smallest {found.smallest:.4g}"
        )
        say(console, f"{folder.name}: {ends}, {counted(found.products, 'product')}")
    return 0


def doctor(data_dir: Path | None = None) -> int:
    """Shows the environment, what in it is at risk, and what to do about it; exit code 1 if results would be wrong.

    Args:
        data_dir: folder of CIFAR-10; default $JAXNORM_DATA_DIR, then the cache folder.

    Returns:
        The exit code.
    """
    load_jax()
    from jaxnorm.study.runs.doctor import examine, print_findings

    return print_findings(examine(data_dir), StudyConsole())


def power(plan: Plan, seeds: int) -> str:
    """What differences a number of seeds can show.

    Args:
        plan: the comparisons, and the standard deviation that was assumed.
        seeds: how many are trained.

    Returns:
        A line.
    """
    from jaxnorm.study.report.statistics import detectable

    found = detectable(seeds, plan.deviation, max(plan.families.values(), default=1))
    shown = f"show {found:.2f} points with 80 % power"
    if math.isinf(found):
        shown = f"cannot show any: the smallest p of {seeds} is {2 / 2**seeds:.2g}" if seeds > 1 else "shows none"
    return (
        f"Comparisons: {counted(len(plan.comparisons), 'planned one')}; at a standard deviation of {plan.deviation:g} "
        f"points {counted(seeds, 'seed')} {shown}"
    )


def plan(
    file: Annotated[Path, tyro.conf.Positional] = Path("study"),
    study: Literal["compare_norms", "batch_size_study", "feature_evolution"] = "compare_norms",
    seeds: int | None = None,
) -> int:
    """Shows the comparisons of a plan file, and which difference its seeds can show with 80 % power.

    Args:
        file: a TOML file, or a preset's name for the plan that it comes with.
        study: the driver whose part is shown.
        seeds: how many seeds; by default as many as the plan names.

    Returns:
        The exit code.
    """
    found, console = read_plan(file, study), StudyConsole()
    content = parsed_plan(found.plan)
    say(console, f"Plan: {found.file}, SHA-256 {found.sha256}")
    for one in content.comparisons:
        only = f", seeds {' '.join(map(str, one.seeds))} only" if one.seeds else ""
        sides = f"{' + '.join(one.plus)} against {' + '.join(one.minus)}"
        say(console, f"{one.family}: {one.test} in {one.quantity}, {sides}{only}")
    say(console, power(content, len(content.seeds) if seeds is None else seeds))
    return 0


def main(description: str | None) -> int:
    """Runs the command that is named on the command line.

    Args:
        description: first text of ``--help``.

    Returns:
        The exit code.

    Raises:
        UserError: if the command line is wrong.
    """
    named: dict[str, Callable[..., int]] = {
        "report": report,
        "publish": publish,
        "plan": plan,
        "calibration": calibration,
        "curvature": curvature,
        "doctor": doctor,
    }
    commands = {name: _later(command) for name, command in named.items()}
    parse = tyro.extras.subcommand_cli_from_dict
    command: Callable[[], int] = parsed(lambda: parse(commands, prog="python -m jaxnorm", description=description))
    return command()


def _later(command: Callable[..., int]) -> Callable[..., Callable[[], int]]:
    """The command with its flags and docstring; a call returns what has to be called to run it."""

    @functools.wraps(command)
    def bind(*args: Any, **kwargs: Any) -> Callable[[], int]:
        return functools.partial(command, *args, **kwargs)

    return bind
