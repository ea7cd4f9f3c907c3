"""Batch renormalization."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from jaxnorm.functional.batch import check_more_than_one_value
from jaxnorm.functional.fields import document
from jaxnorm.functional.inputs import Axes, prepare
from jaxnorm.functional.meshes import on_any_mesh
from jaxnorm.functional.moments import compute_moments, normalize
from jaxnorm.functional.running_statistics import Running, running_moments, start_or_check, updated


@document
@on_any_mesh
def batch_renorm(
    x: ArrayLike,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    running: Running | None = None,
    *,
    train: bool,
    r_max: ArrayLike = 3.0,
    d_max: ArrayLike = 5.0,
    axis: Axes = -1,
    momentum: float = 0.99,
    epsilon: float = 1e-5,
    mask: ArrayLike | None = None,
    axis_name: Any = None,
    axis_index_groups: Any = None,
    use_fast_variance: bool = True,
    dtype: DTypeLike | None = None,
    force_float32_reductions: bool = True,
    _checked: bool = True,  # as in `batch_norm`
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """y = scale * (r * (x - E[x]) / s + d) + bias, with E and Var of each channel over batch and positions.

    s = sqrt(Var[x] + epsilon), s_running = sqrt(running var + epsilon). r = s / s_running, limited to
    [1 / r_max, r_max], and d = (E[x] - running mean) / s_running, limited to [-d_max, d_max]. Both are constants for
    derivatives. Within the limits, the output is that of the running statistics; with ``r_max=1`` and ``d_max=0`` it is
    batch norm. Afterwards ``running = momentum * running + (1 - momentum) * batch``; the variance is biased.

    The input has shape (N, ..., C). `scale`, `bias` and the running `mean` and `var` have shape (C,). Evaluation takes
    the running statistics, as `batch_norm`. The authors train 5000 steps with r_max = 1 and d_max = 0, and raise them
    to 3 within 40,000 and to 5 within 25,000 steps.

    References:
        Ioffe 2017, "Batch Renormalization", https://arxiv.org/abs/1702.03275

    Args:
        x: Shape (N, ..., C), real.
        running: `mean` and `var`. In training, None starts at mean 0 and variance 1.
        train: Whether to take the statistics of the batch, and to update the running ones.
        r_max: The largest factor r, at least 1.
        d_max: The largest shift d, at least 0.
        axis: The feature axis or axes, by default the last.
        momentum: Weight of the old running value.

    Returns:
        As `batch_norm`.

    Raises:
        UserError: As `batch_norm`, and if the input is complex.

    Examples:
        >>> import jax
        >>> from jaxnorm.functional import batch_norm, batch_renorm
        >>> x = jax.random.normal(jax.random.key(0), (8, 3))
        >>> y, _ = batch_renorm(x, train=True, r_max=1.0, d_max=0.0)
        >>> bool(abs(y - batch_norm(x, train=True)[0]).max() < 1e-6)
        True
    """
    given = prepare(x, mask, dtype, force_float32_reductions, "batch_renorm").real()
    feature_axes = given.axes(axis, "axis")
    axes = given.other_axes(feature_axes)
    statistics = start_or_check(running, given, feature_axes, train)
    moments = running_average = running_moments(statistics, given, feature_axes)
    scale, bias = given.scale_and_bias(scale, bias, feature_axes)
    factor, summand = scale, bias
    if train:
        if _checked and axis_name is None:
            check_more_than_one_value(given, given.x.shape, axes)
        moments = compute_moments(
            given.x,
            axes,
            mask=given.mask,
            axis_name=axis_name,
            axis_index_groups=axis_index_groups,
            use_fast_variance=use_fast_variance,
        )
        statistics = updated(statistics, moments, momentum)
        by_running = lax.rsqrt(running_average.var + epsilon)
        r = jnp.clip(jnp.sqrt(moments.var + epsilon) * by_running, 1 / r_max, r_max)
        d = ((moments.shift - running_average.shift) + moments.offset) * by_running
        d = jnp.clip(d, jnp.negative(d_max), d_max)
        r, d = lax.stop_gradient((r, d))
        factor = r if scale is None else r * scale
        summand = (d if scale is None else d * scale) + (0 if bias is None else bias)
    return given.output(normalize(given.x, moments, factor, summand, epsilon), scale, bias), statistics
