"""The program ``jaxnorm``, which is ``python -m jaxnorm`` too: the command that is named first, with its flags."""

import dataclasses
import sys

from jaxnorm.errors import UserError
from jaxnorm.study.cli.about import About
from jaxnorm.study.cli.batch_sizes import BatchSizes
from jaxnorm.study.cli.commands import Doctor, Plan, Publish, Report
from jaxnorm.study.cli.compare import Compare
from jaxnorm.study.cli.features import Features
from jaxnorm.study.cli.flags import Command, read
from jaxnorm.study.cli.initialization import Initialization
from jaxnorm.study.cli.probes import Calibration, Corruptions, Curvature
from jaxnorm.study.config import nearest
from jaxnorm.study.invocation import program

COMMANDS: dict[str, type[Command]] = {
    "compare": Compare,
    "batch-sizes": BatchSizes,
    "features": Features,
    "initialization": Initialization,
    "report": Report,
    "publish": Publish,
    "plan": Plan,
    "calibration": Calibration,
    "curvature": Curvature,
    "corruptions": Corruptions,
    "doctor": Doctor,
}


@dataclasses.dataclass(frozen=True)
class Program(About, Command):
    """The program without a command."""

    summary = "What normalization does to training: trains networks, compares them, writes a page."
    details = "\n".join(
        [
            *(f"    {name:<14} {command.summary}" for name, command in COMMANDS.items()),
            "\n{program} COMMAND --help shows its flags.",
        ]
    )

    def run(self) -> int:
        """Answers what is asked for.

        Returns:
            The exit code.

        Raises:
            UserError: if nothing is, since a command is missing then.
        """
        if (answer := self.answer()) is not None:
            print(answer)
            return 0
        raise UserError(f"a command must be named, but none is; name one of {', '.join(COMMANDS)}, or see --help")


def main(command: str | None = None) -> int:
    """Runs a command with this process's arguments.

    Args:
        command: one of `COMMANDS`; None takes the first argument.

    Returns:
        The exit code.

    Raises:
        UserError: if the command line is wrong.
    """
    words, arguments = program(), sys.argv[1:]
    if command is None and arguments and not arguments[0].startswith("-"):
        command, *arguments = arguments
        words = [*words, command]
    if command is not None and command not in COMMANDS:
        raise UserError(f"the first argument must be a command, but is {command!r}; {nearest(command, COMMANDS)}")
    return read(COMMANDS[command] if command else Program, arguments, words).run()
