"""One writer at a time: the lock on a study's folder. Imports nothing slow, so that a second process ends at once."""

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
STUDY = "study.json"
"""A folder with this file is a study's."""


@contextlib.contextmanager
def held(workdir: Path) -> Iterator[None]:
    """Makes the folder and keeps every other process from writing to it until the block is left.

    The lock of a process that dies is free. If the folder has no ``study.json`` at the end, everything that this
    function made is removed.

    Args:
        workdir: the folder.

    Yields:
        None.

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
        _remove_empty(made)
        raise UserError(
            f"the workdir must be writable, but {workdir} is not ({error.strerror}); choose another --workdir"
        ) from None
    try:
        yield
    finally:
        holder.unlink(missing_ok=True)
        if not (workdir / STUDY).exists():
            (workdir / LOCK).unlink(missing_ok=True)
        lock.release()
        _remove_empty(made)


def check_free(workdir: Path) -> None:
    """Checks, without changing anything, that the path can be a workdir and that no other process holds it.

    Args:
        workdir: the folder; `held` checks it again.

    Raises:
        UserError: if the path is no folder and cannot be made one, or naming the process that holds it.
    """
    _check_path(workdir)
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
    """The present time.

    Returns:
        UTC, ISO 8601 to the second.
    """
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _check_path(workdir: Path) -> None:
    try:
        if workdir.is_dir():
            return
        if workdir.is_symlink() and not workdir.exists():
            raise UserError(f"the workdir must be a folder, but {workdir} is a link to nothing; fix the link")
        if workdir.exists():
            raise UserError(f"the workdir must be a folder, but {workdir} is a file; choose another --workdir")
        for parent in workdir.absolute().parents:
            if parent.exists() and not parent.is_dir():
                raise UserError(f"the workdir must be in a folder, but {parent} is a file; choose another --workdir")
    except OSError as error:
        raise UserError(
            f"the workdir must be a usable path, but {str(workdir)[:80]!r} is not ({error.strerror}); choose another "
            "--workdir"
        ) from None


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):  # it is in use
            folder.rmdir()


def _taken(workdir: Path) -> UserError:
    try:
        found = json.loads((workdir / HOLDER).read_text(encoding="utf-8"))
        who = f"process {found['pid']} on {found['host']} (since {found['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        who = "another process"
    return UserError(
        f"one process at a time may write to {workdir}, but {who} does; wait for it or choose another --workdir"
    )
