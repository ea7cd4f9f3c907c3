import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnorm import Config
from jaxnorm.study.training.features import BUCKETS, capture, feature_quantiles, layer_quantiles
from jaxnorm.study.training.images import on_device
from jaxnorm.study.training.state import initial_state

PERCENTAGES = (0.0, 1.0, 20.0, 50.0, 80.0, 99.0, 100.0)


def test_quantiles_of_all_values_together():
    features = np.random.default_rng(0).normal(size=(100, 64)).astype(np.float32)
    expected = np.quantile(features.ravel(), [0.01, 0.2, 0.8, 0.99])
    np.testing.assert_allclose(feature_quantiles(features, (1, 20, 80, 99)), expected, rtol=1e-6)


@pytest.fixture(scope="module")
def recorded(tiny):
    state = initial_state(Config(norm="gn"), tiny)
    images = on_device(tiny.train, tiny)
    features = capture(state.model, state.variables, images.normalized(images.image))
    return features, layer_quantiles(state.model, state.variables, images, PERCENTAGES, batch_size=7)


def test_every_convolution_is_captured_in_the_order_of_the_network(recorded):
    features, (quantiles, histograms) = recorded
    blocks = [
        f"stage{stage}_block{block}/{conv}"
        for stage in (1, 2, 3)
        for block in (1, 2)
        for conv in ("conv1", "conv2", "conv_proj")
        if conv != "conv_proj" or (stage > 1 and block == 1)
    ]
    assert list(features) == list(quantiles) == list(histograms) == ["stem_conv", *blocks, "pooled"]
    assert features["stage2_block1/conv_proj"].shape == (24, 4, 4, 32)
    assert min(features["stem_conv"].min(), features["stage3_block2/conv2"].min()) < 0, "before the ReLU"


def test_quantiles_of_every_layer_equal_those_of_all_its_values_though_batches_do_not_divide_the_split(recorded):
    features, (quantiles, _) = recorded
    for name, values in features.items():
        expected = np.quantile(np.asarray(values, np.float64), np.asarray(PERCENTAGES) / 100)
        np.testing.assert_allclose(quantiles[name], expected, rtol=1e-6, atol=1e-6, err_msg=name)


def test_the_histogram_counts_every_value_once_in_the_bucket_of_its_upper_bits(recorded):
    features, (_, histograms) = recorded
    for name, values in features.items():
        assert histograms[name].shape == (BUCKETS,)
        assert histograms[name].sum() == values.size
    values = np.asarray(features["pooled"]).ravel()
    bits = values.view(np.uint32)
    key = np.where(bits >> 31 == 1, ~bits, bits | np.uint32(2**31))
    differing = np.abs(np.bincount(key >> 16, minlength=BUCKETS) - histograms["pooled"]).sum()
    assert differing <= 4, "a value may round over an edge when the batch is another one"


def test_values_that_are_not_finite_make_quantiles_that_are_none(tiny):
    state = initial_state(Config(norm="none"), tiny)
    variables = jax.tree.map(lambda leaf: leaf * 1e30, state.variables)
    quantiles, _ = layer_quantiles(state.model, variables, on_device(tiny.test, tiny), (50.0,), batch_size=7)
    assert np.isnan(quantiles["pooled"]).all()
    assert np.isfinite(quantiles["stem_conv"]).all()


class Branches(nn.Module):
    """A network that is no ResNet: submodules out of alphabetical order, one convolution applied twice, one unused."""

    pooled: bool

    def setup(self):
        self.zeta = nn.Sequential([nn.Conv(4, (3, 3)), nn.relu, nn.Conv(4, (1, 1))])
        self.alpha = nn.Conv(4, (3, 3), feature_group_count=4)
        self.unused = nn.Conv(4, (3, 3))
        self.head = nn.Dense(3)

    def __call__(self, x, *, train):
        x = self.zeta(x)
        x = nn.relu(self.alpha(nn.relu(self.alpha(x)))).mean(axis=(1, 2))
        if self.pooled:
            self.sow("intermediates", "pooled", x)
        return self.head(x)


@pytest.mark.parametrize("pooled", [True, False])
def test_layers_of_any_network_are_captured_by_path_in_the_order_of_their_calls(tiny, pooled):
    model, images = Branches(pooled), on_device(tiny.test, tiny)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)
    quantiles, histograms = layer_quantiles(model, variables, images, (0.0, 100.0), batch_size=4)
    names = ["zeta/layers_0", "zeta/layers_2", "alpha", "alpha:2", *(["pooled"] if pooled else [])]
    assert list(quantiles) == list(histograms) == names
    once = model.bind(variables).alpha(model.bind(variables).zeta(images.normalized(images.image)))
    np.testing.assert_allclose(quantiles["alpha"], [once.min(), once.max()], rtol=1e-5)
    assert quantiles["alpha:2"].tolist() != quantiles["alpha"].tolist()
