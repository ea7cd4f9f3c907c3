"""The growth of gradients per layer against mean-field theory."""

import math

import jax
import jax.numpy as jnp
import pytest

from jaxnorm import NORMS
from jaxnorm.study.probes.layers import probe_layers
from jaxnorm.study.probes.plain_network import PlainNetwork, growth, predicted_growth


def measured(norm, weights, *, images=128, depth=30):
    """Of one image a pixel: every image is a sample."""
    network = PlainNetwork(norm=NORMS[norm], depth=depth, num_filters=384, weights=weights)
    image = jax.random.normal(jax.random.key(1), (images, 1, 1, 3))
    variables = network.init(jax.random.key(2), image[:1], train=False)
    return probe_layers(network, variables, image, jnp.arange(images) % 10)


# What a layer multiplies a gradient by: see the docstring of `predicted_growth`. Thirty layers compile for ten seconds.
@pytest.mark.parametrize(
    "norm, weights, expected, depth",
    [
        ("bn", "torch", math.sqrt(math.pi / (math.pi - 1)), 30),
        ("ln", "torch", 1.0, 20),
        ("none", "he", 1.0, 20),
        ("none", "torch", math.sqrt(1 / 6), 20),
    ],
)
def test_gradients_grow_as_mean_field_theory_says(norm, weights, expected, depth):
    assert predicted_growth(norm, weights) == pytest.approx(expected)
    assert growth(measured(norm, weights, depth=depth)) == pytest.approx(expected, rel=0.025)


def test_features_of_batch_norm_keep_the_cosine_of_theory_and_those_of_layer_norm_do_not():
    """ReLU of independent Gaussians: E[relu z]^2 / E[(relu z)^2] = 1 / pi. Layer norm makes samples alike."""
    assert measured("bn", "torch", depth=10)["layer10"].cosine == pytest.approx(1 / math.pi, abs=0.03)
    assert measured("ln", "torch", depth=20)["layer20"].cosine > 0.85


def test_nothing_is_predicted_for_other_norms():
    assert predicted_growth("gn", "torch") is None
    assert predicted_growth("a_user_s", "he") is None
