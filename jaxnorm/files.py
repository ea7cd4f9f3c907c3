"""Reading and writing of files. A written file is complete at every moment: a new one is renamed over the old one."""

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxnorm.errors import UserError, one_line
from jaxnorm.temporary import temporary

STORAGE_CODES = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.EFBIG)

MOST_BYTES = 2**28
"""A file of JSON is smaller than this."""

_DAMAGE = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, EOFError, MemoryError),
    RuntimeError,  # too deep nesting; of zipfile: an encrypted or unknown member
    *(struct.error, zipfile.BadZipFile, tarfile.TarError, zlib.error),
)


def cache_folder() -> Path:
    """The folder for what may be made again.

    Returns:
        `$XDG_CACHE_HOME/jaxnorm`, by default `~/.cache/jaxnorm`; in the temporary folder for a user without a home.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():  # unset, empty, or relative, which the XDG standard tells us to ignore
        base = Path(os.path.expanduser("~/.cache"))  # noqa: PTH111
    if not base.is_absolute():  # neither $HOME nor an entry among the users, as in some containers
        base = Path(tempfile.gettempdir()) / f"cache-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    return base / "jaxnorm"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder; on leaving without an error it is fsynced and renamed to `path`.

    A reader always sees the old file or the new one, never a part, even if this process is killed. After an error the
    temporary file is removed and `path` is unchanged.

    Args:
        path: the file to write or replace. Its folder is made if necessary.

    Yields:
        The temporary path.

    Raises:
        OSError: if the disk does not accept the file; it names `path`.

    Examples:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with replacing(Path(folder) / "numbers.txt") as part:
        ...         _ = part.write_text("1 2 3")
        ...     print((Path(folder) / "numbers.txt").read_text())
        1 2 3
    """
    make_folder(path.parent)
    with naming(path), temporary(path) as part:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Makes a folder and those above it, where they are missing, so that they survive a power cut.

    Args:
        path: the folder.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in reversed(missing):
        sync_folder(folder.parent)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Within it, an `OSError` that names no file, such as one of a write, gets the name `path`.

    Args:
        path: the file that is written.

    Yields:
        None.

    Raises:
        OSError: the same error, with a name.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def sync_folder(folder: Path) -> None:
    """Flushes a folder's entries to disk, so that a rename survives a power cut.

    Does nothing on Windows, and on disks that flush no folders, as some network disks.

    Args:
        folder: the folder.
    """
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def write_bytes(path: Path, content: bytes) -> None:
    """Replaces `path` by `content` in one step.

    Args:
        path: the file.
        content: its new content.
    """
    with replacing(path) as part:
        part.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Replaces `path` by `content`, UTF-8, in one step.

    Args:
        path: the file.
        content: its new content.
    """
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Replaces `path` by `content` as indented, standard JSON in one step.

    Args:
        path: the file.
        content: JSON values.

    Raises:
        ValueError: if a number is not finite.
    """
    write_bytes(path, json_bytes(content))


def json_bytes(content: Any) -> bytes:
    """A file of indented, standard JSON.

    Args:
        content: JSON values.

    Returns:
        The file's content.

    Raises:
        ValueError: if a number is not finite.
    """
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read_bytes(path: Path, most: int = -1) -> bytes:
    """The content of a file. A pipe or a device in its place does not block, and is not read.

    Args:
        path: the file.
        most: number of bytes to read from its beginning; -1 reads all.

    Returns:
        The bytes.

    Raises:
        OSError: if there is no file that can be read.
    """
    with open(path, "rb", opener=_open_file) as file:
        return file.read(most)


def _open_file(path: str, flags: int) -> int:
    handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is no file", path)
    return handle


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file.

    Args:
        path: the file.

    Returns:
        The object; None if there is no such file.

    Raises:
        UserError: if the file cannot be read or contains no JSON object.
    """
    try:
        content = read_bytes(path, MOST_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path} must be a file of JSON, but cannot be read ({one_line(error)}); restore it") from None
    return json_object(content, path)


def json_object(content: bytes, path: Path) -> dict[str, Any]:
    """The object that a JSON file contains.

    Args:
        content: of the file.
        path: its name, for the message.

    Returns:
        The object.

    Raises:
        UserError: if it is no JSON object, or contains NaN or Infinity.
    """
    try:
        found = json.loads(content.decode(), parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} must be JSON, but is damaged ({one_line(error)}); restore it") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} must hold a JSON object, but holds {one_line(found, 20)!r}; restore it")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:40]} is too large a number")
    return number


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes.

    Args:
        path: the file.

    Returns:
        64 hexadecimal digits.
    """
    with open(path, "rb", opener=_open_file) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_of_storage(error: BaseException) -> bool:
    """Whether a disk did not accept a write: full, over quota, read-only, not permitted or failing.

    Args:
        error: what a write raised.

    Returns:
        True if the error has one of `STORAGE_CODES`.
    """
    return isinstance(error, OSError) and error.errno in STORAGE_CODES


def storage_message(error: OSError) -> str:
    """What to tell the user about a write that a disk did not accept.

    Args:
        error: what the write raised.

    Returns:
        One line: the path, the reason, the space that is left and the fix.
    """
    path = Path(os.fsdecode(error.filename)) if error.filename is not None else None
    if path is None:
        return f"standard output or a file must take what is written, but does not ({error.strerror}); redirect it"
    room = ""
    for folder in (path, *path.absolute().parents):
        with contextlib.suppress(OSError):
            room = f", {shutil.disk_usage(folder).free / 1e6:,.0f} MB free there"
            break
    fix = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "make it writable"
    return (
        f"the disk must take {path}, but does not ({error.strerror}{room}); {fix} and run the same command again: "
        "what was saved before is intact"
    )


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Within it, every error that damaged content can cause becomes a `UserError` about the file at `path`.

    Args:
        path: the file that is read.

    Yields:
        None.

    Raises:
        UserError: naming the file, what is wrong with it and the fix.
    """
    try:
        yield
    except UserError:
        raise
    except _DAMAGE as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else one_line(error)
        raise UserError(
            f"{path} is damaged ({reason}); restore it from a copy, or delete its folder and train again"
        ) from error
