"""Small models in both interfaces, as a user writes them, and what they compute, in float64."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest
from flax import nnx

import jaxnorm


class Block(nn.Module):
    norm: Any
    train: bool

    @nn.compact
    def __call__(self, x, mask=None):
        return self.norm(use_running_average=not self.train)(nn.Dense(4)(x), mask=mask)


class Linen(nn.Module):
    """Dense, batch norm, ReLU, dense, batch norm; `lift` transforms the first two."""

    norm: Any = jaxnorm.BatchNorm
    lift: Callable[..., Any] = lambda block: block

    @nn.compact
    def __call__(self, x, mask=None, *, train):
        x = nn.relu(self.lift(Block)(self.norm, train, name="first")(x, mask))
        return Block(self.norm, train, name="second")(x, mask)


class NnxBlock(nnx.Module):
    def __init__(self, norm, features, rngs):
        self.dense, self.norm = nnx.Linear(features, 4, rngs=rngs), norm(4, rngs=rngs)

    def __call__(self, x, mask=None):
        return self.norm(self.dense(x), mask=mask)


class Nnx(nnx.Module):
    """The same in NNX."""

    def __init__(self, norm=nnx.BatchNorm, lift=lambda call: call):
        rngs = nnx.Rngs(0)
        self.first, self.second, self.lift = NnxBlock(norm, 3, rngs), NnxBlock(norm, 4, rngs), lift

    def __call__(self, x, mask=None):
        return self.second(nnx.relu(self.lift(NnxBlock.__call__)(self.first, x, mask)), mask)


@dataclasses.dataclass
class User:
    """A model, its variables if it is a linen one, and how to read it.

    Attributes:
        given: What comes before the data in a call of jaxnorm's functions.
    """

    given: tuple[Any, ...]

    def values(self, of=None):
        """Values of the dense and norm layers, by block, of the model or of a result."""
        if isinstance(self.given[0], nnx.Module):
            model = self.given[0] if of is None else of
            return {
                block: {
                    layer: {name: np.asarray(value[...]) for name, value in vars(module).items() if is_variable(value)}
                    for layer, module in (("dense", getattr(model, block).dense), ("norm", getattr(model, block).norm))
                }
                for block in ("first", "second")
            }
        variables = self.given[1] if of is None else of
        found = {}
        for collection in variables.values():
            for path, each in collection.items():
                for layer, values in each.items():
                    kind = "dense" if layer.startswith("Dense") else "norm"
                    found.setdefault(path, {}).setdefault(kind, {}).update(jax.device_get(values))
        return found

    def evaluate(self, x, of=None):
        """The output in evaluation mode."""
        if isinstance(self.given[0], nnx.Module):
            model = nnx.clone(self.given[0] if of is None else of)
            model.eval()
            return np.asarray(model(x))
        return np.asarray(self.given[0].apply(self.given[1] if of is None else of, x, train=False))

    def statistics(self, batches, masks):
        """Mean and variance of the input of both norms over all batches in training mode."""
        seen = {"first": [], "second": []}
        for x, mask in zip(batches, masks, strict=True):
            x = np.asarray(x, np.float64)
            for name in seen:
                dense = self.values()[name]["dense"]
                x = x @ np.asarray(dense["kernel"], np.float64) + dense["bias"]
                seen[name].append(x[mask])
                x = np.maximum((x - x[mask].mean(0)) / np.sqrt(x[mask].var(0) + 1e-5), 0)
        return {name: (np.concatenate(each).mean(0), np.concatenate(each).var(0)) for name, each in seen.items()}


def is_variable(value):
    return isinstance(value, nnx.Variable)


def linen(**fields):
    model = Linen(**fields)
    return User((model, jax.jit(model.init, static_argnames="train")(jax.random.key(0), np.ones((2, 3)), train=False)))


USERS = {
    "ours": linen,
    "flax's": lambda: linen(norm=nn.BatchNorm),
    "batch-instance": lambda: linen(norm=jaxnorm.BatchInstanceNorm),
    "in jit": lambda: linen(lift=nn.jit),
    "in remat": lambda: linen(lift=nn.remat),
    "nnx, ours": lambda: Nnx(jaxnorm.nnx.BatchNorm),
    "nnx, flax's": Nnx,
    "nnx, in jit": lambda: Nnx(lift=nnx.jit),
    "nnx, in remat": lambda: Nnx(lift=nnx.remat),
}


@pytest.fixture(params=USERS)
def user(request):
    made = USERS[request.param]()
    return made if isinstance(made, User) else User((made,))


@pytest.fixture
def batches():
    """Unequal batches from unequal distributions."""
    rng = np.random.default_rng(0)
    return [rng.normal(at, at, (size, 3)).astype(np.float32) for at, size in ((2, 40), (5, 7), (3, 23))]
