"""The largest eigenvalue of the Hessian of a loss, by Lanczos' method."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from jaxnorm.study.data.dataset import Dataset
from jaxnorm.study.runs.trained import TrainedRun
from jaxnorm.study.training.images import on_device


class Curvature(NamedTuple):
    """What Lanczos' method has found.

    Attributes:
        largest: the algebraically largest eigenvalue.
        smallest: the smallest one; it converges more slowly.
        residual: |H v - largest v| of the unit vector v that was found: `largest` is this close to an eigenvalue.
        products: Hessian products that were taken.
    """

    largest: float
    smallest: float
    residual: float
    products: int


def lanczos(product: Callable[[np.ndarray], Any], size: int, *, products: int = 20, seed: int = 0) -> Curvature:
    """The extreme eigenvalues of a symmetric matrix that is known by its products alone.

    All vectors are kept and made orthogonal to each other again, in float64, so that no eigenvalue appears twice.

    Args:
        product: gives H v, (N,), for a vector v, float64 (N,).
        size: N.
        products: how many products to take at most; memory is 8 N times that.
        seed: of the first vector.

    Returns:
        The eigenvalues.

    References:
        Lanczos 1950; Ghorbani et al. 2019, arXiv 1901.10159, for networks.

    Examples:
        >>> round(lanczos(lambda v: np.array([1.0, 2.0, 5.0]) * v, 3).largest, 6)
        5.0
    """
    vector = np.random.default_rng(seed).normal(size=size)
    basis = np.zeros((min(products, size), size))
    diagonal: list[float] = []
    beside: list[float] = []
    length = float(np.linalg.norm(vector))
    for count in range(len(basis)):
        basis[count] = vector / length
        after = np.asarray(product(basis[count]), np.float64)
        diagonal.append(float(basis[count] @ after))
        known = basis[: count + 1]
        vector = after - known.T @ (known @ after)
        vector -= known.T @ (known @ vector)  # once more: rounding leaves a part
        length = float(np.linalg.norm(vector))
        if length <= 1e-10 * max(map(abs, diagonal)):  # the matrix maps the span of the vectors to itself
            break
        beside.append(length)
    inside = beside[: len(diagonal) - 1]
    values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(inside, 1) + np.diag(inside, -1))
    residual = abs(vectors[-1, -1]) * (length if len(beside) == len(diagonal) else 0.0)
    return Curvature(float(values[-1]), float(values[0]), float(residual), len(diagonal))


def curvature(
    model: nn.Module, variables: Any, image: jax.Array, label: jax.Array, *, train: bool = True, products: int = 20
) -> Curvature:
    """The extreme eigenvalues of the Hessian of the mean cross entropy of a batch by all parameters.

    Args:
        model: any Flax network, called as ``model.apply(variables, image, train=..., mutable=...)``; gives logits.
        variables: its variables.
        image: (N, H, W, C) float32.
        label: (N,) int32.
        train: whether norms use the batch's own statistics, as the steps of training do.
        products: Hessian products; each costs about two gradients.

    Returns:
        The eigenvalues.
    """
    flat, _ = ravel_pytree(variables["params"])

    def product(vector: np.ndarray) -> jax.Array:
        return _product(model, train, variables, image, label, jnp.asarray(vector, flat.dtype))

    return lanczos(product, flat.size, products=products)


def curvature_of_run(run: TrainedRun, dataset: Dataset, *, images: int = 256, products: int = 20) -> Curvature:
    """As `curvature`, of a trained run's final weights on the first training images, without augmentation.

    Args:
        run: from `jaxnorm.load_run`.
        dataset: what it trained on.
        images: how many; all training images where these are fewer.
        products: Hessian products.

    Returns:
        The eigenvalues.
    """
    split = on_device(dataset.train, dataset)
    size = min(images, len(dataset.train))
    return curvature(run.model, run.variables, split.batch(0, size), split.label[:size], products=products)


@functools.partial(jax.jit, static_argnames=("model", "train"))
def _product(
    model: nn.Module, train: bool, variables: Any, image: jax.Array, label: jax.Array, vector: jax.Array
) -> jax.Array:
    """H v: the derivative of the gradient in the direction of v."""
    flat, unflat = ravel_pytree(variables["params"])
    mutable = [name for name in variables if name != "params"]

    def loss(flat: jax.Array) -> jax.Array:
        logits, _ = model.apply({**variables, "params": unflat(flat)}, image, train=train, mutable=mutable)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), label)
        return losses.mean()

    return jax.jvp(jax.grad(loss), (flat,), (vector,))[1]
