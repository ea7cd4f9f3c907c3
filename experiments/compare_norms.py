"""Trains one small residual network with seven normalizations and compares them.

    python experiments/compare_norms.py                    # 7 norms on the embedded digits, about 3 minutes on 2 cores
    python experiments/compare_norms.py --preset short     # CIFAR-10, 10 epochs, about 4 hours on 2 cores
    python experiments/compare_norms.py --preset study     # the study: CIFAR-10, 100 epochs, 5 seeds, an accelerator

Expect batch norm and its relatives first, the network without normalization last. The workdir then holds tables,
figures and report.html; the same command goes on where an earlier one stopped, more --norms or --seeds extend it.
"""

import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a bare checkout works without being installed

from jaxnorm import command_line


@dataclasses.dataclass(frozen=True)
class Options(command_line.Options):
    """Flags of the comparison."""

    workdir: Path = Path("runs/compare_norms")
    """Folder for the runs, tables, figures and the report. The same command there goes on where it stopped."""


def main() -> int:
    """Trains what is missing in the workdir, writes the report and returns the exit code."""
    options = command_line.parse(Options, description=__doc__)
    options.validate()

    from rich.console import Console

    from jaxnorm.analysis.report import print_table, write_report
    from jaxnorm.data import load_dataset
    from jaxnorm.runs import study
    from jaxnorm.runs.workdir import Workdir

    console = Console()
    configs = options.configs()
    workdir = Workdir(options.workdir, study="compare_norms")
    dataset = load_dataset(options.dataset, data_dir=options.data_dir)
    study.check(configs, dataset, workdir)
    study.announce(configs, dataset, workdir, console)
    with workdir.held():
        code = study.run_study(configs, dataset, workdir, preset=options.preset, console=console)
        if code < 128:  # not stopped by a signal
            report = write_report(workdir.path)
            print_table(workdir.path, console)
            console.print(f"Report: {report}", highlight=False, soft_wrap=True)
    return code


if __name__ == "__main__":
    command_line.run(main)
