"""The commands of ``python -m jaxnorm``, which do not train."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from jaxnorm.study.cli.imports import load_jax
from jaxnorm.study.cli.parser import parsed
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


def main(description: str | None) -> int:
    """Runs the command that is named on the command line.

    Args:
        description: first text of ``--help``.

    Returns:
        The exit code.

    Raises:
        UserError: if the command line is wrong.
    """
    commands = {"report": _later(report), "publish": _later(publish), "doctor": _later(doctor)}
    parse = tyro.extras.subcommand_cli_from_dict
    command: Callable[[], int] = parsed(lambda: parse(commands, prog="python -m jaxnorm", description=description))
    return command()


def _later(command: Callable[..., int]) -> Callable[..., Callable[[], int]]:
    """The command with its flags and docstring; a call returns what has to be called to run it."""

    @functools.wraps(command)
    def bind(*args: Any, **kwargs: Any) -> Callable[[], int]:
        return functools.partial(command, *args, **kwargs)

    return bind
