"""From a command line to a command: flags, presets, help."""

import abc
import dataclasses
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

import tyro

from jaxnorm.errors import UserError
from jaxnorm.study.cli.groups import CONFIG, grouped
from jaxnorm.study.cli.options import Options
from jaxnorm.study.cli.parser import parsed
from jaxnorm.study.cli.recorded import recorded_flags
from jaxnorm.study.config import PRESETS, nearest


class Command(abc.ABC):
    """A dataclass whose fields are flags. Their docstrings are the help; tyro reads them, also under ``python -OO``.

    Attributes:
        summary: one line, at most 62 letters, for the list of commands.
        details: what follows the summary in ``--help``; "{program}" is what starts the command. May be empty.
    """

    summary: ClassVar[str]
    details: ClassVar[str] = ""

    @abc.abstractmethod
    def run(self) -> int:
        """Does what the command is for.

        Returns:
            The exit code.
        """


AnyCommand = TypeVar("AnyCommand", bound=Command)


def read(command: type[AnyCommand], arguments: Sequence[str], program: Sequence[str]) -> AnyCommand:
    """A command with the flags of a command line. A driver's defaults are those of the preset that it names.

    Args:
        command: a dataclass.
        arguments: the words after the command's name.
        program: the words that start it.

    Returns:
        The command.

    Raises:
        UserError: if there is no such preset, if a flag is unknown or cannot have its value, or if one that names
            several values names none.
    """
    name = " ".join([*program[:-1], Path(program[-1]).name])
    details = command.details.strip("\n").replace("{program}", " ".join(program))
    description = _narrow(f"{command.summary}\n\n{details}")
    if not issubclass(command, Options):
        return parsed(lambda: tyro.cli(command, args=arguments, prog=name, description=description))
    defaults = _defaults(command, _value_of("--preset", arguments), _value_of("--config", arguments))
    _check_values(defaults, arguments)
    kind, flat = grouped(defaults)
    found = command(
        **flat(parsed(lambda: tyro.cli(kind, args=arguments, prog=name, description=description, config=CONFIG)))
    )
    given = {argument.replace("_", "-") for argument in arguments}
    for field in dataclasses.fields(found):
        flag = "--" + field.name.replace("_", "-")
        if getattr(found, field.name) == () and flag in given:
            raise UserError(f"{flag} must name at least one value, but names none; name one or drop {flag}")
    return found


def _defaults(command: type[Options], preset: str | None, config: str | None) -> Options:
    """A driver's flags with the values of a preset, or of a study's folder."""
    if preset and config:
        raise UserError(f"--preset and --config exclude each other, but are {preset} and {config}; drop one of them")
    if config:
        known = frozenset(field.name for field in dataclasses.fields(command))
        return command(**recorded_flags(Path(config), command.study, known))
    preset = preset or command().preset
    if preset not in PRESETS:
        raise UserError(f"--preset must name a preset, but names {preset!r}; {nearest(preset, PRESETS)}")
    return command(**{**PRESETS[preset], "preset": preset})


def _value_of(flag: str, arguments: Sequence[str]) -> str | None:
    """The value that a command line gives a flag; None if it gives none."""
    found = None
    for index, argument in enumerate(arguments):
        if argument.startswith(f"{flag}="):
            found = argument.removeprefix(f"{flag}=")
        elif argument == flag and index + 1 < len(arguments):
            found = arguments[index + 1]
    return found


def _check_values(defaults: Options, arguments: Sequence[str]) -> None:
    """Checks that flags are given as many values as they take, and separate ones."""
    several = {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(defaults)
        if isinstance(getattr(defaults, field.name), tuple) and field.name != "imports"}  # fmt: skip
    flag, values = "", list[str]()
    for argument in arguments:
        if argument.startswith("--"):
            name, _, value = argument.partition("=")
            flag, values = name.replace("_", "-"), [value] if value else []
        else:
            values.append(argument)
        if flag in several and values and "," in values[-1]:
            words = " ".join(filter(None, values[-1].split(",")))
            raise UserError(f"{flag} takes values with blanks between them, but is given {values[-1]!r}; write {words}")
        if flag == "--import" and len(values) > 1:
            again = " ".join(f"--import {value}" for value in values)
            raise UserError(f"--import takes one file or module, but is given {' and '.join(values)}; write {again}")


def _narrow(text: str) -> str:
    """The text in lines of at most 80 letters, since a terminal would break words. tyro joins lines without indent."""
    paragraphs = []
    for paragraph in text.strip().split("\n\n"):
        lines = paragraph.split("\n") if paragraph.startswith(" ") else [" " + paragraph.replace("\n", " ")]
        indents = [line[: len(line) - len(line.lstrip())] for line in lines]
        narrow = (
            textwrap.wrap(line, 80, subsequent_indent=indent) for line, indent in zip(lines, indents, strict=True)
        )
        paragraphs.append("\n".join(one for line in narrow for one in line))
    return "\n\n".join(paragraphs)
