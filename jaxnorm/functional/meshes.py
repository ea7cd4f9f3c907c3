"""Meshes with Explicit axes, the default of `jax.make_mesh`: there an array's sharding is part of its type.

Slices, reshapes and sums of a sharded axis need an explicit sharding of their result, and ours are many. So what
computes on such arrays is run with Auto axes, where the compiler chooses, and only the results' shardings are given.
"""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec, auto_axes

Function = TypeVar("Function", bound=Callable[..., Any])


def explicit_mesh(values: Iterable[Any]) -> Any:
    """The mesh of the first array whose type has Explicit axes.

    Args:
        values: Arrays, mappings of arrays, and anything else.

    Returns:
        The abstract mesh, or None.
    """
    for value in values:
        if isinstance(value, jax.Array):
            mesh = jax.typeof(value).sharding.mesh
            if AxisType.Explicit in mesh.axis_types:
                return mesh
        elif isinstance(value, dict) and (mesh := explicit_mesh(value.values())) is not None:
            return mesh
    return None


def spec_on(mesh: Any, array: Any) -> PartitionSpec:
    """How an array is sharded.

    Args:
        mesh: As from `explicit_mesh`.
        array: An array.

    Returns:
        An entry for each axis; all None if the array is not on the mesh.
    """
    sharding = jax.typeof(array).sharding
    return sharding.spec if sharding.mesh == mesh else PartitionSpec(*[None] * np.ndim(array))


def with_auto_axes(mesh: Any, function: Callable[..., Any], arguments: Any, specs: Any) -> Any:
    """`function` of the arguments, computed with Auto axes.

    Args:
        mesh: As from `explicit_mesh`.
        function: Called with `arguments`.
        arguments: A tree with arrays, and with anything else.
        specs: The partition specs of the results, a tree like theirs.

    Returns:
        The results of the function.
    """
    leaves, structure = jax.tree.flatten(arguments)
    at = [index for index, leaf in enumerate(leaves) if isinstance(leaf, jax.Array | np.ndarray)]

    def of_arrays(*arrays: jax.Array) -> Any:
        given = dict(zip(at, arrays, strict=True))
        return function(jax.tree.unflatten(structure, [given.get(index, leaf) for index, leaf in enumerate(leaves)]))

    shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
    explicit = tuple(
        name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind is AxisType.Explicit
    )
    arrays = [leaves[index] for index in at]
    if not jax.sharding.get_abstract_mesh().empty or any(isinstance(each, jax.core.Tracer) for each in arrays):
        # An array that is not on the mesh is put there first. Its gradient would be on the mesh with Auto axes.
        replicated = NamedSharding(mesh, PartitionSpec())
        arrays = [each if jax.typeof(each).sharding.mesh == mesh else jax.reshard(each, replicated) for each in arrays]
    computed = auto_axes(of_arrays, axes=explicit, out_sharding=shardings)
    if AxisType.Manual in mesh.axis_types:
        # What the gradient keeps would leave shard_map with Auto axes and come back with Explicit ones, an error of
        # jax. So it keeps the arrays and computes the rest again.
        computed = jax.checkpoint(computed, prevent_cse=False)
    return computed(*arrays)


def on_any_mesh(function: Function) -> Function:
    """Decorator of a normalization: computes arrays of a mesh with Explicit axes too.

    The output is sharded as the input. A running statistic is sharded as the given one; without one, it is replicated.

    Args:
        function: A function of an array `x`, perhaps with `running` statistics.

    Returns:
        The function.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapped(*arguments: Any, **settings: Any) -> Any:
        mesh = explicit_mesh((*arguments, *settings.values()))
        if mesh is None:
            return function(*arguments, **settings)
        bound = signature.bind(*arguments, **settings).arguments
        specs: Any = spec_on(mesh, bound["x"])
        if "running" in signature.parameters:
            running = bound.get("running")
            of_each = None if running is None else {name: spec_on(mesh, value) for name, value in running.items()}
            specs = specs, PartitionSpec() if of_each is None else of_each
        return with_auto_axes(mesh, lambda given: function(**given), dict(bound), specs)

    return wrapped  # type: ignore[return-value]
