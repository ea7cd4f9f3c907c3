"""The layers of any network on one batch: their gradients, weights, and the features that they receive."""

import functools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict

from jaxnorm.study.schedule import with_progress

Arrays = OrderedDict[str, jax.Array]
"""Arrays by layer, in the order in which the network calls the layers."""


class Layer(NamedTuple):
    """What a layer with a kernel has on one batch, in training mode. Norms are Frobenius norms of the whole array.

    Attributes:
        gradient: norm of the loss's gradient by the layer's output.
        weight_gradient: norm of the loss's gradient by the layer's kernel.
        weight: norm of the layer's kernel.
        cosine: see `mean_cosine`, of the layer's input.
        stable_rank: see `stable_rank`, of the layer's input.
    """

    gradient: float
    weight_gradient: float
    weight: float
    cosine: float
    stable_rank: float


def probe_layers(
    model: nn.Module, variables: Mapping[str, Any], image: jax.Array, label: jax.Array
) -> dict[str, Layer]:
    """Every layer of a network on one batch: one forward and one backward pass of the mean cross entropy.

    A layer is a module with a parameter ``kernel``, such as a convolution or a dense layer, outside of `nn.scan` and
    `nn.remat`.

    Args:
        model: any Flax network, called as ``model.apply(variables, image, train=True, mutable=...)``; gives logits.
        variables: its variables.
        image: (N, H, W, C) float32.
        label: (N,) int32.

    Returns:
        By layer, in the order of the calls. A layer's name is its module's path, such as "stage1_block1/conv1"; a
        module that is called again adds "path:2" and so on.

    Examples:
        >>> from jaxnorm import NORMS, ResNet
        >>> model = ResNet(num_blocks=1, num_filters=4, norm=NORMS["ln"])
        >>> image, label = jax.random.normal(jax.random.key(0), (4, 8, 8, 3)), jnp.arange(4)
        >>> layers = probe_layers(model, model.init(jax.random.key(1), image, train=False), image, label)
        >>> list(layers)[:2], round(layers["head"].stable_rank, 2) <= 4
        (['stem_conv', 'stage1_block1/conv1'], True)
    """
    # At the start of training, where a layer's behaviour depends on its progress.
    variables = with_progress(dict(variables), jnp.zeros(()))
    gradients, kernels, products = _probe(model, variables, image, label)
    weights = flatten_dict(variables["params"], sep="/")
    found = {}
    for name, gradient in gradients.items():
        path = f"{name.partition(':')[0]}/kernel"
        features = np.asarray(products[name], np.float64)
        found[name] = Layer(
            gradient=float(gradient),
            weight_gradient=float(kernels[path]),
            weight=float(np.linalg.norm(np.asarray(weights[path], np.float64))),
            cosine=mean_cosine(features),
            stable_rank=stable_rank(features),
        )
    return found


def forget_programs() -> None:
    """Frees the compiled programs of `probe_layers`: each network keeps about 100 MB."""
    _probe.clear_cache()  # type: ignore[attr-defined]


def mean_cosine(products: np.ndarray) -> float:
    """The mean over pairs of different samples of x_i . x_j / (|x_i| |x_j|): 1 where all point in one direction.

    Args:
        products: (N, N), the samples' scalar products x_i . x_j.

    Returns:
        The mean cosine; nan where a sample is zero.

    Examples:
        >>> mean_cosine(np.eye(3)), mean_cosine(np.ones((3, 3)))
        (0.0, 1.0)
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        lengths = np.sqrt(np.diag(products))
        cosines = products / np.outer(lengths, lengths)
    return float(cosines[~np.eye(len(products), dtype=bool)].mean())


def stable_rank(products: np.ndarray) -> float:
    """|X|_F^2 / |X|_2^2 of the samples X, a row each: from 1 where they are multiples of one vector, up to their rank.

    Args:
        products: (N, N), X X^T.

    Returns:
        The stable rank; nan where all samples are zero or one is not finite.

    References:
        Daneshmand et al. 2020, arXiv 2003.01652: without batch norm the rank collapses with depth.

    Examples:
        >>> stable_rank(np.eye(3)), round(stable_rank(np.ones((3, 3))), 6)
        (3.0, 1.0)
    """
    if not np.isfinite(products).all() or not products.any():
        return float("nan")
    return float(np.trace(products) / np.linalg.eigvalsh(products)[-1])


@functools.partial(jax.jit, static_argnames="model")
def _probe(model: nn.Module, variables: Any, image: jax.Array, label: jax.Array) -> tuple[Arrays, Any, Arrays]:
    """By layer: the norm of the gradient by its output; by kernel: that by it; by layer: its samples' products."""
    params = variables["params"]
    mutable = [name for name in variables if name != "params"]

    def forward(params: Any, shifts: Mapping[str, jax.Array]) -> tuple[jax.Array, Arrays, Arrays]:
        inputs: Arrays = OrderedDict()
        outputs: Arrays = OrderedDict()

        def shifted(method: Callable[..., Any], args: Any, kwargs: Any, call: nn.module.InterceptorContext) -> Any:
            output = method(*args, **kwargs)
            if call.method_name != "__call__" or not call.module.has_variable("params", "kernel"):
                return output
            path = "/".join(call.module.path)
            calls = sum(name.partition(":")[0] == path for name in outputs)
            name = f"{path}:{calls + 1}" if calls else path
            inputs[name], outputs[name] = args[0], output
            return output + shifts[name] if shifts else output

        with nn.intercept_methods(shifted):
            logits, _ = model.apply({**variables, "params": params}, image, train=True, mutable=mutable)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), label)
        return losses.mean(), inputs, outputs

    # A shift of zero that is added to a layer's output has the gradient by that output.
    shapes = jax.eval_shape(forward, params, {})[2]
    shifts = OrderedDict((name, jnp.zeros(one.shape, one.dtype)) for name, one in shapes.items())

    def loss(params: Any, shifts: Mapping[str, jax.Array]) -> tuple[jax.Array, Arrays]:
        mean, inputs, _ = forward(params, shifts)
        return mean, inputs

    (by_params, by_shifts), inputs = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, shifts)
    kernels = {path: _norm(leaf) for path, leaf in flatten_dict(by_params, sep="/").items() if path.endswith("kernel")}
    gradients = OrderedDict((name, _norm(by_shifts[name])) for name in shapes)
    return gradients, kernels, OrderedDict((name, _products(inputs[name])) for name in shapes)


def _norm(x: jax.Array) -> jax.Array:
    """The Frobenius norm. Squares of a vanished gradient would underflow, and so it is scaled first."""
    x = x.astype(jnp.float32)
    largest = jnp.maximum(jnp.abs(x).max(), jnp.finfo(jnp.float32).tiny)
    return largest * jnp.linalg.norm((x / largest).ravel())


def _products(x: jax.Array) -> jax.Array:
    rows = x.astype(jnp.float32).reshape(x.shape[0], -1)
    return jnp.matmul(rows, rows.T, precision="highest")
