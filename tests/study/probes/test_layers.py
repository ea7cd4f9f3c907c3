"""Gradients and features of layers against hand-written derivatives in float64."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from jaxnorm import NORMS
from jaxnorm.study.probes.layers import mean_cosine, probe_layers, stable_rank
from jaxnorm.study.probes.plain_network import PlainNetwork

IMAGE = np.random.default_rng(0).normal(size=(6, 2, 2, 3)).astype(np.float32)
LABEL = np.arange(6) % 3


def probed(model):
    variables = model.init(jax.random.key(0), IMAGE, train=False)
    return variables, probe_layers(model, variables, IMAGE, LABEL)


class TwoDense(nn.Module):
    """logits = relu(x A) B, without biases."""

    @nn.compact
    def __call__(self, x, *, train):
        x = x.reshape(len(x), -1)
        x = nn.relu(nn.Dense(16, use_bias=False, name="first")(x))
        return nn.Dense(3, use_bias=False, name="second")(x)


def test_norms_are_those_of_derivatives_by_hand():
    variables, layers = probed(TwoDense())
    first, second = (np.asarray(variables["params"][name]["kernel"], np.float64) for name in ("first", "second"))
    x = IMAGE.reshape(6, -1).astype(np.float64)
    hidden = np.maximum(x @ first, 0)
    exp = np.exp(hidden @ second)
    at_logits = (exp / exp.sum(1, keepdims=True) - np.eye(3)[LABEL]) / 6
    at_first = (at_logits @ second.T) * (hidden > 0)
    assert list(layers) == ["first", "second"]
    expected = {
        "first": (at_first, x.T @ at_first, first, x),
        "second": (at_logits, hidden.T @ at_logits, second, hidden),
    }
    for name, (gradient, by_weight, weight, features) in expected.items():
        found = layers[name]
        assert found.gradient == pytest.approx(np.linalg.norm(gradient), rel=1e-5)
        assert found.weight_gradient == pytest.approx(np.linalg.norm(by_weight), rel=1e-5)
        assert found.weight == pytest.approx(np.linalg.norm(weight), rel=1e-6)
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        assert found.cosine == pytest.approx(np.mean([unit[i] @ unit[j] for i in range(6) for j in range(i)]), rel=1e-5)
        spectral = np.linalg.norm(features, 2)
        assert found.stable_rank == pytest.approx((np.linalg.norm(features) / spectral) ** 2, rel=1e-5)


def test_vectors_with_one_common_cosine_have_the_known_stable_rank():
    count, cosine = 20, 0.3
    products = np.full((count, count), cosine) + (1 - cosine) * np.eye(count)
    assert mean_cosine(products) == pytest.approx(cosine)
    assert stable_rank(products) == pytest.approx(count / (1 + (count - 1) * cosine))


def test_features_that_are_zero_or_not_finite_have_neither():
    for products in (np.zeros((3, 3)), np.full((3, 3), np.nan)):
        assert np.isnan(mean_cosine(products))
        assert np.isnan(stable_rank(products))


@pytest.mark.parametrize("norm", NORMS)
def test_every_norm_can_be_probed(norm):
    _, layers = probed(PlainNetwork(norm=NORMS[norm], conv=NORMS[norm].conv, depth=2, num_filters=8))
    assert list(layers) == ["layer1", "layer2", "head"]
    assert all(np.isfinite(layer).all() and layer.weight_gradient > 0 for layer in layers.values())


class Shared(nn.Module):
    """A layer that is called twice, one that has a kernel of its own, and batch statistics."""

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.BatchNorm(use_running_average=not train)(x)
        conv = nn.Conv(3, (1, 1), name="shared")
        return Scaled(name="scaled")(conv(nn.relu(conv(x))).mean((1, 2)))


class Scaled(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x * self.param("kernel", nn.initializers.ones, (3,))


def test_any_network_can_be_probed():
    _, layers = probed(Shared())
    assert list(layers) == ["shared", "shared:2", "scaled"]
    assert layers["shared"].weight_gradient == layers["shared:2"].weight_gradient
    assert layers["shared"].gradient != layers["shared:2"].gradient


def test_the_batch_s_own_statistics_count():
    """In training mode the input's scale does not reach the network; the running statistics would let it through."""
    model = Shared()
    variables = model.init(jax.random.key(0), IMAGE, train=False)
    once, scaled = (probe_layers(model, variables, image, LABEL)["scaled"] for image in (IMAGE, 100 * IMAGE))
    assert scaled.gradient == pytest.approx(once.gradient, rel=1e-3)
