"""The devices of a run. Only this file asks JAX which there are."""

import dataclasses
import math
import os
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxnorm.errors import UserError, one_line
from jaxnorm.private_folder import private_folder
from jaxnorm.study.config import Config
from jaxnorm.study.training.processes import num_processes

AXIS = "data"
NumDevices = int | Literal["auto"]
"""How many devices share each batch; "auto" leaves the choice to `devices_for`."""


@dataclasses.dataclass(frozen=True)
class Devices:
    """The devices of one run: weights and images are on every one, each batch is cut into equal parts.

    Equal values are one static argument to a jitted function, which then compiles once.

    Attributes:
        mesh: the devices along the axis "data"; None for the default device alone.
    """

    mesh: Mesh | None = None

    @property
    def count(self) -> int:
        """Number of devices, over all processes."""
        return 1 if self.mesh is None else self.mesh.size

    @property
    def platform(self) -> str:
        """cpu, gpu or tpu."""
        return platform() if self.mesh is None else str(self.mesh.devices[0].platform)

    def replicate(self, tree: Any) -> Any:
        """Copies arrays to every device.

        Args:
            tree: of arrays; every process must have the same values.

        Returns:
            The tree on every device.
        """
        if self.mesh is None:
            return tree
        sharding = NamedSharding(self.mesh, P())
        return jax.tree.map(lambda leaf: _put(leaf, sharding), tree)

    def shard(self, batch: jax.Array) -> jax.Array:
        """Within jit: cuts the batch along its first axis into one part per device.

        Args:
            batch: an array; the number of devices divides its first axis.

        Returns:
            The batch, divided.
        """
        return self._constrain(batch, P(AXIS))

    def gather(self, tree: Any) -> Any:
        """Within jit: puts whole arrays on every device.

        Args:
            tree: of arrays.

        Returns:
            The tree on every device.
        """
        return self._constrain(tree, P())

    def local(self, tree: Any) -> Any:
        """Replicated arrays on this process's first device alone, for work that is not shared.

        Args:
            tree: of replicated arrays.

        Returns:
            The tree on one device.
        """
        return tree if self.mesh is None else jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)

    def _constrain(self, tree: Any, spec: P) -> Any:
        if self.mesh is None:
            return tree
        return jax.lax.with_sharding_constraint(tree, NamedSharding(self.mesh, spec))


def _put(leaf: Any, sharding: NamedSharding) -> jax.Array:
    """An array with this sharding. Every process has the same values."""
    if num_processes() == 1:
        return jax.device_put(leaf, sharding)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_put(jax.random.key_data(leaf), sharding))
    values = np.asarray(leaf)
    return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])


def devices_for(config: Config, num_devices: NumDevices = "auto") -> Devices:
    """The devices that share the batches of a run.

    Args:
        config: the run.
        num_devices: how many. "auto" takes as many accelerators as divide the batch, but one CPU device, since CPU
            devices share the same cores. With several processes it takes all devices.

    Returns:
        The devices.

    Raises:
        UserError: if there are fewer devices, or their number does not divide the batch or its replicas.
    """
    available = jax.devices()
    if config.num_replicas is None:
        parts, what, flag = config.batch_size, "batch size", "`batch_size`"
    else:
        parts, what, flag = config.num_replicas, "number of replicas", "`num_replicas`"
    if num_devices != "auto":
        count = num_devices
    elif num_processes() > 1:
        count = len(available)
    else:
        most = 1 if platform() == "cpu" else len(available)
        count = max(n for n in range(1, most + 1) if parts % n == 0)
    if count > len(available):
        hint = " (XLA_FLAGS=--xla_force_host_platform_device_count=8 splits a CPU into eight)"
        raise UserError(
            f"--data-parallel must not exceed the number of devices, but is {count} and there are {len(available)} "
            f"({platform()}); lower it{hint if platform() == 'cpu' else ''}"
        )
    if parts % count:
        raise UserError(
            f"the number of devices must divide the {what} {parts}, but is {count}; choose --data-parallel "
            f"{math.gcd(parts, count)} or another {flag}"
        )
    if num_processes() > 1 and count != len(available):
        raise UserError(
            f"several processes share all of their {len(available)} devices, but --data-parallel is {count}; drop it"
        )
    if count == 1:
        return Devices()
    return Devices(jax.make_mesh((count,), (AXIS,), axis_types=(AxisType.Auto,), devices=available[:count]))


def with_replicas(config: Config, num_devices: NumDevices = "auto") -> Config:
    """`config` with its number of replicas filled in: one per device, where the configuration leaves it open.

    Args:
        config: the run.
        num_devices: as in `devices_for`.

    Returns:
        The configuration; unchanged where batch statistics are global or `num_replicas` is set.

    Raises:
        UserError: if statistics are to be taken per replica and there is only one.

    Examples:
        >>> with_replicas(Config(bn_statistics="replica"), 4).num_replicas
        4
    """
    if config.bn_statistics == "global" or config.num_replicas is not None:
        return config
    count = num_devices
    if count == "auto":
        count = len(jax.devices()) if num_processes() > 1 or platform() != "cpu" else 1
    if count == 1:
        raise UserError(
            "`bn_statistics` replica needs several replicas, but there is one device; give `num_replicas`, or "
            "--data-parallel on a machine with several devices"
        )
    return dataclasses.replace(config, num_replicas=count)


def start() -> None:
    """Starts JAX's devices, which every other function here does, too.

    Raises:
        UserError: if there is none of the platform that the environment asks for.
    """
    try:
        jax.devices()
    except Exception as error:  # a driver, a flag or a platform that is not there can make it raise anything
        wanted = os.environ.get("JAX_PLATFORMS")
        asks = f"JAX_PLATFORMS={wanted} asks for one that does not start" if wanted else "it finds none"
        raise UserError(
            f"JAX must find a device, but {asks} ({one_line(f'{type(error).__name__}: {error}'.rstrip(': '), 200)}); "
            + ("unset JAX_PLATFORMS, or " if wanted else "")
            + "see what `python -m jaxnorm doctor` says"
        ) from error


def platform() -> str:
    """Platform of the default device.

    Returns:
        cpu, gpu or tpu.
    """
    return str(jax.devices()[0].platform)


def device_kind() -> str:
    """Name of the default device as its driver gives it.

    Returns:
        For example "NVIDIA H100 80GB HBM3".
    """
    return str(jax.devices()[0].device_kind)


def device_count() -> int:
    """Number of devices.

    Returns:
        Devices of all processes together.
    """
    return jax.device_count()


def use_compilation_cache(folder: Path) -> None:
    """Keeps compiled programs in `folder` for later runs; not on CPU, where JAX rejects its own (jax issue 38445).

    Args:
        folder: made if it is used. It is not used if other users could change it, since JAX runs what it finds there.
    """
    if platform() != "cpu" and (private := private_folder(folder)) is not None:
        jax.config.update("jax_compilation_cache_dir", str(private))
        # The many small programs of a network's initial weights, too.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
