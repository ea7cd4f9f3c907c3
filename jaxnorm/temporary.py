"""Temporary files and folders beside what they are for. What a killed process has left, the next one removes."""

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

OLD_SECONDS = 86_400
"""Age of what nobody uses any more, on disks that know no locks."""


@contextlib.contextmanager
def temporary(path: Path, *, is_folder: bool = False) -> Iterator[Path]:
    """Makes an empty file or folder in the folder of `path`; on leaving it is removed if it is still there.

    Those that killed processes have left for the same `path` are removed before.

    Args:
        path: what it is for; its own name begins with a dot and that name.
        is_folder: whether it is a folder, which only this user can read.

    Yields:
        The file or folder.

    Raises:
        OSError: if it cannot be made.
    """
    remove_abandoned(path)
    part, lock = _locked_part(path, is_folder)
    try:
        yield part
    finally:
        _remove(part)
        if lock is not None:
            os.close(lock)


def abandoned(path: Path) -> list[Path]:
    """What `temporary` made for `path` in processes that were killed.

    Args:
        path: what it was for.

    Returns:
        Files and folders.
    """
    try:
        with os.scandir(path.parent) as entries:
            names = [
                one.name for one in entries if one.name.startswith(f".{path.name}.") and one.name.endswith(".part")
            ]
    except OSError:
        return []
    return [part for part in map(path.parent.joinpath, sorted(names)) if _is_abandoned(part)]


def remove_abandoned(path: Path) -> None:
    """Removes what is `abandoned`, as far as the disk permits.

    Args:
        path: what it was for.
    """
    for part in abandoned(path):
        with contextlib.suppress(OSError):
            _remove(part)


def _locked_part(path: Path, is_folder: bool) -> tuple[Path, int | None]:
    while True:
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        if is_folder:
            part.mkdir(mode=0o700)
        else:
            os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        lock = _lock(part)
        if part.exists():  # nobody took it for abandoned before it was locked
            return part, lock
        if lock is not None:
            os.close(lock)


def _lock(part: Path) -> int | None:
    """A handle that locks it until it is closed or the process dies; None on disks that know no locks.

    Raises:
        BlockingIOError: if another process has locked it.
    """
    if fcntl is None:
        return None
    with contextlib.suppress(FileNotFoundError):
        handle = os.open(part, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise
        except OSError:
            os.close(handle)
        else:
            return handle
    return None


def _is_abandoned(part: Path) -> bool:
    try:
        handle = _lock(part)
        if handle is None:
            return time.time() - part.lstat().st_mtime > OLD_SECONDS
    except OSError:  # in use, not ours, or gone
        return False
    os.close(handle)
    return True


def _remove(part: Path) -> None:
    if part.is_dir() and not part.is_symlink():
        shutil.rmtree(part, ignore_errors=True)
    else:
        part.unlink(missing_ok=True)
