"""A check of the environment before a long run: what is there, what is at risk, what to do."""

import contextlib
import dataclasses
import importlib.metadata
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxnorm import jaxlib_guard
from jaxnorm.conv import kernels
from jaxnorm.errors import UserError, one_line
from jaxnorm.files import cache_folder
from jaxnorm.private_folder import private_folder
from jaxnorm.study.data.binary import CIFAR10
from jaxnorm.study.data.cifar import data_folder, find
from jaxnorm.study.exit_codes import ExitCode
from jaxnorm.study.runs.provenance import cores, environment, options

NEEDED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy", "scikit-learn", "matplotlib")
ALSO_NEEDED = ("pandas", "tyro", "rich", "jinja2", "filelock", "pillow", "safetensors")
LITTLE_DISK, LITTLE_MEMORY = 2e9, 3e9  # bytes; a CIFAR-10 run holds under 2 GB and leaves under 10 MB a run

OPTIONS = ("jax_default_prng_impl", "jax_threefry_partitionable", "jax_enable_x64", "jax_default_matmul_precision")
"""Those that are always shown."""

State = Literal["good", "note", "risk", "wrong"]
MARKS: dict[State, tuple[str, str]] = {
    "good": ("✓", "green"),
    "note": ("·", "dim"),
    "risk": ("!", "yellow"),
    "wrong": ("✗", "bold red"),
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was examined.

    Attributes:
        name: what it is.
        found: its state in a few words.
        state: "good", "note" (worth knowing), "risk", or "wrong" (results or runs cannot be trusted).
        fix: what to do about it; may be empty.
    """

    name: str
    found: str
    state: State
    fix: str = ""


def examine(data_dir: Path | None = None) -> list[Finding]:
    """Examines interpreter, packages, devices, kernels, memory, disk, cache and data.

    It trains and downloads nothing. It compiles the kernels if that has not been done.

    Args:
        data_dir: folder of CIFAR-10; by default `$JAXNORM_DATA_DIR`, then the cache folder.

    Returns:
        One finding per thing.
    """
    return [
        Finding("Python", platform.python_version(), "good"),
        *_packages(),
        _jaxlib(),
        *_devices(),
        _convolutions(),
        *_settings(),
        _memory(),
        _disk("Disk here", Path.cwd()),
        _disk("Disk of the cache", cache_folder()),
        _cache(),
        _data(data_dir),
    ]


def print_findings(findings: list[Finding], console: Console) -> int:
    """Prints the findings as a table.

    Args:
        findings: of `examine`.
        console: where to print.

    Returns:
        The exit code: 1 if something is wrong, else 0.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        mark, style = MARKS[finding.state]
        words = Text(finding.found)
        if finding.fix:
            words.append(f"\n{finding.fix}", style="italic")
        table.add_row(Text(mark, style=style), finding.name, words)
    console.print(table)
    wrong, risks = (sum(finding.state == state for finding in findings) for state in ("wrong", "risk"))
    if wrong:
        console.print(f"{wrong} to fix before any run.", style="bold red")
    elif risks:
        console.print(f"Fit to run; {risks} to know about.")
    else:
        console.print("Fit to run.")
    return ExitCode.CRASHED if wrong else ExitCode.COMPLETE


def _packages() -> list[Finding]:
    found, missing = [], []
    for name in (*NEEDED, *ALSO_NEEDED):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    findings = [Finding("Packages", ", ".join(found), "good")]
    if missing:
        findings.append(Finding("Missing", ", ".join(missing), "wrong", "pip install 'jaxnorm[study]'"))
    return findings


def _jaxlib() -> Finding:
    try:
        version = importlib.metadata.version("jaxlib")
    except importlib.metadata.PackageNotFoundError:
        return Finding("Numbers on CPU", "there is no jaxlib", "wrong", "pip install 'jaxnorm[study]'")
    if version != jaxlib_guard.WRONG:
        return Finding("Numbers on CPU", f"jaxlib {version} has no known fault", "good")
    protected = f"{jaxlib_guard.FLAG}=" in os.environ.get("XLA_FLAGS", "").split()
    found = f"jaxlib {version} computes wrong numbers on CPU (jax issue 39103); " + (
        "the flag that prevents it is set" if protected else "the flag that prevents it is not set"
    )
    return Finding("Numbers on CPU", found, "risk" if protected else "wrong", "pip install 'jaxlib!=0.10.2'")


def _devices() -> list[Finding]:
    try:
        from jaxnorm.study.training import devices

        platform_of, kind, count = devices.platform(), devices.device_kind(), devices.device_count()
    except Exception as error:  # a driver or a flag can make the backend raise anything
        words = one_line(f"{type(error).__name__}: {error}".rstrip(": "), 300)
        fix = "check JAX_PLATFORMS, XLA_FLAGS and the driver; JAX_PLATFORMS=cpu always works"
        return [Finding("Devices", f"jax does not start ({words})", "wrong", fix)]
    found = f"{count} x {kind} ({platform_of}), {len(cores())} processor cores"
    if platform_of != "cpu":
        return [Finding("Devices", found, "good")]
    fix = "the presets quick and short are made for this; --preset study needs a GPU or TPU"
    findings = [Finding("Devices", f"{found}, no accelerator", "note", fix)]
    if shutil.which("nvidia-smi"):
        fix = "pip install -U 'jax[cuda13]', then look again"
        findings.append(Finding("Accelerator", "an NVIDIA driver is here, but jax does not use it", "risk", fix))
    return findings


def _convolutions() -> Finding:
    reason = kernels.missing()
    if reason is None:
        return Finding("Convolutions on CPU", f"own kernels, compiled by {kernels.compiler()}", "good")
    fix = f"unset {kernels.SWITCH}" if kernels.is_off() else "install a C++ compiler, for example apt install g++"
    return Finding("Convolutions on CPU", f"XLA's: {reason}", "note", f"{fix}; {kernels.COST}")


def _settings() -> list[Finding]:
    """What decides numbers and can be set from outside; a run records it."""
    shown = {name: value for name, value in options().items() if name in OPTIONS or name.upper() in os.environ}
    words = ", ".join(f"{name.removeprefix('jax_')} {value}" for name, value in shown.items())
    findings = [Finding("Options of JAX", words, "note", "a run does not continue under other ones")]
    for name, value in environment().items():
        fix = f"unset {name} unless you mean it: runs under another value have other numbers"
        findings.append(Finding(name, value, "note", fix))
    return findings


def _memory() -> Finding:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError, IndexError):
        return Finding("Memory", f"unknown on {sys.platform}", "note")
    found = f"{available / 1e9:.1f} GB available"
    if available < LITTLE_MEMORY:
        return Finding("Memory", found, "risk", f"CIFAR-10 wants {LITTLE_MEMORY / 1e9:.0f} GB; end other programs")
    return Finding("Memory", found, "good")


def _disk(name: str, folder: Path) -> Finding:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    found = f"{free / 1e9:.1f} GB free in {folder}"
    if free < LITTLE_DISK:
        return Finding(name, found, "risk", f"runs and data want {LITTLE_DISK / 1e9:.0f} GB; free some space")
    return Finding(name, found, "good")


def _cache() -> Finding:
    folder = cache_folder()
    if private_folder(folder / "kernels") is not None and os.access(folder, os.W_OK):
        return Finding("Cache", str(folder), "good")
    found = f"{folder} is not writable, or other users are; so every start compiles the kernels anew"
    return Finding("Cache", found, "risk", "set XDG_CACHE_HOME to a folder that only you can change")


def _data(data_dir: Path | None) -> Finding:
    folder = data_folder(data_dir)
    source = None
    try:
        with contextlib.suppress(OSError):
            source = find(folder, CIFAR10, progress=False)
    except UserError as error:
        return Finding("CIFAR-10", str(error), "risk", "the embedded digits need no files")
    if source is not None:
        return Finding("CIFAR-10", f"found: {source.path}", "good")
    fix = "it is downloaded at the first use (170 MB), or give --data-dir; the embedded digits need no files"
    return Finding("CIFAR-10", f"not in {folder}", "note", fix)
