"""One writer at a time: the lock on a study's folder. Imports nothing heavy, so that who comes second hears at once."""

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import filelock

from jaxnorm import files
from jaxnorm.errors import UserError

LOCK, HOLDER = ".lock", ".lock.holder"


@contextlib.contextmanager
def held(workdir: Path) -> Iterator[None]:
    """Makes the folder and keeps every other process from writing to it; a dead process holds nothing.

    Raises:
        UserError: if the folder cannot be written or another process holds it.
    """
    made = [folder for folder in (workdir, *workdir.parents) if not folder.exists()]
    holder = workdir / HOLDER
    lock = filelock.FileLock(workdir / LOCK)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        files.write_json(holder, {"pid": os.getpid(), "host": socket.gethostname(), "since": timestamp()})
    except filelock.Timeout:
        raise _taken(workdir) from None
    except OSError as error:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise UserError(
            f"the workdir must be writable, but {workdir} is not ({error.strerror}); choose another --workdir"
        ) from None
    try:
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def check_free(workdir: Path) -> None:
    """Checks that no other process holds the folder, without touching it; `held` decides.

    Raises:
        UserError: naming the process that does.
    """
    path = workdir / LOCK
    with contextlib.suppress(OSError):
        if not path.is_file():
            return
        lock = filelock.FileLock(path)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise _taken(workdir) from None
        lock.release()


def timestamp() -> str:
    """Now, in UTC, ISO 8601 to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _taken(workdir: Path) -> UserError:
    try:
        found = json.loads((workdir / HOLDER).read_text())
        who = f"process {found['pid']} on {found['host']} (since {found['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        who = "another process"
    return UserError(
        f"one process at a time may write to {workdir}, but {who} does; wait for it or choose another --workdir"
    )
