"""One file from the web: reachable within seconds or not at all, size and SHA-256 checked, whole or absent."""

import contextlib
import hashlib
import http.client
import queue
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

from jaxnorm.errors import UserError, one_line
from jaxnorm.files import replacing
from jaxnorm.study.data.progress import progress_bar

CHUNK_BYTES = 2**18


class UnreachableError(Exception):
    """No server answered in time; the message is a brief reason."""


def download(
    url: str,
    path: Path,
    *,
    size: int,
    sha256: str,
    progress: bool,
    reach_seconds: float = 10.0,
    stall_seconds: float = 30.0,
    arriving: Callable[[], object] = lambda: None,
) -> None:
    """Streams `url` to `path`, which appears only when size and SHA-256 are right.

    Args:
        url: of the file.
        path: where to; folders above it are created.
        size: bytes expected.
        sha256: 64 hexadecimal digits expected.
        progress: whether to report on standard error.
        reach_seconds: longest time until the server begins its answer, with name look-up and redirections.
        stall_seconds: longest silence in the middle of the transfer.
        arriving: called when all is right, before the file appears.

    Raises:
        UnreachableError: if no server answered within `reach_seconds`; nothing was written.
        UserError: if the transfer stopped, or size or SHA-256 differ; nothing was kept.
    """
    again = f"nothing was kept; run the same command again, or put the file at {path} yourself"
    with contextlib.closing(_open(url, reach_seconds, stall_seconds)) as response, _folder_for(path):
        done, digest = 0, hashlib.sha256()
        announced = response.headers.get("Content-Length")
        if announced is not None and announced != str(size):
            raise UserError(f"{url} must have {size:,} bytes, but its server announces {announced}; {again}")
        with replacing(path) as part:
            with (
                part.open("wb") as file,
                progress_bar(f"Downloading {url}", size, unit="bytes", enabled=progress) as bar,
            ):
                while chunk := _read(response, url, done, size, again):
                    file.write(chunk)
                    digest.update(chunk)
                    done += len(chunk)
                    if done > size:
                        break
                    bar(len(chunk))
            if done != size:
                than = "more" if done > size else f"only {done:,}"
                raise UserError(f"{url} must have {size:,} bytes, but {than} came; {again}")
            if digest.hexdigest() != sha256:
                raise UserError(f"{url} must have SHA-256 {sha256}, but {digest.hexdigest()} came; {again}")
            arriving()


def _open(url: str, reach_seconds: float, stall_seconds: float) -> HTTPResponse:
    """Opens `url` within `reach_seconds` in all.

    In a thread, because a socket's time-out limits neither the name look-up nor a chain of redirections.
    """
    answer: queue.Queue[HTTPResponse | Exception] = queue.Queue()
    lock, abandoned = threading.Lock(), threading.Event()

    def attempt() -> None:
        try:
            response = urllib.request.urlopen(url, timeout=stall_seconds)
        except Exception as error:
            answer.put(error)
            return
        with lock:
            if abandoned.is_set():
                response.close()
            else:
                answer.put(response)

    threading.Thread(target=attempt, name="reachability", daemon=True).start()
    try:
        result = answer.get(timeout=reach_seconds)
    except queue.Empty:
        with lock:
            abandoned.set()
        while not answer.empty():  # it came at the last moment
            late = answer.get()
            if isinstance(late, HTTPResponse):
                late.close()
        raise UnreachableError(f"no answer within {reach_seconds:g} s") from None
    if isinstance(result, Exception):
        if isinstance(result, urllib.error.HTTPError):
            result.close()
        raise UnreachableError(_reason(result)) from result
    return result


def _read(response: HTTPResponse, url: str, done: int, size: int, again: str) -> bytes:
    try:
        return response.read(CHUNK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f"{url} stopped after {done:,} of {size:,} bytes ({_reason(error)}); {again}") from error


@contextlib.contextmanager
def _folder_for(path: Path) -> Iterator[None]:
    """Creates the folders above `path`, and removes those it created if the work in them fails."""
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException as error:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError):
            raise UserError(
                f"cannot write {error.filename or path}: {error.strerror or error}; "
                "give a --data-dir that is writable and has room"
            ) from error
        raise


def host(url: str) -> str:
    """The server's name, for messages.

    Args:
        url: of a file.

    Returns:
        The name, with the port where the URL gives one.

    Examples:
        >>> host("https://example.org/data/file.tar.gz")
        'example.org'
    """
    return urlsplit(url).netloc


def _reason(error: BaseException) -> str:
    inner = getattr(error, "reason", None)
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP status {error.code}"
    if isinstance(inner, BaseException):
        error = inner
    if isinstance(error, TimeoutError):
        return "time-out"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return one_line(text)
