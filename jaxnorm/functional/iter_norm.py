"""Iterative normalization: whitening by Newton's iteration."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from jaxnorm.errors import UserError
from jaxnorm.functional.batch import check_more_than_one_value
from jaxnorm.functional.fields import document
from jaxnorm.functional.inputs import Input, prepare
from jaxnorm.functional.meshes import on_any_mesh
from jaxnorm.functional.moments import Moments, compute_moments
from jaxnorm.functional.running_statistics import Running, start_or_check
from jaxnorm.functional.sums import as_count

_einsum = partial(jnp.einsum, precision=lax.Precision.HIGHEST)


@document
@on_any_mesh
def iter_norm(
    x: ArrayLike,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    running: Running | None = None,
    *,
    train: bool,
    group_size: int = 64,
    num_iterations: int = 5,
    momentum: float = 0.99,
    epsilon: float = 1e-5,
    mask: ArrayLike | None = None,
    axis_name: Any = None,
    axis_index_groups: Any = None,
    dtype: DTypeLike | None = None,
    force_float32_reductions: bool = True,
    _checked: bool = True,  # as in `batch_norm`
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """y = scale * W (x - E[x]) + bias, where W is nearly the inverse root of Cov[x] + epsilon * I of some channels.

    E and Cov are over batch and positions, of the channels of a group. With S = (Cov[x] + epsilon * I) / tr, where tr
    is the trace, and P_0 = I, the iteration is P_k = (3 P_{k-1} - P_{k-1}^3 S) / 2, and W = P_T / sqrt(tr). Few
    iterations T whiten the directions of large variance fully and those of small variance in part; many are unstable.

    The input has shape (N, ..., C). `scale`, `bias` and the running `mean` have shape (C,), the running `cov` has shape
    (groups, group_size, group_size). Evaluation takes the running statistics, an average of covariances and not of
    their inverse roots.

    References:
        Huang et al. 2019, "Iterative Normalization: Beyond Standardization towards Efficient Whitening",
        https://arxiv.org/abs/1904.03441

    Args:
        x: Shape (N, ..., C), real.
        running: `mean` and `cov`. In training, None starts at mean 0 and the identity.
        train: Whether to take the statistics of the batch, and to update the running ones.
        group_size: Number of neighbouring channels that are whitened together; fewer channels are one group.
        num_iterations: T.
        momentum: Weight of the old running value.

    Returns:
        The output, of x's shape, and the running statistics: the new ones in training, the given ones in evaluation.

    Raises:
        UserError: As `batch_norm`; if `group_size` does not divide the channels; if `num_iterations` is negative; if
            the input is complex.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from jaxnorm.functional import iter_norm
        >>> x = jax.random.normal(jax.random.key(0), (1000, 3)) @ jnp.asarray([[1.0, 1, 0], [0, 1, 1], [0, 0, 1]])
        >>> y, _ = iter_norm(x, train=True, num_iterations=7)
        >>> bool(abs(jnp.cov(y.T, bias=True) - jnp.eye(3)).max() < 1e-3)
        True
    """
    given = prepare(x, mask, dtype, force_float32_reductions, "iter_norm").real()
    channels, length = (given.x.ndim - 1,), given.x.shape[-1]
    size = whitened_together(length, group_size)
    if num_iterations < 0:
        raise UserError(f"iter_norm's num_iterations must be at least 0, but is {num_iterations}; 5 is usual")
    if running is None and train:
        running = {"mean": jnp.zeros(length, given.x.dtype), "cov": identities(length, size, given.x.dtype)}
    statistics = start_or_check(running, given, channels, train, ("mean", "cov"))
    mean, cov = given.parameter(statistics["mean"], channels, "running mean"), statistics["cov"]
    if cov.shape != (length // size, size, size):
        raise UserError(
            f"iter_norm's running cov must have the shape {(length // size, size, size)}, but has {cov.shape}; "
            "give what training returned"
        )
    moments = Moments(mean, jnp.zeros_like(mean), jnp.zeros_like(mean), None)
    if train:
        axes = given.other_axes(channels)
        if _checked and axis_name is None:
            check_more_than_one_value(given, given.x.shape, axes)
        devices = dict(axis_name=axis_name, axis_index_groups=axis_index_groups)
        moments = compute_moments(given.x, axes, mask=given.mask, **devices)
        cov = _covariance(given, moments, size, axis_name, axis_index_groups)
        new = {"mean": moments.mean.reshape(-1), "cov": cov}
        some = jnp.max(jnp.asarray(moments.count)) > 0
        statistics = {
            name: jnp.where(some, momentum * old + (1 - momentum) * new[name], old).astype(old.dtype)
            for name, old in statistics.items()
        }
    whitening = _inverse_root(cov + epsilon * jnp.eye(size, dtype=cov.dtype), num_iterations)
    y = _einsum("...gi,gij->...gj", _grouped((given.x - moments.shift) - moments.offset, size), whitening)
    y = y.reshape(given.x.shape)
    scale, bias = given.scale_and_bias(scale, bias, channels)
    return given.affine_output(y, scale, bias), statistics


def whitened_together(channels: int, group_size: int) -> int:
    """The number of channels in a group.

    Args:
        channels: Length of the last axis.
        group_size: As in `iter_norm`.

    Returns:
        `group_size`, or `channels` if these are fewer.

    Raises:
        UserError: If it does not divide the channels.
    """
    size = min(group_size, channels)
    if size < 1 or channels % size:
        raise UserError(f"iter_norm's group_size must divide the {channels} channels, but is {size}; choose a divisor")
    return size


def identities(channels: int, size: int, dtype: DTypeLike) -> jax.Array:
    """The start of the running `cov`.

    Args:
        channels: Length of the last axis.
        size: Number of channels in a group.
        dtype: Dtype of the result.

    Returns:
        An identity matrix for each group.
    """
    return jnp.broadcast_to(jnp.eye(size, dtype=dtype), (channels // size, size, size))


def _grouped(x: jax.Array, size: int) -> jax.Array:
    return x.reshape(*x.shape[:-1], x.shape[-1] // size, size)


def _covariance(given: Input, moments: Moments, size: int, axis_name: Any, axis_index_groups: Any) -> jax.Array:
    """Cov[x] of each group. A mask that differs by channel counts the positions that both channels of a pair have."""
    d = (given.x - moments.shift) - moments.offset
    d = _grouped(d if given.mask is None else jnp.where(given.mask, d, 0), size)
    product = partial(_einsum, "...gi,...gj->gij")
    count: Any = as_count(math.prod(given.x.shape[:-1]), given.x.dtype)
    if given.mask is not None:
        where = _grouped(jnp.broadcast_to(given.mask, given.x.shape).astype(given.x.dtype), size)
        count = product(where, where)
    total = product(d, d)
    if axis_name is not None:
        total, count = lax.psum((total, count), axis_name, axis_index_groups=axis_index_groups)
    return total / jnp.maximum(count, 1)


def _inverse_root(cov: jax.Array, num_iterations: int) -> jax.Array:
    trace = jnp.trace(cov, axis1=1, axis2=2)[:, None, None]
    normalized = cov / trace
    root = jnp.broadcast_to(jnp.eye(cov.shape[-1], dtype=cov.dtype), cov.shape)
    for _ in range(num_iterations):
        cube = _einsum("gij,gjk,gkl->gil", root, root, root)
        root = 1.5 * root - 0.5 * _einsum("gij,gjk->gik", cube, normalized)
    return root / jnp.sqrt(trace)
