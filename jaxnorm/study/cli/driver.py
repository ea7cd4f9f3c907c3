"""What every driver does with its options: check, train what is missing, report."""

from jaxnorm.study.allocator import share_one_heap
from jaxnorm.study.cli.entry import is_running
from jaxnorm.study.cli.flags import Command
from jaxnorm.study.cli.options import Options
from jaxnorm.study.runs.lock import check_free


class Driver(Options, Command):
    """A command that trains what is missing of a grid in its workdir and writes the report."""

    def run(self) -> int:
        """Trains and reports.

        Returns:
            The exit code.

        Raises:
            UserError: before anything is written, if options, data and workdir do not fit.
        """
        if (answer := self.answer()) is not None:
            print(answer)
            return 0
        if is_running():  # the process belongs to this program, which may set its memory
            share_one_heap()
        if self.may_be_first:
            check_free(self.workdir)
        with self.naming_flags():
            configs = self.checked_configs()
            # Late, so that --help and mistakes in flags load neither JAX nor matplotlib.
            from jaxnorm.study.cli.grid import train_and_report

            return train_and_report(self, configs, study=self.study)
