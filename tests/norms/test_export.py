"""`jax.export` with symbolic sizes: one exported program gives the answer at every size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from jaxnorm import functional
from tests.norms.forms import FORMS, NORMS


def program(apply):
    """Gradients, outputs and statistics in training, with and without a mask, and in evaluation."""

    def training(arrays, x, mask):
        def loss(arrays, x):
            y, running = apply(arrays, x, mask)
            return (y**3).sum(), (y, running)

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(arrays, x)

    def run(arrays, x, mask):
        return training(arrays, x, None), training(arrays, x, mask), apply(arrays, x, None, False)

    return jax.jit(run)


def assert_exported(run, arrays, symbols, sizes):
    shape = export.symbolic_shape(symbols)
    exported = export.export(run)(
        arrays, jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct(shape, jnp.bool_)
    )
    for size in sizes:
        x = np.random.default_rng(0).normal(50, 3, size).astype(np.float32)
        found, expected = exported.call(arrays, x, x > 48), run(arrays, x, x > 48)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * max(1, np.abs(b).max())),
            found,
            expected,
        )


@pytest.mark.parametrize("name", NORMS)
def test_batch_and_positions(name):
    norm, batch = NORMS[name], "2*b" if name == "ghost" else "b"
    run = program(norm.form("functional"))
    assert_exported(run, norm.arrays(8), f"{batch}, h, w, 8", [(2, 1, 2, 8), (4, 9, 7, 8)])


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("form", FORMS[:2])
def test_the_batch_of_a_layer(form, name):
    norm, batch = NORMS[name], "2*b" if name == "ghost" else "b"
    run = jax.jit(lambda arrays, x, _: norm.form(form)(arrays, x))
    assert_exported(run, norm.arrays(8), f"{batch}, 5, 6, 8", [(2, 5, 6, 8)])


def test_channels():
    run = jax.jit(lambda _, x, mask: (functional.layer_norm(x, mask=mask), functional.rms_norm(x)))
    assert_exported(run, (), "b, c", [(2, 3), (5, 1200)])
