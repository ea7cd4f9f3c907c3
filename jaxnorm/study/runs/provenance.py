"""What a run ran on: command, code, versions, device, data."""

import functools
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from jaxnorm import files
from jaxnorm.conv import kernels
from jaxnorm.study import home
from jaxnorm.study.data.dataset import Dataset
from jaxnorm.study.registry import NORMS
from jaxnorm.study.runs.lock import timestamp

PACKAGES = ("jaxnorm", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def provenance(label: str, dataset: Dataset) -> dict[str, Any]:
    """Everything about the surroundings of a run that its numbers may depend on, as JSON values."""
    return {
        "label": label,
        "command": command(),
        "started": timestamp(),
        **surroundings(dataset),
    }


def surroundings(dataset: Dataset) -> dict[str, Any]:
    """The part of `provenance` that must stay the same for a run to go on to the same numbers."""
    found = {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "device": device(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "convolutions": kernels.description(),
        "matmul_precision": str(getattr(jax.config, "jax_default_matmul_precision", None) or "default"),
        "data": dataset.to_json(),
        "git": git_state(Path(__file__).parent),
        "imported_norms": {id: digest for id, norm in NORMS.items() if (digest := _source(norm.build)) is not None},
    }
    return dict(home.hidden(found))


def differences(found: dict[str, Any], now: dict[str, Any]) -> tuple[list[str], list[str]]:
    """What has changed since a run began: changes that decide its numbers, and those that only move their last bits.

    Versions, compiler flags, matmul precision, the device's platform, the data and the files of imported norms are of
    the first kind; another processor or accelerator of the same platform, another count of cores or devices, whose
    convolutions (which the count of CPU devices decides, too), and another commit of one version, of the second.
    """
    found = home.hidden(found)  # as a folder may have it from before paths were shortened
    grave: list[str] = []
    slight: list[str] = []
    versions = found.get("versions", {})
    grave += [
        f"{name}: {versions[name]} -> {version}"
        for name, version in now["versions"].items()
        if name in versions and versions[name] != version
    ]
    for name in ("xla_flags", "matmul_precision", "convolutions"):
        if name in found and found[name] != now[name]:
            change = f"{name}: {found[name] or 'none'} -> {now[name] or 'none'}"
            (slight if name == "convolutions" else grave).append(change)
    device = found.get("device", {})
    for name, value in now["device"].items():
        if name in device and device[name] != value:
            (grave if name == "platform" else slight).append(f"device {name}: {device[name]} -> {value}")
    data = str(found.get("data", {}).get("fingerprint"))
    if data != now["data"]["fingerprint"]:
        grave.append(f"data fingerprint: {data[:12]}... -> {now['data']['fingerprint'][:12]}...")
    imported = found.get("imported_norms", {})
    for id, now_is in now["imported_norms"].items():
        if id in imported and imported[id] != now_is:
            grave.append(f"file of norm {id}: {imported[id][:12]}... -> {now_is[:12]}...")
    commit = found.get("git", {}).get("commit")
    if commit and now["git"]["commit"] and commit != now["git"]["commit"]:
        slight.append(f"commit: {commit[:7]} -> {now['git']['commit'][:7]}")
    return grave, slight


def _source(build: Callable[..., Any]) -> str | None:
    """SHA-256 of the file that defines a norm's `build`; None for our own norms and for what has no file."""
    while isinstance(build, functools.partial):
        build = build.func
    module = getattr(build, "__module__", None) or type(build).__module__
    path = getattr(sys.modules.get(module), "__file__", None)
    if path is None or module.startswith("jaxnorm."):
        return None
    return files.sha256(Path(path))


def command() -> str:
    """The command line that started this process, ready to be typed again."""
    return home.typed(["python", *sys.argv])


def device() -> dict[str, Any]:
    """Platform, kind and count of the devices, and the processor cores this process may use."""
    first = jax.devices()[0]
    kind = _processor() if first.platform == "cpu" else first.device_kind
    found = {"platform": first.platform, "kind": kind, "count": jax.device_count(), "cores": cores()}
    return found if jax.process_count() == 1 else {**found, "processes": jax.process_count()}


def git_state(folder: Path) -> dict[str, Any]:
    """Commit of the checkout that `folder` lies in and whether it has changes; None for both outside of one."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return {"commit": None, "dirty": None}


def _git(folder: Path, *arguments: str) -> str:
    finished = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return finished.stdout.strip()


def _version(package: str) -> str | None:
    if package == "jaxnorm":
        import jaxnorm

        return jaxnorm.__version__
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
