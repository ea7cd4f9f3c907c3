"""Eigenvalues against those of matrices that are known, and of a Hessian that is written out."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from jaxnorm import NORMS, Config
from jaxnorm.study.data import load_dataset
from jaxnorm.study.probes.curvature import curvature, curvature_of_run, lanczos
from jaxnorm.study.probes.plain_network import PlainNetwork
from jaxnorm.study.runs.trained import TrainedRun


def quadratic(values, seed=0):
    """A symmetric matrix with these eigenvalues."""
    turned, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values), len(values))))
    return turned @ np.diag(values) @ turned.T


def test_the_largest_eigenvalue_of_a_quadratic_is_found_in_few_products():
    matrix = quadratic(np.append(np.linspace(-1, 1, 199), 10.0))
    found = lanczos(lambda v: matrix @ v, 200, products=12)
    assert found.largest == pytest.approx(10, abs=1e-8)
    assert found.products == 12
    assert found.residual < 1e-4


def test_all_products_give_both_ends_exactly():
    values = np.array([-7.0, -1, 0, 0.5, 2, 3])
    matrix = quadratic(values)
    found = lanczos(lambda v: matrix @ v, 6)
    assert (found.largest, found.smallest) == pytest.approx((3, -7), abs=1e-10)
    assert found.residual == pytest.approx(0, abs=1e-6)


def test_an_eigenvector_ends_the_search():
    assert lanczos(lambda v: 4 * v, 50)[:2] == pytest.approx((4, 4))
    assert lanczos(lambda v: 0 * v, 50).largest == 0


def test_the_residual_bounds_the_error():
    matrix = quadratic(np.linspace(0, 1, 300))
    found = lanczos(lambda v: matrix @ v, 300, products=8)
    assert 0 < np.abs(np.linalg.eigvalsh(matrix) - found.largest).min() <= found.residual


class Bowl(nn.Module):
    """Logits that are linear in the parameters, of which the loss's Hessian is known."""

    @nn.compact
    def __call__(self, x, *, train):
        return nn.Dense(3, use_bias=False, name="head")(x.reshape(len(x), -1))


@pytest.mark.parametrize("model", [Bowl(), PlainNetwork(norm=NORMS["bn"], depth=2, num_filters=4, num_classes=3)])
def test_a_network_s_eigenvalues_are_those_of_its_whole_hessian(model):
    image, label = jax.random.normal(jax.random.key(0), (8, 2, 1, 3)), jnp.arange(8) % 3
    variables = model.init(jax.random.key(1), image, train=False)
    flat, unflat = ravel_pytree(variables["params"])
    mutable = [name for name in variables if name != "params"]

    def loss(flat):
        logits, _ = model.apply({**variables, "params": unflat(flat)}, image, train=True, mutable=mutable)
        return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()

    values = np.linalg.eigvalsh(np.asarray(jax.hessian(loss)(flat), np.float64))
    found = curvature(model, variables, image, label, products=flat.size)
    assert found.largest == pytest.approx(values[-1], rel=1e-3)
    assert found.smallest == pytest.approx(values[0], abs=1e-3 * values[-1])


def test_the_loss_s_statistics_are_the_batch_s_or_the_running_ones():
    model = PlainNetwork(norm=NORMS["bn"], depth=2, num_filters=4, num_classes=3)
    image, label = 5 + jax.random.normal(jax.random.key(0), (8, 2, 1, 3)), jnp.arange(8) % 3
    variables = model.init(jax.random.key(1), image, train=False)
    in_training, running = (curvature(model, variables, image, label, train=train).largest for train in (True, False))
    assert in_training != pytest.approx(running, rel=0.1)


def test_a_trained_run_is_measured_on_its_first_training_images():
    digits, model = load_dataset("digits"), PlainNetwork(norm=NORMS["ln"], depth=1, num_filters=4)
    variables = model.init(jax.random.key(1), jnp.zeros((1, 16, 16, 3)), train=False)
    about = dict(history=None, result={}, mean=digits.mean, class_names=digits.class_names)
    run = TrainedRun(config=Config(norm="ln"), model=model, variables=variables, **about)
    image = jnp.asarray(digits.train.image[:6] / 255 - np.asarray(digits.mean), jnp.float32)
    expected = curvature(model, variables, image, digits.train.label[:6], products=15)
    found = curvature_of_run(run, digits, images=6, products=15)
    assert found.largest == pytest.approx(expected.largest, rel=1e-3)
