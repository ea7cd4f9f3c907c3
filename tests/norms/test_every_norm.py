"""What holds for every normalization in its three forms: ranks, statistics over devices, second derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnorm import UserError
from tests.norms.forms import FORMS, NORMS

SHAPE = (4, 5, 6, 8)
RANKS = [(4, 30, 8), (4, 2, 3, 5, 8)]
OVER_DEVICES = [name for name, norm in NORMS.items() if norm.takes({"axis_name": "d"}) and name != "ghost"]
NUMERICS = ("batch", "mixed", "instance", "layer", "group")
"""Those whose second derivatives test_numerics.py compares."""


def sample():
    """Values far from zero, samples apart, and a mask that leaves one of the later samples nearly nothing."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=SHAPE) + 10 * rng.normal(size=(4, 1, 1, 1))).astype(np.float32)
    share = np.array([0.9, 0.6, 0.1, 0.7])[:, None, None, None]
    return x, rng.uniform(size=(*SHAPE[:3], 1)) < share


@pytest.mark.parametrize("name", NORMS)
def test_positions_may_have_any_number_of_axes(name):
    norm, (x, mask) = NORMS[name], sample()
    mask, arrays = mask if norm.masked else None, norm.arrays(8)

    def reshaped(form, shape):
        kept = None if mask is None else mask.reshape(*shape[:-1], 1)
        y, running = norm.form(form)(arrays, x.reshape(shape), kept)
        return y.reshape(SHAPE), running

    first, *others = jax.jit(lambda: [reshaped(form, shape) for form in FORMS for shape in (SHAPE, *RANKS)])()
    for other in others:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), other, first)


@pytest.mark.parametrize("name", NORMS)
def test_without_positions_a_sample_has_one(name):
    norm, x = NORMS[name], sample()[0][:, 0, 0]
    apply = norm.form("functional")

    def outcome(x):
        try:
            y, running = jax.jit(apply)(norm.arrays(8), x)
        except UserError as error:
            return str(error).partition(" must")[0]
        return np.reshape(y, (4, 8)), running

    alone, expected = outcome(x), outcome(x[:, None, None])
    assert isinstance(alone, str) == isinstance(expected, str), (alone, expected)
    if not isinstance(alone, str):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), alone, expected)


@pytest.mark.parametrize("name", OVER_DEVICES)
def test_statistics_over_uneven_devices_are_those_of_the_whole(name):
    norm, (x, mask) = NORMS[name], sample()
    arrays, mask = norm.arrays(8), np.broadcast_to(mask, SHAPE)
    axis = 0 if norm.running else 2  # the samples are on two devices, or the positions of each sample
    fields = {"reduction_axes": (1, 2, 3)} if norm.takes({"reduction_axes": ()}) else {}

    def split(array):
        return np.stack(np.split(array, 2, axis))

    def answers(x, mask):
        whole = norm.form("functional", **fields)(arrays, x, mask)
        parts = []
        for form in FORMS:
            apply = norm.form(form, axis_name="d", **fields)
            y, running = jax.vmap(lambda x, mask, apply=apply: apply(arrays, x, mask), axis_name="d")(
                split(x), split(mask)
            )
            parts += [(jnp.concatenate(y, axis), jax.tree.map(lambda v, at=at: v[at], running)) for at in (0, 1)]
        return whole, parts

    whole, parts = jax.jit(lambda: answers(x, mask))()
    for part in parts:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), part, whole)


@pytest.mark.parametrize("name", [name for name in NORMS if name not in NUMERICS])
def test_second_derivatives_are_the_same_in_both_modes_and_those_of_finite_differences(name):
    norm = NORMS[name]
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        x, weight = (jnp.asarray(rng.normal(size=(4, 2, 3, 8)) + 1) for _ in range(2))
        arrays = norm.arrays(8, np.float64)
        parameters = {key: arrays[key] for key in norm.parameters}
        apply = norm.form("functional")

        def loss(point):
            return jnp.sum(weight * jnp.sin(apply(arrays | point[0], point[1])[0]))

        direction = jax.tree.map(lambda v: jnp.asarray(rng.normal(size=np.shape(v))), (parameters, x))

        def along(tree):
            return sum(jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(direction), strict=True))

        @jax.jit
        def derivatives(h):
            """The slope, and the curvature by forward over reverse and by reverse over reverse."""
            point = jax.tree.map(lambda v, d: v + h * d, (parameters, x), direction)
            gradient, curvature = jax.jvp(jax.grad(loss), (point,), (direction,))
            return along(gradient), along(curvature), along(jax.grad(lambda point: along(jax.grad(loss)(point)))(point))

        h = 1e-6
        (above, *_), (below, *_), (_, forward, reverse) = (map(float, derivatives(at)) for at in (h, -h, 0.0))
    np.testing.assert_allclose(forward, reverse, rtol=1e-9)
    if name != "renorm":  # its corrections are constants to every derivative, and yet they change
        np.testing.assert_allclose(forward, (above - below) / (2 * h), rtol=1e-4, atol=1e-6)
