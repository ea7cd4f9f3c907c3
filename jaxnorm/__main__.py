"""``python -m jaxnorm report WORKDIR``: what can be done with a study's folder without training anything."""

from pathlib import Path
from typing import Annotated

import tyro

from jaxnorm import command_line


def report(workdir: Annotated[Path, tyro.conf.Positional]) -> int:
    """Rebuilds the tables, figures and the page of a study's folder from its run directories.

    Args:
        workdir: the folder that a driver of experiments/ has filled.
    """
    from jaxnorm.analysis.report import print_table, write_report
    from jaxnorm.runs.progress import StudyConsole, say

    page = write_report(workdir)
    console = StudyConsole()
    print_table(workdir, console)
    say(console, f"Report: {page}")
    return 0


def main() -> int:
    """Runs the subcommand named on the command line."""
    return tyro.extras.subcommand_cli_from_dict({"report": report}, prog="python -m jaxnorm", description=__doc__)


if __name__ == "__main__":
    command_line.run(main)
