"""Where a program begins and ends: signals, errors in one line, exit codes. Needs Python's own modules only."""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from jaxnorm import files
from jaxnorm.errors import ProcessLost, UserError, one_line
from jaxnorm.study.exit_codes import BROKEN_PIPE, ExitCode, of_signal
from jaxnorm.study.runs.signals import heeded
from jaxnorm.study.streams import discard_output, open_streams, tell

_running = False


def run(main: Callable[[], int]) -> None:
    """Runs `main` and ends the process with the exit code that it returns.

    One line on standard error and exit code 2 are the answer to a `UserError`, to a disk that is full, read-only or
    forbidden, and to a missing package.

    Args:
        main: what the program does.
    """
    global _running
    _running = True
    _heed_signals()
    try:
        open_streams()
        _check_text(sys.argv)
        code = main()
        sys.stdout.flush()
        sys.exit(code)
    except UserError as error:
        _fail(str(error), ExitCode.MISTAKE)
    except ModuleNotFoundError as error:
        package = (error.name or "jaxnorm").partition(".")[0]
        if package == "jaxnorm":
            raise
        _fail(f'the study needs {package}, which is not installed; pip install "jaxnorm[study]"', ExitCode.MISTAKE)
    except ProcessLost as error:
        advice = "start all of them again with the same commands: training continues from the last checkpoint"
        _fail(f"{error}; {advice}", ExitCode.CRASHED)
    except BrokenPipeError:  # nobody reads standard output any more, for example --help in a pager that was closed
        discard_output()
        _end(BROKEN_PIPE)
    except OSError as error:
        if not files.is_of_storage(error):
            raise
        discard_output()
        _fail(files.storage_message(error), ExitCode.MISTAKE)
    except KeyboardInterrupt:  # not while training: there is nothing to save
        tell("interrupted")
        _end(of_signal(signal.SIGINT))
    except _Terminated as left:
        _end(int(str(left.code)))
    except Exception:
        if not _is_one_of_several():
            raise
        traceback.print_exc()
        _end(ExitCode.CRASHED)


def is_running() -> bool:
    """Whether `run` has started this process's program, so that the process belongs to it.

    Returns:
        True within `run`.
    """
    return _running


def _heed_signals() -> None:
    if threading.current_thread() is threading.main_thread():
        for number in set(heeded()) - {signal.SIGINT}:
            signal.signal(number, _terminated)


class _Terminated(SystemExit):
    """A signal outside of training."""


def _terminated(number: int, _: object) -> NoReturn:
    tell("terminated")
    raise _Terminated(of_signal(number))


def _check_text(arguments: Sequence[str]) -> None:
    for argument in arguments:
        if argument == "" or (argument.startswith("--") and argument.endswith("=")):
            raise UserError(
                f"arguments must not be empty, but {argument or 'one'} is; leave it out, or give a value, such as . "
                "for this folder"
            )
        if any("\ud800" <= character <= "\udfff" for character in argument):
            raise UserError(
                f"arguments must be UTF-8 text, since the runs' files record them, but {argument!a} is not; rename the "
                "path"
            )


def _fail(message: str, code: int) -> NoReturn:
    tell(f"error: {one_line(message)}")
    _end(code)


def _end(code: int) -> NoReturn:
    """Ends the process. One of several ends at once: JAX would wait for the others, which wait for this one."""
    if _is_one_of_several():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _is_one_of_several() -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and bool(jax.distributed.is_initialized())
