"""What a run was trained on: command, code, versions, device, data."""

import contextlib
import functools
import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import flax
import jax

from jaxnorm.conv import kernels, library
from jaxnorm.errors import one_line
from jaxnorm.study import home, imported
from jaxnorm.study.config import Config, completed
from jaxnorm.study.data import DATASETS
from jaxnorm.study.invocation import command
from jaxnorm.study.models.registry import MODELS
from jaxnorm.study.registered import is_own
from jaxnorm.study.registry import NORMS, Norm
from jaxnorm.study.runs.lock import timestamp
from jaxnorm.study.training import devices, processes

_SILENT = re.compile(
    "cache|debug|_log|trac|dump|pprint|report|timeout|transfer|transport|mtls|export|serializ|share_binary|guard|check|"
    "warn|verbose|explain|visible|pallas|mosaic|source|topology|preemption|recoverab|distributed|async|num_cpu|backend|"
    "platform|jax2tf|promotion|mesh_context|legacy_prng|no_execution|profil|repr|orbax|filter|return_frozendict"
)
"""In names of options that change no number."""
_ENVIRONMENT = re.compile(
    "XLA_(?!PYTHON_CLIENT|CLIENT_MEM).*|LIBTPU_INIT_ARGS|(PJRT_)?NPROC|(ONEDNN|DNNL)_(?!VERBOSE).*|NVIDIA_TF32_.*|"
    "CUBLAS_WORKSPACE_CONFIG|TF_CUDNN_.*|TF_DETERMINISTIC_OPS|TF_ENABLE_ONEDNN_OPTS|NCCL_(ALGO|PROTO)|MIOPEN_.*|"
    "(ROC|HIP)BLAS.*|NPY_(DIS|EN)ABLE_CPU_FEATURES"
)
"""Variables of the environment that change numbers."""
PACKAGES = ("jaxnorm", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def provenance(label: str, surroundings: dict[str, Any]) -> dict[str, Any]:
    """Everything around a run that its numbers may depend on.

    Args:
        label: of the run's norm.
        surroundings: of the process that trains it.

    Returns:
        JSON values: the surroundings, the command and the time.
    """
    return {"label": label, "command": command(), "started": timestamp(), **surroundings}


def surroundings(data: dict[str, Any]) -> dict[str, Any]:
    """The part of `provenance` that a run's numbers depend on.

    Args:
        data: `Dataset.to_json` of what the run trains on.

    Returns:
        JSON values.
    """
    found = {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "device": device(),
        "options": options(),
        "environment": environment(),
        "convolutions": kernels.description(),
        "compiler": _compiler(),
        "data": data,
        "git": git_state(Path(__file__).parent),
        "imported": _imported(),
    }
    return dict(home.hidden(found))


def differences(found: dict[str, Any], now: dict[str, Any]) -> tuple[list[str], list[str]]:
    """What has changed since a run began.

    Args:
        found: the `surroundings` that the run recorded.
        now: those of this process.

    Returns:
        Texts such as ``jax: 0.10.1 -> 0.12.0``. First the changes that decide the run's numbers: versions, options of
        JAX and Flax, compiler flags and other variables of the environment, platform, convolutions, data and imported
        files. Then what is only noted: another processor or accelerator of the platform, another number of cores or
        devices, another C++ compiler and another commit of one version.
    """
    variables = {*found["environment"], *now["environment"]}
    decisive, noted = (_decisive(found, variables), _decisive(now, variables)), (_noted(found), _noted(now))
    return _changes(*decisive), _changes(*noted)


def _changes(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Texts; what only one side has is left out: options of a part of JAX that is not loaded, norms added later."""
    return [
        f"{name}: {before[name]} -> {after[name]}" for name in before if before[name] != after.get(name, before[name])
    ]


def config_differences(found: dict[str, Any], wanted: Config) -> dict[str, str]:
    """The fields of a configuration on disk in which `wanted` differs.

    Args:
        found: the fields that the file has.
        wanted: the run as it is asked for.

    Returns:
        By name, texts such as ``batch_size: 32 -> 64``. ``stop_after_epoch`` is left out, since it may grow.
    """
    now = wanted.to_json()
    return {
        name: f"{name}: {value} -> {now.get(name)}"
        for name, value in completed(found).items()
        if name != "stop_after_epoch" and now.get(name) != value
    }


def _decisive(surroundings: dict[str, Any], variables: Iterable[str]) -> dict[str, str]:
    """What decides the numbers, by name, with some variables of the environment."""
    found = {**surroundings["versions"], **surroundings["options"]}
    found |= {name: surroundings["environment"].get(name) for name in sorted(variables)}
    found |= {"convolutions": surroundings["convolutions"]}
    found["device platform"] = surroundings["device"]["platform"]
    found["data fingerprint"] = f"{surroundings['data']['fingerprint'][:12]}..."
    found |= {f"imported {name}": f"{digest[:12]}..." for name, digest in surroundings["imported"].items()}
    return {name: "none" if value in (None, "") else str(value) for name, value in found.items()}


def _noted(surroundings: dict[str, Any]) -> dict[str, str]:
    """What is only noted, by name; what is not known is left out."""
    found = {f"device {name}": value for name, value in surroundings["device"].items() if name != "platform"}
    commit = surroundings["git"]["commit"]
    found |= {"compiler": surroundings["compiler"], "commit": commit and commit[:7]}
    return {name: str(value) for name, value in found.items() if value is not None}


def options() -> dict[str, Any]:
    """The options of JAX and Flax that may change a number, however they were set.

    Returns:
        All values by name, without the options that only report, check, cache or choose devices.
    """
    flax_options = {name: getattr(flax.config, name) for name in dir(flax.config) if re.match("flax_|nnx_", name)}
    found = {name: value for name, value in {**jax.config.values, **flax_options}.items() if not _SILENT.search(name)}
    plain = (bool, int, float, str, type(None))
    return {name: value if isinstance(value, plain) else str(value) for name, value in sorted(found.items())}


@functools.cache
def _compiler() -> str | None:
    """The first line that the C++ compiler says of itself."""
    with contextlib.suppress(OSError, subprocess.SubprocessError, IndexError):
        command = [kernels.compiler() or "", "--version"]
        found = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=60)
        return found.stdout.splitlines()[0].strip()
    return None


def environment() -> dict[str, str]:
    """The variables of the environment that change numbers, such as ``XLA_FLAGS``.

    Returns:
        Values by name. Of ``XLA_FLAGS`` that name a file, its content.
    """
    found = {name: value for name, value in sorted(os.environ.items()) if value and _ENVIRONMENT.fullmatch(name)}
    flags = found.get("XLA_FLAGS", "-")
    if not flags.lstrip().startswith("-"):
        with contextlib.suppress(OSError):
            found["XLA_FLAGS"] = one_line(Path(flags).read_text(encoding="utf-8", errors="replace"))
    return found


def _imported() -> dict[str, str]:
    """SHA-256 of the user's files by name, also of what a norm imports only when it is built or called."""
    for norm in NORMS.values():
        if _remember(norm.build):
            _try(norm)
    for build in (*(one.build for one in MODELS.values()), *(one.load for one in DATASETS.values())):
        _remember(build)
    return imported.hashes()


def _remember(build: Callable[..., Any]) -> bool:
    """Hashes the module of a function that the user has registered; whether it is one."""
    while isinstance(build, functools.partial):
        build = build.func
    is_users = not is_own(build)
    if is_users:
        imported.remember(getattr(build, "__module__", None) or type(build).__module__)
    return is_users


@functools.cache
def _try(norm: Norm) -> None:
    with contextlib.suppress(Exception):  # it is reported where the norm is used
        key, image = jax.random.key(0), jax.ShapeDtypeStruct((2, 8, 8, 16), jax.numpy.float32)
        for train in (True, False):
            jax.eval_shape(norm(train=train).init_with_output, key, image)


def device() -> dict[str, Any]:
    """The devices, and the processor cores that this process may use.

    Returns:
        Platform, kind, count, cores; and processes, if there are several.
    """
    platform_of, kind = devices.platform(), devices.device_kind()
    if platform_of == "cpu":
        kind = library.processor().get("model name") or platform.machine()
    found = {"platform": platform_of, "kind": kind, "count": devices.device_count(), "cores": len(cores())}
    return found if processes.num_processes() == 1 else {**found, "processes": processes.num_processes()}


@functools.cache  # as it was when the program began
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
