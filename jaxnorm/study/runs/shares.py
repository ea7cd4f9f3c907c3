"""What each of several jobs has of the machine."""

import dataclasses
import math
import os

from jaxnorm.errors import UserError
from jaxnorm.study.runs.plan import Machine
from jaxnorm.study.runs.provenance import cores

GPU_MEMORY = 0.9
"""Part of a GPU's memory that the workers on it divide among them."""


@dataclasses.dataclass(frozen=True)
class Share:
    """What one worker has of the machine.

    Attributes:
        cores: numbers of its processor cores.
        platform: of its device: cpu or gpu.
        environment: variables that choose its device.
    """

    cores: tuple[int, ...]
    platform: str = "cpu"
    environment: dict[str, str] = dataclasses.field(default_factory=dict)

    def take(self) -> None:
        """Restricts this process to the share, before JAX looks for devices."""
        if hasattr(os, "sched_setaffinity"):  # not on macOS and Windows
            os.sched_setaffinity(0, self.cores)
        os.environ.update(self.environment)

    def check(self, platform: str) -> None:
        """Checks that this process has found its device: JAX takes the CPU, with a warning, if a GPU does not start.

        Args:
            platform: of the device that it has found.

        Raises:
            UserError: if that is another one.
        """
        if platform != self.platform:
            raise UserError(
                f"each of the jobs must find a {self.platform}, but one finds a {platform} only; see what "
                "`python -m jaxnorm doctor` says, and whether CUDA_VISIBLE_DEVICES names devices that exist"
            )


def shares(jobs: int, machine: Machine | None = None) -> list[Share]:
    """Divides the machine among workers.

    All workers have equally many cores, since the number of threads decides the last bits of a run. GPUs are given out
    in turn.

    Args:
        jobs: number of workers.
        machine: where they train; None divides the cores alone.

    Returns:
        A share for each worker.

    Raises:
        UserError: if the devices cannot be divided.
    """
    available = cores()
    size = max(len(available) // jobs, 1)
    starts = [job * size % len(available) for job in range(jobs)]  # more jobs than cores share them
    divided = [available[start : start + size] for start in starts]
    if machine is None or machine.platform == "cpu":
        return [Share(own) for own in divided]
    if machine.platform != "gpu":
        raise UserError(
            f"--jobs gives each run a CPU or GPU of its own, but the devices are {machine.platform}s; drop it"
        )
    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    if len(names) < machine.num_devices:
        names = [str(number) for number in range(machine.num_devices)]
    environment = {}
    if jobs > machine.num_devices and "XLA_PYTHON_CLIENT_MEM_FRACTION" not in os.environ:
        part = GPU_MEMORY / math.ceil(jobs / machine.num_devices)
        environment = {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{part:.3f}"}
    return [
        Share(own, machine.platform, {**environment, "CUDA_VISIBLE_DEVICES": names[job % machine.num_devices]})
        for job, own in enumerate(divided)
    ]
