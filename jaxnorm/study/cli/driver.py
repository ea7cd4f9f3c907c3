"""What every driver does with its options: check, train what is missing, report."""

from jaxnorm.study.allocator import share_one_heap
from jaxnorm.study.cli.entry import is_running
from jaxnorm.study.cli.options import Options
from jaxnorm.study.runs.lock import check_free


def drive(options: Options, *, study: str) -> int:
    """Trains what is missing of a grid in its workdir and writes the report.

    Args:
        options: the flags.
        study: the driver's name; a workdir belongs to one driver.

    Returns:
        The exit code.

    Raises:
        UserError: before anything is written, if options, data and workdir do not fit.
    """
    if is_running():  # the process belongs to this program, which may set its memory
        share_one_heap()
    if options.may_be_first:
        check_free(options.workdir)
    with options.naming_flags():
        configs = options.checked_configs()
        # Late, so that --help and mistakes in flags load neither JAX nor matplotlib.
        from jaxnorm.study.cli.grid import train_and_report

        return train_and_report(options, configs, study=study)
