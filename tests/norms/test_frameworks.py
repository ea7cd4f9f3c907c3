"""Layers of PyTorch, timm and Keras as independent oracles, in float64: values, gradients, running statistics."""

import os

os.environ["KERAS_BACKEND"] = "torch"  # not the library whose numerics are tested here

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import chex
import jax
import numpy as np
import pytest
from flax import linen as nn

from jaxnorm import BatchNorm, GroupNorm, InstanceNorm, LayerNorm

pytestmark = pytest.mark.peers
torch = pytest.importorskip("torch", reason="make test-peers installs it")
keras = pytest.importorskip("keras", reason="make test-peers installs it")


def timm_layers():
    """`timm.layers`. It imports torchvision, whose wheels on PyPI lack two operators beside PyTorch for CPUs."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return pytest.importorskip("timm.layers", reason="make test-peers installs it")


timm = timm_layers()
MOMENTUM = 0.8


@dataclasses.dataclass
class Case:
    """A layer of ours and one of a peer.

    Attributes:
        ours: Builds our layer.
        theirs: Builds the peer's.
        shape: Shape of the input, channels last.
        first: Whether the peer has the channels first.
        unbiased: Whether the peer's running variance is unbiased.
        then: What the peer's layer does with its output.
    """

    ours: Callable[..., Any]
    theirs: Callable[[], Any]
    shape: tuple[int, ...] = (4, 5, 6, 8)
    first: bool = True
    unbiased: bool = False
    then: Callable[[Any], Any] = lambda y: y


def batch_norm(**fields):
    return lambda **more: BatchNorm(momentum=MOMENTUM, **{"epsilon": 1e-5, **fields}, **more)


def fixed(layer, **fields):
    """A layer without running statistics."""
    return lambda use_running_average=None, **more: layer(**{"epsilon": 1e-5, **fields}, **more)


def torch_batch_norm(rank, **fields):
    return lambda: getattr(torch.nn, f"BatchNorm{rank}d")(8, momentum=1 - MOMENTUM, **fields)


ALL = dict(reduction_axes=(1, 2, 3), feature_axes=(1, 2, 3))
CASES = {
    "torch.BatchNorm1d": Case(batch_norm(), torch_batch_norm(1), (16, 8), unbiased=True),
    "torch.BatchNorm1d, positions": Case(batch_norm(), torch_batch_norm(1), (4, 9, 8), unbiased=True),
    "torch.BatchNorm2d": Case(batch_norm(epsilon=0.1), torch_batch_norm(2, eps=0.1), unbiased=True),
    "torch.BatchNorm3d": Case(batch_norm(), torch_batch_norm(3), (2, 3, 4, 5, 8), unbiased=True),
    "torch.BatchNorm2d, no parameters": Case(
        batch_norm(use_scale=False, use_bias=False), torch_batch_norm(2, affine=False), unbiased=True
    ),
    "torch.InstanceNorm1d": Case(fixed(InstanceNorm), lambda: torch.nn.InstanceNorm1d(8, affine=True), (4, 9, 8)),
    "torch.InstanceNorm2d": Case(fixed(InstanceNorm), lambda: torch.nn.InstanceNorm2d(8, affine=True)),
    "torch.InstanceNorm3d": Case(fixed(InstanceNorm), lambda: torch.nn.InstanceNorm3d(8, affine=True), (2, 3, 4, 5, 8)),
    "torch.GroupNorm": Case(fixed(GroupNorm, num_groups=2), lambda: torch.nn.GroupNorm(2, 8)),
    "torch.GroupNorm, vectors": Case(fixed(GroupNorm, num_groups=2), lambda: torch.nn.GroupNorm(2, 8), (4, 8)),
    "torch.GroupNorm, one": Case(fixed(LayerNorm, reduction_axes=(1, 2, 3)), lambda: torch.nn.GroupNorm(1, 8)),
    "torch.LayerNorm": Case(fixed(LayerNorm), lambda: torch.nn.LayerNorm(8), first=False),
    "torch.LayerNorm, all axes": Case(fixed(LayerNorm, **ALL), lambda: torch.nn.LayerNorm((5, 6, 8)), first=False),
    "timm.BatchNormAct2d": Case(
        batch_norm(), lambda: timm.BatchNormAct2d(8, momentum=1 - MOMENTUM), unbiased=True, then=nn.relu
    ),
    "timm.GroupNorm": Case(fixed(GroupNorm, num_groups=4), lambda: timm.GroupNorm(8, num_groups=4)),
    "timm.GroupNorm1": Case(fixed(GroupNorm, num_groups=1), lambda: timm.GroupNorm1(8)),
    "timm.GroupNormAct": Case(fixed(GroupNorm, num_groups=4), lambda: timm.GroupNormAct(8, num_groups=4), then=nn.relu),
    "timm.LayerNorm": Case(fixed(LayerNorm, epsilon=1e-6), lambda: timm.LayerNorm(8), first=False),
    "timm.LayerNorm2d": Case(fixed(LayerNorm, epsilon=1e-6), lambda: timm.LayerNorm2d(8)),
    "keras.BatchNormalization": Case(
        batch_norm(epsilon=1e-3), lambda: keras.layers.BatchNormalization(momentum=MOMENTUM), first=False
    ),
    "keras.BatchNormalization, axis 1": Case(
        batch_norm(epsilon=1e-3), lambda: keras.layers.BatchNormalization(axis=1, momentum=MOMENTUM)
    ),
    "keras.LayerNormalization": Case(
        fixed(LayerNorm), lambda: keras.layers.LayerNormalization(epsilon=1e-5), first=False
    ),
    "keras.LayerNormalization, all axes": Case(
        fixed(LayerNorm, **ALL), lambda: keras.layers.LayerNormalization(axis=(1, 2, 3), epsilon=1e-5), first=False
    ),
    "keras.GroupNormalization": Case(
        fixed(GroupNorm, num_groups=2), lambda: keras.layers.GroupNormalization(2, epsilon=1e-5), first=False
    ),
    "keras.GroupNormalization, instances": Case(
        fixed(InstanceNorm), lambda: keras.layers.GroupNormalization(-1, epsilon=1e-5), first=False
    ),
}


class Peer:
    """A layer of PyTorch, timm or Keras in float64, for channels-last NumPy arrays."""

    def __init__(self, name, params):
        case = CASES[name]
        self.first, self.is_keras = case.first, name.startswith("keras")
        self.layer = case.theirs()
        names = dict(scale="weight", bias="bias", mean="running_mean", var="running_var")
        if self.is_keras:
            self.layer.build(self.there(np.empty(case.shape)).shape)
            names = dict(scale="gamma", bias="beta", mean="moving_mean", var="moving_variance")
        else:
            self.layer.double()
        tensors = {ours: getattr(self.layer, theirs, None) for ours, theirs in names.items()}
        tensors = {name: getattr(tensor, "value", tensor) for name, tensor in tensors.items()}
        self.running = {name: tensors[name] for name in ("mean", "var") if tensors[name] is not None}
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
    with jax.enable_x64(True):
        yield
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("name", CASES)
def test_values_gradients_and_running_statistics_are_the_peer_s(name, float64):
    case, rng = CASES[name], np.random.default_rng(0)
    fields = dict(param_dtype=float, force_float32_reductions=False)

    @functools.partial(jax.jit, static_argnums=0)
    def step(train, params, running, x, cotangent):
        def apply(params, x):
            variables = {"params": params, "batch_stats": running}
            y, updated = case.ours(use_running_average=not train, **fields).apply(variables, x, mutable=["batch_stats"])
            return case.then(y), updated.get("batch_stats", {})

        y, pullback, updated = jax.vjp(apply, params, x, has_aux=True)
        d_params, d_x = pullback(cotangent)
        return (y, d_x, d_params), updated

    shapes = jax.eval_shape(case.ours(use_running_average=True, **fields).init, jax.random.key(0), np.empty(case.shape))
    params = {name: rng.normal(size=leaf.shape) for name, leaf in shapes.get("params", {}).items()}
    running = {name: np.full(leaf.shape, float(name == "var")) for name, leaf in shapes.get("batch_stats", {}).items()}
    peer = Peer(name, params)
    count = math.prod(case.shape[:-1])
    for update in (1, 2, 3):
        x, cotangent = rng.normal(update, update, case.shape), rng.normal(size=case.shape)
        found, running = step(True, params, running, x, cotangent)
        chex.assert_trees_all_close(found, peer.run(x, cotangent, True), rtol=1e-11, atol=1e-12)
        if running:
            var = running["var"]
            if case.unbiased:  # what is left of the first value, 1, is not
                var = (var - MOMENTUM**update) * count / (count - 1) + MOMENTUM**update
            theirs = {name: tensor.numpy() for name, tensor in peer.running.items()}
            chex.assert_trees_all_close({**running, "var": var}, theirs, rtol=1e-12)
    evaluated, _ = step(False, params, {name: tensor.numpy() for name, tensor in peer.running.items()}, x, cotangent)
    chex.assert_trees_all_close(evaluated, peer.run(x, cotangent, False), rtol=1e-11, atol=1e-12)


def test_keras_leaves_out_the_same_values_by_a_mask(float64):
    x, mask = np.random.default_rng(1).normal(2, 3, (6, 5, 8)), np.random.default_rng(2).random((6, 5)) < 0.7
    theirs = keras.layers.BatchNormalization(momentum=MOMENTUM)
    y = theirs(torch.tensor(x), training=True, mask=torch.tensor(mask)).detach().numpy()
    ours = BatchNorm(False, momentum=MOMENTUM, epsilon=1e-3, param_dtype=float, force_float32_reductions=False)
    found, variables = ours.init_with_output(jax.random.key(0), x)
    found, updated = ours.apply(variables, x, mask=mask[..., None], mutable=["batch_stats"])
    np.testing.assert_allclose(found[mask], y[mask], rtol=1e-11, atol=1e-12)
    for name, tensor in (("mean", theirs.moving_mean), ("var", theirs.moving_variance)):
        np.testing.assert_allclose(updated["batch_stats"][name], tensor.value.numpy(), rtol=1e-12)
