"""The compiled kernels: made by the machine's C++ compiler, kept in a cache folder, loaded.

The name of a kept library contains a digest of everything that its content depends on. Another processor, compiler or
jaxlib therefore gets a library of its own. Nothing is compiled in a folder, or loaded from one, that another user could
change.
"""

import contextlib
import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import jax
import jaxlib.version

from jaxnorm import files
from jaxnorm.errors import one_line
from jaxnorm.private_folder import is_private, private_folder
from jaxnorm.temporary import temporary

SOURCES = Path(__file__).with_name("cpu")
FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC")
TIMEOUT = 300  # seconds; compiling takes about 4


class Unavailable(Exception):
    """The kernels cannot be compiled or loaded. The message says why, on one line."""


def find_compiler() -> str | None:
    """Finds the C++ compiler.

    Returns:
        Path of `$CXX`, or of the first on the PATH; None without one.
    """
    names = (os.environ.get("CXX"), "c++", "g++", "clang++")
    return next((found for name in names if name and (found := shutil.which(name))), None)


def load(names: Collection[str], compiler: str, cache: Path, *, timeout: float = TIMEOUT) -> list[Any]:
    """Functions of the library in the cache folder. If it is not there, it is compiled and kept.

    Args:
        names: Of the functions.
        compiler: Path of the C++ compiler.
        cache: The folder. If it accepts no files or is not private, the library is compiled in a temporary folder.
        timeout: Seconds for the compiler.

    Returns:
        The functions, as `ctypes` has them.

    Raises:
        Unavailable: If the compiler fails or the library cannot be loaded.
    """
    try:
        library = _library(compiler, cache, timeout)
        return [getattr(library, name) for name in names]
    except (OSError, subprocess.SubprocessError, AttributeError) as error:
        raise Unavailable(f"{compiler} does not compile them: {_reason(error)}") from error


def fingerprint(
    compiler: str, *, sources: Path = SOURCES, flags: Collection[str] = FLAGS, timeout: float = TIMEOUT
) -> str:
    """Digest of sources, flags, compiler, headers and processor, 32 hexadecimal digits.

    Args:
        compiler: Path of the C++ compiler.
        sources: Folder of the sources.
        flags: Of the compiler.
        timeout: Seconds for the compiler to print its version.

    Returns:
        The digest.
    """
    version = subprocess.run([compiler, "--version"], check=True, capture_output=True, timeout=timeout).stdout
    names = "\n".join([*flags, jaxlib.version.__version__, *processor().values()])
    content = b"".join(path.read_bytes() for path in sorted(sources.glob("*.[ch]*")))
    return hashlib.sha256(content + version + names.encode()).hexdigest()[:32]


def processor() -> dict[str, str]:
    """What ``-march=native`` depends on.

    Returns:
        Name and instruction sets of the processor, as the operating system calls them.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {"model name": platform.processor(), "machine": platform.machine()}
    found: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "flags", "Features", "CPU part"):  # what ``-march=native`` depends on
            found.setdefault(name.strip(), value.strip())
    return found


def _library(compiler: str, cache: Path, timeout: float) -> ctypes.CDLL:
    name, private = fingerprint(compiler, timeout=timeout), private_folder(cache)
    for kept in private.glob(f"{name}-*.so") if private else ():
        with contextlib.suppress(OSError):
            # Loading a damaged library would end the process.
            if is_private(kept) and kept.stem == f"{name}-{_digest(kept)}":
                return _loaded(kept)
    return _compiled(compiler, private, name, timeout)


def _compiled(compiler: str, cache: Path | None, name: str, timeout: float) -> ctypes.CDLL:
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(_temporary_folder(cache))
        except OSError:
            folder, cache = stack.enter_context(_temporary_folder(None)), None
        part = folder / "kernels.so"
        command = [compiler, *FLAGS, "-isystem", jax.ffi.include_dir(), str(SOURCES / "kernels.cc"), "-o", str(part)]
        subprocess.run(command, check=True, capture_output=True, encoding="utf-8", errors="replace", timeout=timeout)
        part.chmod(0o700)
        library = _loaded(part)
        if cache is not None:
            with contextlib.suppress(OSError):  # if something else has this name
                part.replace(cache / f"{name}-{_digest(part)}.so")
    return library


def _loaded(file: Path) -> ctypes.CDLL:
    """The library in a file, or in a copy of it if the file's disk does not allow programs."""
    if not is_private(file):
        raise OSError(f"{file} is no file that only this user can change")
    try:
        return ctypes.CDLL(str(file))
    except OSError as refused:
        try:
            with _temporary_folder(None) as folder:
                return ctypes.CDLL(str(shutil.copy(file, folder)))
        except OSError:
            raise refused from None


@contextlib.contextmanager
def _temporary_folder(parent: Path | None) -> Iterator[Path]:
    """A private folder within another one, by default within the system's for temporary files."""
    made = temporary(parent / "kernels", is_folder=True) if parent else tempfile.TemporaryDirectory()
    with made as folder:
        private = private_folder(Path(folder))
        if private is None:
            raise OSError(f"{folder} can be changed by other users; set TMPDIR to a folder of your own")
        yield private


def _digest(path: Path) -> str:
    return files.sha256(path)[:32]


def _reason(error: Exception) -> str:
    """What a compiler or the loader reports, on one line."""
    output = getattr(error, "stderr", None) or ""
    output = output.decode(errors="replace") if isinstance(output, bytes) else output  # bytes after a timeout
    lines = [line for line in output.splitlines() if line.strip()]
    if not lines and isinstance(error, subprocess.CalledProcessError):
        lines = [f"it ends with code {error.returncode}"]
    elif not lines and isinstance(error, subprocess.TimeoutExpired):
        lines = [f"it takes more than {error.timeout:g} seconds"]
    line = next((line for line in lines if "error" in line), lines[0] if lines else str(error))
    return one_line(line, 200)
