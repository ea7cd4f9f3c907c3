"""``python -m jaxnorm report WORKDIR | publish WORKDIR FOLDER | doctor``: what can be done without training."""

from pathlib import Path
from typing import Annotated

import tyro

from jaxnorm.study import command_line


def report(workdir: Annotated[Path, tyro.conf.Positional]) -> int:
    """Rebuilds the tables, figures and the page of a study's folder from its run directories.

    Args:
        workdir: the folder that a driver of experiments/ has filled.
    """
    from jaxnorm.study.report.write import print_table, write_report
    from jaxnorm.study.runs.progress import StudyConsole, say

    page = write_report(workdir)
    console = StudyConsole()
    print_table(workdir, console)
    say(console, f"Report: {page}")
    return 0


def publish(workdir: Annotated[Path, tyro.conf.Positional], folder: Annotated[Path, tyro.conf.Positional]) -> int:
    """Copies what a study's finished runs wrote, without checkpoints, to a folder, and rebuilds the report there.

    Only reads in the workdir: it may be trained in at the same time.

    Args:
        workdir: the folder that a driver of experiments/ has filled.
        folder: where to, such as results/NAME: a new folder, or an earlier publication of the same study.
    """
    from jaxnorm.study.report.publish import publish
    from jaxnorm.study.report.write import print_table
    from jaxnorm.study.runs.progress import StudyConsole, say

    made = publish(workdir, folder)
    console = StudyConsole()
    print_table(folder, console)
    if made.left_out:
        say(console, f"Not finished, left out: {', '.join(made.left_out)}")
    runs = "1 run" if len(made.published) == 1 else f"{len(made.published)} runs"
    say(console, f"Published: {runs}, {made.num_bytes / 1e6:.1f} MB in all, {folder}")
    return 0


def doctor(data_dir: Path | None = None) -> int:
    """Shows the environment, what in it is at risk, and what to do about it; exit code 1 if nothing can be trusted so.

    Args:
        data_dir: where CIFAR-10 lies; default $JAXNORM_DATA_DIR, then the cache folder.
    """
    from jaxnorm.study.runs.doctor import examine, print_findings
    from jaxnorm.study.runs.progress import StudyConsole

    return print_findings(examine(data_dir), StudyConsole())


def main() -> int:
    """Runs the subcommand named on the command line."""
    return tyro.extras.subcommand_cli_from_dict(
        {"report": report, "publish": publish, "doctor": doctor}, prog="python -m jaxnorm", description=__doc__
    )


if __name__ == "__main__":
    command_line.run(main)
