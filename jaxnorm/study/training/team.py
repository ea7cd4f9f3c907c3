"""Several runs that differ in their seed alone, trained in lockstep by one program: a team."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxnorm.errors import UserError
from jaxnorm.study.config import Config
from jaxnorm.study.training.parallel import Devices

AXIS = "seed"
Way = Literal["vmap", "scan", "unroll"]


def way_on(platform: str) -> Way:
    """How the runs that lie on one device share it.

    "vmap" makes one operation of theirs, so that N small networks are launched as one; their convolutions become
    grouped ones. "unroll" puts N copies of the network into one program, and "scan" one copy into a loop: neither
    launches less. On CPU, where nothing waits for launches, grouped convolutions are a third slower than one network
    after the other, and a convolution within a loop crawls, so the copies win. ``benchmarks/seeds.py`` measures all
    of them.
    """
    return "unroll" if platform == "cpu" else "vmap"


@dataclasses.dataclass(frozen=True)
class Team(Devices):
    """Where the arrays of several runs lie: each with a leading axis of runs, which is cut among the devices.

    Each run lies on one device, whole, and exchanges nothing with the others; images are on every device. Where the
    runs do not divide among the devices the last one fills the places that are left, and is left out of what comes
    `apart`.

    Attributes:
        mesh: the devices along the axis "seed"; None for the default device alone.
        size: runs.
        way: how those on one device share it, see `way_on`.
    """

    size: int = 1
    way: Way = "vmap"

    @property
    def per_device(self) -> int:
        """Runs that lie on one device; on the last, perhaps fewer."""
        return -(-self.size // self.count)

    def share(self, batch: jax.Array) -> jax.Array:
        """Within jit: the batch as it is, since all of it belongs to a run on one device."""
        return batch

    def unite(self, tree: Any) -> Any:
        """Within jit: the arrays as they are, each run's on its own device."""
        return tree

    def local(self, tree: Any) -> Any:
        """Arrays that are replicated, or one run's from `apart`, on the first device."""
        return jax.tree.map(
            lambda leaf: jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else super(Team, self).local(leaf), tree
        )

    def stack(self, trees: Sequence[Any]) -> Any:
        """One tree of those of the runs."""
        places = [*trees, *[trees[-1]] * (self.per_device * self.count - self.size)]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *places)
        return stacked if self.mesh is None else jax.device_put(stacked, NamedSharding(self.mesh, P(AXIS)))

    def apart(self, stacked: Any) -> list[Any]:
        """Each run's own tree, as NumPy arrays, of a stacked one."""
        leaves = jax.device_get(stacked)
        return [jax.tree.map(lambda leaf, place=place: np.asarray(leaf[place]), leaves) for place in range(self.size)]

    def each(self, function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """Within jit: `function`, of one run's tree and one that all runs share, made one of a stacked tree."""

        def here(stacked: Any, shared: Any) -> Any:
            # One place of the axis of runs is no axis: a grouped convolution of a single group has nothing to gain.
            if self.way == "unroll" or self.per_device == 1:
                runs = [jax.tree.map(lambda leaf, at=at: leaf[at], stacked) for at in range(self.per_device)]
                return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(function(run, shared) for run in runs))
            if self.way == "scan":
                return jax.lax.map(lambda run: function(run, shared), stacked)
            return jax.vmap(function, in_axes=(0, None))(stacked, shared)

        if self.mesh is None:
            return here
        return jax.shard_map(here, mesh=self.mesh, in_specs=(P(AXIS), P()), out_specs=P(AXIS))


def team_for(size: int, *, count: int | None = None, way: Way | None = None) -> Devices:
    """The devices of `size` runs: as many as there are, each with equally many runs; of one run, a single device.

    Args:
        size: runs.
        count: devices at most; by default all, on CPU too: there are several only if somebody forced them.
        way: how those on one device share it; by default as `way_on` chooses.

    Raises:
        UserError: if this is one of several processes.
    """
    if size == 1:
        return Devices()
    if jax.process_count() > 1:
        raise UserError(
            f"--parallel-seeds goes with one process, but there are {jax.process_count()}; drop it, or start one "
            "process alone"
        )
    available = jax.devices()
    per_device = -(-size // min(size, count or len(available)))
    count = -(-size // per_device)
    mesh: Mesh | None = None
    if count > 1:
        mesh = jax.make_mesh((count,), (AXIS,), axis_types=(AxisType.Auto,), devices=available[:count])
    return Team(mesh, size, way or way_on(available[0].platform))


def teams(configs: Sequence[Config], most: int) -> list[list[Config]]:
    """Runs whose configurations are equal but for the seed, up to `most` together, in the order of their first ones.

    Example:
        >>> grid = [Config(norm=norm, seed=seed) for seed in (0, 1, 2) for norm in ("bn", "gn")]
        >>> [[config.name for config in team] for team in teams(grid, 2)]
        [['bn-seed0', 'bn-seed1'], ['gn-seed0', 'gn-seed1'], ['bn-seed2'], ['gn-seed2']]
    """
    variants: dict[Config, list[list[Config]]] = {}
    for config in configs:
        found = variants.setdefault(dataclasses.replace(config, seed=0), [])
        if not found or len(found[-1]) == most:
            found.append([])
        found[-1].append(config)
    return sorted((team for found in variants.values() for team in found), key=lambda team: configs.index(team[0]))
