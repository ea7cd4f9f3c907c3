"""What a run was trained on: command, code, versions, device, data."""

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
from jaxnorm.conv import kernels, library
from jaxnorm.study import home
from jaxnorm.study.data.dataset import Dataset
from jaxnorm.study.registry import NORMS
from jaxnorm.study.runs.lock import timestamp
from jaxnorm.study.training import devices

PACKAGES = ("jaxnorm", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def provenance(label: str, dataset: Dataset) -> dict[str, Any]:
    """Everything around a run that its numbers may depend on.

    Args:
        label: of the run's norm.
        dataset: what the run trains on.

    Returns:
        JSON values: those of `surroundings`, the command and the time.
    """
    return {"label": label, "command": command(), "started": timestamp(), **surroundings(dataset.to_json())}


def surroundings(data: dict[str, Any]) -> dict[str, Any]:
    """The part of `provenance` that must remain the same for a run to continue to the same numbers.

    Args:
        data: `Dataset.to_json` of what the run trains on.

    Returns:
        JSON values.
    """
    found = {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "device": device(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "convolutions": kernels.description(),
        "matmul_precision": str(getattr(jax.config, "jax_default_matmul_precision", None) or "default"),
        "data": data,
        "git": git_state(Path(__file__).parent),
        "imported_norms": {id: digest for id, norm in NORMS.items() if (digest := _source(norm.build)) is not None},
    }
    return dict(home.hidden(found))


def differences(found: dict[str, Any], now: dict[str, Any]) -> tuple[list[str], list[str]]:
    """What has changed since a run began.

    Args:
        found: the `surroundings` that the run recorded.
        now: those of this process.

    Returns:
        Texts such as ``jax: 0.10.1 -> 0.12.0``. First the changes that decide the run's numbers: versions, compiler
        flags, matmul precision, platform, data and files of imported norms. Then those that change only last bits:
        another processor or accelerator of the platform, another number of cores or devices, other convolutions (which
        depend on the number of CPU devices, too) and another commit of one version.
    """
    changed = []
    for before, after in zip(_facts(found), _facts(now), strict=True):
        common = [name for name in after if name in before]
        changed.append([f"{name}: {before[name]} -> {after[name]}" for name in common if before[name] != after[name]])
    decisive, minor = changed
    return decisive, minor


def _facts(surroundings: dict[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """What decides the numbers, by name, and what changes only their last bits; what is not recorded is left out."""
    device = {f"device {name}": value for name, value in surroundings.get("device", {}).items()}
    settings = {
        name: surroundings[name] or "none" for name in ("xla_flags", "matmul_precision") if name in surroundings
    }
    hashes = {"data fingerprint": surroundings.get("data", {}).get("fingerprint")}
    hashes |= {f"file of norm {id}": digest for id, digest in surroundings.get("imported_norms", {}).items()}
    commit = surroundings.get("git", {}).get("commit")
    decisive = {
        **surroundings.get("versions", {}),
        **settings,
        "device platform": device.pop("device platform", None),
        **{name: value and f"{value[:12]}..." for name, value in hashes.items()},
    }
    minor = {**device, "convolutions": surroundings.get("convolutions"), "commit": commit and commit[:7]}
    known = [{name: value for name, value in facts.items() if value is not None} for facts in (decisive, minor)]
    return known[0], known[1]


def _source(build: Callable[..., Any]) -> str | None:
    """SHA-256 of the file that defines a norm's `build`; None for our own norms and for functions without a file."""
    while isinstance(build, functools.partial):
        build = build.func
    module = getattr(build, "__module__", None) or type(build).__module__
    path = getattr(sys.modules.get(module), "__file__", None)
    if path is None or module.startswith("jaxnorm."):
        return None
    return files.sha256(Path(path))


def command() -> str:
    """The command line that started this process.

    Returns:
        One line that a shell accepts.
    """
    return home.typed(["python", *sys.argv])


def device() -> dict[str, Any]:
    """The devices, and the processor cores that this process may use.

    Returns:
        Platform, kind, count, cores; and processes, if there are several.
    """
    platform_of, kind = devices.platform(), devices.device_kind()
    if platform_of == "cpu":
        kind = library.processor().get("model name") or platform.machine()
    found = {"platform": platform_of, "kind": kind, "count": devices.device_count(), "cores": len(cores())}
    return found if devices.num_processes() == 1 else {**found, "processes": devices.num_processes()}


def git_state(folder: Path) -> dict[str, Any]:
    """The state of the git checkout around a folder.

    Args:
        folder: the folder.

    Returns:
        Its commit and whether it has changes; None for both outside of a checkout.
    """
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return {"commit": None, "dirty": None}


def _git(folder: Path, *arguments: str) -> str:
    finished = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=True,
        timeout=10,
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


def cores() -> tuple[int, ...]:
    """The processor cores that this process may use.

    Returns:
        Their numbers, ascending; all cores where the system does not assign them.
    """
    return tuple(sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))
