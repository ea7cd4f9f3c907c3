"""Reading and writing of files. A written file is complete at every moment: a new one is renamed over the old one."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxnorm.errors import UserError, one_line

STORAGE_CODES = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.EFBIG)

_DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    EOFError,
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
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
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        with naming(path):
            yield part
        umask = os.umask(0)
        os.umask(umask)
        part.chmod(0o666 & ~umask)  # mkstemp makes private files, but others may read results
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
        sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


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
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def json_line(value: Any) -> str:
    """A JSON value as one line without spaces.

    Args:
        value: the value.

    Returns:
        The line, without its end.

    Raises:
        ValueError: if a number is not finite.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def compact_json(content: Mapping[str, Any]) -> str:
    """A JSON object with a line for each entry, and for each entry of an entry.

    Args:
        content: the object.

    Returns:
        The text.
    """
    lines = []
    for key, value in content.items():
        inner = json_line(value)
        if isinstance(value, dict):
            inner = "{\n" + ",\n".join(f"{json_line(name)}: {json_line(each)}" for name, each in value.items()) + "\n}"
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            inner = "[\n" + ",\n".join(map(json_line, value)) + "\n]"
        lines.append(f"{json_line(key)}: {inner}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


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
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} must be JSON, but is damaged or unreadable ({one_line(error)}); restore it") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a JSON object, but holds {str(content)[:20]!r}; restore it")
    return content


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects in a file of JSON lines; none if there is no such file.

    What follows the last line feed is not read: it is empty, or a line that a kill cut off.

    Args:
        path: the file.

    Returns:
        The objects.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if a line is no JSON object.
    """
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    except FileNotFoundError:
        return []
    if not all(isinstance(line, dict) for line in lines):
        raise ValueError("a line is no object")
    return lines


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes.

    Args:
        path: the file.

    Returns:
        64 hexadecimal digits.
    """
    with path.open("rb") as file:
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
