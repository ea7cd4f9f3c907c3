"""Layers of PyTorch, timm and Keras as independent oracles, in float64: values, gradients, running statistics."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import chex
import jax
import numpy as np
import pytest

from jaxnorm.functional import (
    batch_norm,
    evo_norm_b0,
    evo_norm_s0,
    filter_response_norm,
    global_response_norm,
    group_norm,
    instance_norm,
    layer_norm,
    rms_norm,
    standardize_and_scale_weights,
    standardize_weights,
)

pytestmark = pytest.mark.peers
peers = pytest.importorskip("benchmarks.peers", reason="make test-peers installs its packages")
torch, timm, keras = peers.torch, peers.timm, peers.keras
keras_layers = keras.layers
MOMENTUM = 0.8


@dataclasses.dataclass
class Case:
    """A function of ours and a peer's layer.

    Attributes:
        function: Our function.
        theirs: Builds the layer.
        fields: Arguments of our function.
        shape: Shape of the input, channels last.
        first: Whether the layer has the channels first.
        params: Shape of each parameter.
        running: Names of the running statistics.
        unbiased: Whether the layer's running variance is unbiased.
        then: What the layer does with the normalized array.
    """

    function: Callable[..., Any]
    theirs: Callable[[], Any]
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)
    shape: tuple[int, ...] = (4, 5, 6, 8)
    first: bool = True
    params: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=lambda: dict(scale=(8,), bias=(8,)))
    running: tuple[str, ...] = ()
    unbiased: bool = False
    then: Callable[[Any], Any] = lambda y: y


def of_torch(name, *arguments, **settings):
    return lambda: getattr(torch.nn, name)(*arguments, **settings)


def batch(layer, *, epsilon=1e-5, **case):
    return Case(batch_norm, layer, dict(momentum=MOMENTUM, epsilon=epsilon), running=("mean", "var"), **case)


NEW = 1 - MOMENTUM  # the weight that PyTorch calls momentum
ALL = dict(reduction_axes=(1, 2, 3), feature_axes=(1, 2, 3))
LAST = dict(first=False)
EACH = dict(first=False, params=dict(scale=(5, 6, 8), bias=(5, 6, 8)))
ONLY_SCALE = dict(params=dict(scale=(8,)))
E5 = dict(epsilon=1e-5)
BOTH = dict(scale=(8,), bias=(8,))
SLOPED = dict(**BOTH, slope=(8,))
LINE, VOLUME = (4, 9, 8), (2, 3, 4, 5, 8)
CASES = {
    "torch.BatchNorm1d": batch(of_torch("BatchNorm1d", 8, momentum=NEW), shape=(16, 8), unbiased=True),
    "torch.BatchNorm1d, positions": batch(of_torch("BatchNorm1d", 8, momentum=NEW), shape=LINE, unbiased=True),
    "torch.BatchNorm2d": batch(of_torch("BatchNorm2d", 8, eps=0.1, momentum=NEW), epsilon=0.1, unbiased=True),
    "torch.BatchNorm2d, bare": batch(of_torch("BatchNorm2d", 8, momentum=NEW, affine=False), params={}, unbiased=True),
    "torch.BatchNorm3d": batch(of_torch("BatchNorm3d", 8, momentum=NEW), shape=VOLUME, unbiased=True),
    "torch.InstanceNorm1d": Case(instance_norm, of_torch("InstanceNorm1d", 8, affine=True), E5, shape=LINE),
    "torch.InstanceNorm2d": Case(instance_norm, of_torch("InstanceNorm2d", 8, affine=True), E5),
    "torch.InstanceNorm2d, bare": Case(instance_norm, of_torch("InstanceNorm2d", 8), E5, params={}),
    "torch.InstanceNorm3d": Case(instance_norm, of_torch("InstanceNorm3d", 8, affine=True), E5, shape=VOLUME),
    "torch.GroupNorm": Case(group_norm, of_torch("GroupNorm", 2, 8), dict(num_groups=2, **E5)),
    "torch.GroupNorm, vectors": Case(group_norm, of_torch("GroupNorm", 2, 8), dict(num_groups=2, **E5), (4, 8)),
    "torch.GroupNorm, one": Case(layer_norm, of_torch("GroupNorm", 1, 8), dict(reduction_axes=(1, 2, 3), **E5)),
    "torch.LayerNorm": Case(layer_norm, of_torch("LayerNorm", 8), E5, **LAST),
    "torch.LayerNorm, all axes": Case(layer_norm, of_torch("LayerNorm", (5, 6, 8)), {**ALL, **E5}, **EACH),
    "torch.RMSNorm": Case(rms_norm, of_torch("RMSNorm", 8, eps=1e-6), **LAST, **ONLY_SCALE),
    "torch.RMSNorm, all axes": Case(
        rms_norm, of_torch("RMSNorm", (5, 6, 8), eps=1e-6), ALL, first=False, params=dict(scale=(5, 6, 8))
    ),
    "timm.BatchNormAct2d": batch(lambda: timm.BatchNormAct2d(8, momentum=NEW), unbiased=True, then=jax.nn.relu),
    "timm.GroupNorm": Case(group_norm, lambda: timm.GroupNorm(8, num_groups=4), dict(num_groups=4, **E5)),
    "timm.GroupNorm1": Case(group_norm, lambda: timm.GroupNorm1(8), dict(num_groups=1, **E5)),
    "timm.GroupNormAct": Case(
        group_norm, lambda: timm.GroupNormAct(8, num_groups=4), dict(num_groups=4, **E5), then=jax.nn.relu
    ),
    "timm.LayerNorm": Case(layer_norm, lambda: timm.LayerNorm(8), **LAST),
    "timm.LayerNorm2d": Case(layer_norm, lambda: timm.LayerNorm2d(8)),
    "timm.RmsNorm": Case(rms_norm, lambda: timm.RmsNorm(8), **LAST, **ONLY_SCALE),
    "timm.RmsNorm2d": Case(rms_norm, lambda: timm.RmsNorm2d(8), **ONLY_SCALE),
    "timm.FilterResponseNormTlu2d": Case(
        filter_response_norm, lambda: timm.FilterResponseNormTlu2d(8), E5, params=dict(**BOTH, threshold=(8,))
    ),
    "timm.FilterResponseNormAct2d": Case(
        filter_response_norm, lambda: timm.FilterResponseNormAct2d(8), E5, params=BOTH, then=jax.nn.relu
    ),
    "timm.EvoNorm2dB0": Case(
        evo_norm_b0,
        lambda: timm.EvoNorm2dB0(8, momentum=NEW),
        dict(momentum=MOMENTUM, epsilon=1e-3),
        params=SLOPED,
        running=("var",),
        unbiased=True,
    ),
    "timm.EvoNorm2dS0": Case(evo_norm_s0, lambda: timm.EvoNorm2dS0(8, groups=2), dict(num_groups=2), params=SLOPED),
    "timm.GlobalResponseNorm": Case(
        global_response_norm, lambda: timm.grn.GlobalResponseNorm(8), first=False, params=BOTH
    ),
    "keras.BatchNormalization": batch(lambda: keras_layers.BatchNormalization(momentum=MOMENTUM), epsilon=1e-3, **LAST),
    "keras.BatchNormalization, axis 1": batch(
        lambda: keras_layers.BatchNormalization(axis=1, momentum=MOMENTUM), epsilon=1e-3
    ),
    "keras.LayerNormalization": Case(layer_norm, lambda: keras_layers.LayerNormalization(epsilon=1e-6), **LAST),
    "keras.LayerNormalization, all axes": Case(
        layer_norm, lambda: keras_layers.LayerNormalization(axis=(1, 2, 3), epsilon=1e-6), ALL, **EACH
    ),
    "keras.GroupNormalization": Case(
        group_norm, lambda: keras_layers.GroupNormalization(2, epsilon=1e-6), dict(num_groups=2), **LAST
    ),
    "keras.GroupNormalization, instances": Case(
        instance_norm, lambda: keras_layers.GroupNormalization(-1, epsilon=1e-6), **LAST
    ),
    "keras.RMSNormalization": Case(rms_norm, lambda: keras_layers.RMSNormalization(epsilon=1e-6), **LAST, **ONLY_SCALE),
}


class Peer:
    """A layer of PyTorch, timm or Keras in float64, for channels-last NumPy arrays."""

    def __init__(self, name, params):
        case = CASES[name]
        self.first, self.is_keras = case.first, name.startswith("keras")
        self.layer = case.theirs()
        names = dict(scale="weight", bias="bias", mean="running_mean", var="running_var", threshold="tau", slope="v")
        if self.is_keras:
            self.layer.build(self.there(np.empty(case.shape)).shape)
            scale = "scale" if case.function is rms_norm else "gamma"
            names = dict(scale=scale, bias="beta", mean="moving_mean", var="moving_variance")
        else:
            self.layer.double()
        tensors = {name: getattr(self.layer, names[name]) for name in (*params, *case.running)}
        tensors = {name: getattr(tensor, "value", tensor) for name, tensor in tensors.items()}
        self.running = {name: tensors[name] for name in case.running}
        self.params = {name: tensors[name] for name in params}
        for name, value in params.items():
            self.params[name].data.copy_(torch.tensor(value))

    def run(self, x, cotangent, train):
        """The output, and the gradients with respect to x and to the parameters."""
        x, cotangent = (torch.tensor(self.there(each)) for each in (x, cotangent))
        x.requires_grad_()
        y = self.layer(x, training=train) if self.is_keras else self.layer.train(train)(x)
        gradients = torch.autograd.grad(y, [x, *self.params.values()], cotangent)
        y, d_x, *d_params = (each.detach().numpy() for each in (y, *gradients))
        back = (np.moveaxis(each, 1, -1) if self.first else each for each in (y, d_x))
        return *back, dict(zip(self.params, d_params, strict=True))

    def there(self, x):
        return np.ascontiguousarray(np.moveaxis(x, -1, 1)) if self.first else x


@pytest.fixture
def float64(monkeypatch):
    # Outside TensorFlow, Keras turns every float64 into float32 within its layers.
    monkeypatch.setitem(keras.src.backend.common.dtypes.BIT64_TO_BIT32_DTYPE, "float64", "float64")
    keras.config.set_dtype_policy("float64")
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)  # timm computes in float32 otherwise
    with jax.enable_x64(True):
        yield
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("name", CASES)
def test_values_gradients_and_running_statistics_are_the_peer_s(name, float64):
    case, rng = CASES[name], np.random.default_rng(0)

    @functools.partial(jax.jit, static_argnums=0)
    def step(train, params, running, x, cotangent):
        def apply(params, x):
            if case.running:
                y, updated = case.function(x, **params, running=running, train=train, **case.fields)
            else:
                y, updated = case.function(x, **params, **case.fields), running
            return case.then(y), updated

        y, pullback, updated = jax.vjp(apply, params, x, has_aux=True)
        d_params, d_x = pullback(cotangent)
        return (y, d_x, d_params), updated

    params = {key: rng.normal(size=shape) for key, shape in case.params.items()}
    peer = Peer(name, params)
    running = {key: np.full(8, float(key == "var")) for key in peer.running}
    count = math.prod(case.shape[:-1])
    for update in (1, 2, 3):
        x, cotangent = rng.normal(update, update, case.shape), rng.normal(size=case.shape)
        found, running = step(True, params, running, x, cotangent)
        chex.assert_trees_all_close(found, peer.run(x, cotangent, True), rtol=1e-11, atol=1e-12)
        theirs = {key: tensor.numpy() for key, tensor in peer.running.items()}
        if case.unbiased:  # what is left of the first value, 1, is not
            theirs["var"] = (theirs["var"] - MOMENTUM**update) * (count - 1) / count + MOMENTUM**update
        chex.assert_trees_all_close(dict(running), theirs, rtol=1e-12)
    running = {key: tensor.numpy() for key, tensor in peer.running.items()}
    evaluated, _ = step(False, params, running, x, cotangent)
    chex.assert_trees_all_close(evaluated, peer.run(x, cotangent, False), rtol=1e-11, atol=1e-12)


def test_keras_leaves_out_the_same_values_by_a_mask(float64):
    x, mask = np.random.default_rng(1).normal(2, 3, (6, 5, 8)), np.random.default_rng(2).random((6, 5)) < 0.7
    layer = keras_layers.BatchNormalization(momentum=MOMENTUM)
    theirs = layer(torch.tensor(x), training=True, mask=torch.tensor(mask)).detach().numpy()
    y, running = batch_norm(x, train=True, momentum=MOMENTUM, epsilon=1e-3, mask=mask[..., None])
    # With a mask Keras adds 1e-7 to the count of values.
    np.testing.assert_allclose(y[mask], theirs[mask], rtol=1e-6, atol=1e-7)
    for name, tensor in (("mean", layer.moving_mean), ("var", layer.moving_variance)):
        np.testing.assert_allclose(running[name], tensor.value.numpy(), rtol=1e-6)


@pytest.mark.parametrize("scaled", [False, True])
def test_standardized_weights_are_timm_s(scaled, float64):
    """Their kernels are (O, I, h, w), and their epsilons are inside of the root."""
    build = timm.ScaledStdConv2d if scaled else timm.StdConv2d
    layer = build(3, 4, 3, bias=False, eps=1e-6).double()
    ours = functools.partial(standardize_weights, epsilon=1e-6, unbiased=False)
    if scaled:  # theirs adds to the variance, the authors' takes a maximum: alike where the variance is large
        layer = build(3, 4, 3, bias=False, eps=1e-30).double()
        layer.gain.data.copy_(torch.arange(1.0, 5.0).reshape(4, 1, 1, 1))
        ours = functools.partial(standardize_and_scale_weights, gain=np.arange(1.0, 5.0))
    kernel = layer.weight.detach().numpy()
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 3))
    theirs = layer(torch.tensor(np.moveaxis(x, -1, 1).copy()))
    theirs.sum().backward()

    def apply(kernel):
        settings = dict(padding="SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return jax.lax.conv_general_dilated(x, ours(kernel), (1, 1), **settings)

    y, pullback = jax.vjp(apply, np.transpose(kernel, (2, 3, 1, 0)))
    np.testing.assert_allclose(y, np.moveaxis(theirs.detach().numpy(), 1, -1), rtol=1e-10, atol=1e-12)
    gradient = np.transpose(layer.weight.grad.numpy(), (2, 3, 1, 0))
    np.testing.assert_allclose(pullback(np.ones_like(y))[0], gradient, rtol=1e-9, atol=1e-10)
