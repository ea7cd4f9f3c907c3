"""What is about to be trained, on what, and about how long it takes."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console

from jaxnorm.conv import kernels
from jaxnorm.conv.convolution import Conv
from jaxnorm.study.config import Config
from jaxnorm.study.data.dataset import Dataset
from jaxnorm.study.runs.progress import say
from jaxnorm.study.runs.provenance import surroundings
from jaxnorm.study.training import devices
from jaxnorm.study.words import counted, duration

# Measured on 2 cores: a training step costs about this many forward passes of the first stage's 3x3 convolution,
# evaluation about this many; compiling the programs of a variant about this many seconds.
STEP_COST, EVALUATION_COST, COMPILE_SECONDS = 40.0, 9.5, 5.0


@dataclasses.dataclass(frozen=True)
class Machine:
    """What a process finds out about the machine that it runs on.

    Attributes:
        surroundings: what the numbers of a run depend on, see `provenance.surroundings`.
        num_devices: number of devices.
        seconds_per_image: time of one convolution of the network's first stage.
        without_kernels: why the CPU convolutions are XLA's and not our own kernels; None where nothing is missing.
    """

    surroundings: dict[str, Any]
    num_devices: int
    seconds_per_image: float
    without_kernels: str | None

    @property
    def platform(self) -> str:
        """Platform of the default device: cpu, gpu or tpu."""
        return str(self.surroundings["device"]["platform"])


def examine(data: dict[str, Any]) -> Machine:
    """Looks at the machine from within this process, which starts its devices, and measures for half a second.

    Args:
        data: `Dataset.to_json` of what will be trained on.

    Returns:
        What was found.
    """
    missing = kernels.missing() if devices.platform() == "cpu" and kernels.alone() else None
    height, width, _ = data["image_shape"]
    return Machine(surroundings(data), devices.device_count(), _seconds_per_image(height, width), missing)


def announce(
    configs: Sequence[Config],
    steps_left: Mapping[Config, int],
    dataset: Dataset,
    machine: Machine,
    workdir: Path,
    console: Console,
    *,
    jobs: int = 1,
) -> None:
    """Prints what is about to be done, on which data and device, and about how long it takes.

    Args:
        configs: all runs of the grid.
        steps_left: of those that are not finished, the steps that each still has to do.
        dataset: what they train on.
        machine: where they train.
        workdir: the study's folder.
        console: where to print.
        jobs: runs that train at the same time.
    """
    first = configs[0]
    of = "" if first.last_epoch == first.num_epochs else f" (of a schedule of {first.num_epochs})"
    sizes = ", ".join(map(str, dict.fromkeys(config.batch_size for config in configs)))
    seeds = [str(seed) for seed in dict.fromkeys(config.seed for config in configs)]
    lines = [
        f"Data: {dataset.description}, {len(dataset.train):,} training images, from {dataset.source}",
        f"Plan: {counted(len(configs), 'run')} of {counted(first.last_epoch, 'epoch')}{of}, batch size {sizes}: "
        + ", ".join(dict.fromkeys(config.norm for config in configs))
        + f"; seeds {', '.join(seeds if len(seeds) <= 10 else [*seeds[:9], '...', seeds[-1]])}",
        f"Into: {workdir}",
    ]
    if len(steps_left) < len(configs):
        lines.append(f"Done: {len(configs) - len(steps_left)} of {counted(len(configs), 'run')}, left as they are")
    if steps_left:
        if jobs > 1:
            lines.append(f"Jobs: {jobs} runs at a time, {_share_of(machine, jobs)}")
        seconds = seconds_for(steps_left, dataset, machine.seconds_per_image) / min(jobs, len(steps_left))
        lines.append(f"Time: training takes about {duration(seconds)} on {machine.platform.upper()}")
        if machine.without_kernels is not None:
            lines.append(f"Convolutions: XLA's, not our own kernels, because {machine.without_kernels}; {kernels.COST}")
    for line in lines:
        say(console, line)


def _share_of(machine: Machine, jobs: int) -> str:
    """What one of several jobs has of the machine, in words."""
    if machine.platform == "cpu":
        return f"each on {counted(machine.surroundings['device']['cores'], 'core')}"
    if jobs <= machine.num_devices:
        return "each on a device of its own"
    return f"sharing {counted(machine.num_devices, 'device')}"


def seconds_for(steps_left: Mapping[Config, int], dataset: Dataset, seconds_per_image: float) -> float:
    """Seconds to train and evaluate runs one after the other, right to a factor of about 1.5.

    Args:
        steps_left: steps that each run still has to do.
        dataset: what they train on.
        seconds_per_image: of a `Machine`.

    Returns:
        Seconds.
    """
    train, validation, test = (len(split) for split in (dataset.train, dataset.validation, dataset.test))
    seconds = COMPILE_SECONDS * len({config.norm for config in steps_left})
    for config, steps in steps_left.items():
        epochs = steps / (train // config.batch_size)
        evaluated = epochs * validation + train + validation + test
        size = (6 * config.num_blocks + 1) / 13 * (config.num_filters / 16) ** 2
        seconds += size * seconds_per_image * (STEP_COST * epochs * train + EVALUATION_COST * evaluated)
    return seconds


def _seconds_per_image(height: int, width: int) -> float:
    image = jnp.ones((32, height, width, 16))
    layer = Conv(16, (3, 3))
    apply = jax.jit(layer.apply)
    variables = layer.init(jax.random.key(0), image)
    jax.block_until_ready(apply(variables, image))
    times = []
    for _ in range(10):
        started = time.perf_counter()
        jax.block_until_ready(apply(variables, image))
        times.append(time.perf_counter() - started)
    return sorted(times)[len(times) // 2] / len(image)
