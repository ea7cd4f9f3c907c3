"""One writer at a time: the lock on a study's folder. Imports nothing slow, so that a second process ends at once."""

import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

from jaxnorm import files
from jaxnorm.errors import UserError, one_line

LOCK, HOLDER, MARKER = ".lock", ".lock.holder", ".lock.marker"
LOCKLESS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL)
"""Errors of `flock` on disks that know no locks, as some network disks."""
STUDY = "study.json"
"""A folder with this file is a study's."""


@contextlib.contextmanager
def held(workdir: Path) -> Iterator[None]:
    """Makes the folder and keeps every other process from writing to it until the block is left.

    The lock of a process that dies is free. Where a disk knows no locks, a file that names the process takes its place;
    if that process died on another host, the file has to be deleted by hand. If the folder has no ``study.json`` at the
    end, everything that this function made is removed.

    Args:
        workdir: the folder.

    Yields:
        None.

    Raises:
        UserError: if the folder cannot be written or another process holds it.
    """
    made = [folder for folder in (workdir, *workdir.parents) if not folder.exists()]
    holder = workdir / HOLDER
    with contextlib.ExitStack() as locks:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            found = [name for name in (LOCK, MARKER) if (workdir / name).exists()]
            proof = locks.enter_context(_locked(workdir))
            if proof.name not in found and _is_alive(_holder_of(workdir)):  # its lock was deleted
                locks.close()
                proof.unlink(missing_ok=True)
                raise _taken(workdir, HOLDER)
            files.write_json(holder, {"pid": os.getpid(), "host": socket.gethostname(), "since": timestamp()})
        except filelock.Timeout:
            raise _taken(workdir, MARKER) from None
        except OSError as error:
            locks.close()
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
            locks.close()
            _remove_empty(made)


def check_free(workdir: Path) -> None:
    """Checks, without changing anything, that the path can be a workdir and that no other process holds it.

    Args:
        workdir: the folder; `held` checks it again.

    Raises:
        UserError: if the path is no folder and cannot be made one, or naming the process that holds it.
    """
    _check_path(workdir)
    try:
        if (workdir / LOCK).is_file():
            with _locked(workdir):
                pass
    except filelock.Timeout:
        raise _taken(workdir, MARKER) from None
    except OSError:
        pass  # `held` says what is wrong


def timestamp() -> str:
    """The present time.

    Returns:
        UTC, ISO 8601 to the second.
    """
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


@contextlib.contextmanager
def _locked(workdir: Path) -> Iterator[Path]:
    """Locks a file in the folder, and the folder itself where its disk can do that: no deleted file admits anybody.

    Yields:
        The locked file.

    Raises:
        filelock.Timeout: if another process has locked it.
        OSError: if it cannot be written.
    """
    with contextlib.ExitStack() as locks:
        try:
            import fcntl

            folder = os.open(workdir, os.O_RDONLY)
            locks.callback(os.close, folder)
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise filelock.Timeout(str(workdir)) from None
        except (ImportError, OSError):  # neither Windows nor every network disk locks folders
            pass
        lock: filelock.BaseFileLock = filelock.FileLock(workdir / LOCK, fallback_to_soft=False)
        try:
            lock.acquire(timeout=0)
        except OSError as error:
            if error.errno not in LOCKLESS:
                raise
            lock = filelock.SoftFileLock(workdir / MARKER)
            lock.acquire(timeout=0)
        locks.callback(lock.release)
        yield Path(lock.lock_file)


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
            f"the workdir must be a usable path, but {one_line(workdir, 200)!r} is not ({error.strerror}); choose "
            "another --workdir"
        ) from None


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):  # it is in use
            folder.rmdir()


def _holder_of(workdir: Path) -> dict[str, Any] | None:
    """What the process that holds the folder has written about itself; None if it is absent or damaged."""
    try:
        found = json.loads((workdir / HOLDER).read_text(encoding="utf-8"))
        return {"pid": int(found["pid"]), "host": str(found["host"]), "since": str(found["since"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_alive(holder: dict[str, Any] | None) -> bool:
    """Whether a process may be running. This host does not know the processes of others."""
    if holder is None or os.name == "nt":  # Windows deletes no file that is open
        return False
    if holder["host"] != socket.gethostname():
        return True
    try:
        os.kill(holder["pid"], 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _taken(workdir: Path, proof: str) -> UserError:
    """What to say; `proof` is the file that remains of a process of another host that died."""
    found = _holder_of(workdir)
    who = f"process {found['pid']} on {found['host']} (since {found['since']})" if found else "another process"
    gone = f", delete {proof} there if that process is gone," if (workdir / proof).exists() else ""
    return UserError(
        f"one process at a time may write to {workdir}, but {who} does; wait for it{gone} or choose another --workdir"
    )
