"""The devices of a run: one, a mesh of several, or those of several hosts. With `team`, all that names devices."""

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxnorm.errors import UserError
from jaxnorm.study.config import Config

AXIS = "data"
HEARTBEAT_SECONDS = 30
"""A process that has not been heard of for so long is taken for dead, and the others end."""
Wanted = int | Literal["auto"]


@dataclasses.dataclass(frozen=True)
class Devices:
    """Where the arrays of a run lie: weights and images on every device, each batch in equal parts.

    Equal ones are one value to a jitted function, so that it compiles once.

    Attributes:
        mesh: the devices along the axis "data"; None for the default device alone.
    """

    mesh: Mesh | None = None

    @property
    def count(self) -> int:
        """How many there are, over all processes."""
        return 1 if self.mesh is None else self.mesh.size

    @property
    def platform(self) -> str:
        """cpu, gpu or tpu."""
        return str((jax.devices() if self.mesh is None else self.mesh.devices)[0].platform)

    def replicate(self, tree: Any) -> Any:
        """The arrays of `tree`, whole on every device; every process must hold the same values."""
        return tree if self.mesh is None else jax.tree.map(self._everywhere, tree)

    def share(self, batch: jax.Array) -> jax.Array:
        """Within jit: the batch, cut along its first axis into a part for each device."""
        return self._constrain(batch, P(AXIS))

    def unite(self, tree: Any) -> Any:
        """Within jit: the arrays of `tree`, whole on every device."""
        return self._constrain(tree, P())

    def local(self, tree: Any) -> Any:
        """Replicated arrays as they lie on this process's first device, for work that is not shared."""
        return tree if self.mesh is None else jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)

    def stack(self, trees: Sequence[Any]) -> Any:
        """The arrays of all runs that lie here, of which there is one: replicated. Several make a `Team`."""
        (tree,) = trees
        return self.replicate(tree)

    def apart(self, stacked: Any) -> list[Any]:
        """What `stack` put together."""
        return [stacked]

    def each(self, function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """Within jit: `function`, of one run's tree and one that all runs share, made one of all runs."""
        return function

    def _everywhere(self, leaf: Any) -> jax.Array:
        sharding = NamedSharding(self._known_mesh, P())
        if jax.process_count() == 1:
            return jax.device_put(leaf, sharding)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(self._everywhere(jax.random.key_data(leaf)))
        values = np.asarray(leaf)
        return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])

    def _constrain(self, tree: Any, spec: P) -> Any:
        if self.mesh is None:
            return tree
        return jax.lax.with_sharding_constraint(tree, NamedSharding(self.mesh, spec))

    @property
    def _known_mesh(self) -> Mesh:
        if self.mesh is None:
            raise RuntimeError("a single device has no mesh")
        return self.mesh


def devices_for(config: Config, wanted: Wanted = "auto") -> Devices:
    """The devices that share the batches of a run.

    Args:
        config: the run.
        wanted: how many; "auto" takes, of accelerators, as many as divide its batch, and one CPU (CPU devices share
            the same cores). With several processes it takes all.

    Raises:
        UserError: if there are not so many, or they do not divide the batch or its replicas.
    """
    available = jax.devices()
    replicas = config.num_replicas
    parts, what, flag = (config.batch_size, "batch size", "--batch-size")
    if replicas is not None:
        parts, what, flag = (replicas, "number of replicas", "--num-replicas")
    if wanted != "auto":
        count = wanted
    elif jax.process_count() > 1:
        count = len(available)
    else:
        most = 1 if available[0].platform == "cpu" else len(available)
        count = max(n for n in range(1, most + 1) if parts % n == 0)
    if count > len(available):
        hint = " (XLA_FLAGS=--xla_force_host_platform_device_count=8 makes eight of a CPU)"
        raise UserError(
            f"--data-parallel must not exceed the devices, but is {count} where there are {len(available)} "
            f"({available[0].platform}); lower it{hint if available[0].platform == 'cpu' else ''}"
        )
    if parts % count:
        raise UserError(
            f"the devices must divide the {what} {parts}, but there are {count}; choose --data-parallel "
            f"{math.gcd(parts, count)} or another {flag}"
        )
    if jax.process_count() > 1 and count != len(available):
        raise UserError(
            f"several processes share all of their {len(available)} devices, but --data-parallel is {count}; drop it"
        )
    if count == 1:
        return Devices()
    return Devices(jax.make_mesh((count,), (AXIS,), axis_types=(AxisType.Auto,), devices=available[:count]))


def with_replicas(config: Config, wanted: Wanted = "auto") -> Config:
    """`config` with its number of replicas, where that is left to the number of devices.

    Raises:
        UserError: if statistics are to be taken by replica and there would be only one.
    """
    if config.bn_statistics == "global" or config.num_replicas is not None:
        return config
    count = wanted
    if count == "auto":
        count = len(jax.devices()) if jax.process_count() > 1 or jax.devices()[0].platform != "cpu" else 1
    if count == 1:
        raise UserError(
            "--bn-statistics replica takes them on each of several replicas, but there is one device; give "
            "--num-replicas, or --data-parallel on a machine with several devices"
        )
    config = dataclasses.replace(config, num_replicas=count)
    config.validate()
    return config


def join(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Makes this process one of several that share their devices; does nothing where there is only one.

    To be called before anything else of jax. The processes of a Slurm step, of Open MPI or of a TPU pod on Kubernetes
    are noticed without arguments; with the coordinator "auto", jax looks for whatever launcher it knows.

    Raises:
        UserError: if the others cannot be reached.
    """
    if coordinator is None and not _launched_together():
        return
    coordinator = None if coordinator == "auto" else coordinator
    # On CPU programs that are in hand at once may run in any order, and each process must meet the others in one.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM for itself, and stop nothing
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=HEARTBEAT_SECONDS,
            initialization_timeout=60,
        )
    except (RuntimeError, ValueError) as error:
        words = " ".join(str(error).split())[:200]
        raise UserError(
            f"the processes must find each other, but {coordinator or 'the launcher'} gives: {words}; check "
            "--coordinator, --num-processes and --process-id of each"
        ) from error


def _launched_together() -> bool:
    """Whether a launcher that jax knows has started this process as one of several."""
    sizes = (os.environ.get(name, "") for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"))
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "")
    return any(size.isdigit() and int(size) > 1 for size in sizes) or "," in hosts


def keep_programs(folder: Path) -> None:
    """Keeps compiled programs in `folder` for later runs; not on CPU, where jax rejects its own (jax issue 38445)."""
    if jax.devices()[0].platform != "cpu":
        jax.config.update("jax_compilation_cache_dir", str(folder))


def is_first() -> bool:
    """Whether this is the process that writes and speaks."""
    return jax.process_index() == 0


def any_of(flag: bool) -> bool:
    """Whether `flag` is true in any process; all of them must ask at the same point."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.asarray(flag)).any())


def all_reach(place: str) -> bool:
    """Whether every process comes to `place`, a name that is used once, about when this one does.

    Those that wait for each other's devices instead do not answer, and are waited for as long as for a heartbeat.
    """
    try:
        ocp.multihost.get_barrier_sync_fn()(key=place, timeout_ms=1000 * HEARTBEAT_SECONDS)
    except jax.errors.JaxRuntimeError:
        return False
    return True


def told(tree: Any) -> Any:
    """The arrays of the first process's `tree`, as NumPy arrays, in every process; all of them must ask."""
    return tree if jax.process_count() == 1 else multihost_utils.broadcast_one_to_all(tree)
