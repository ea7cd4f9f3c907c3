"""What the layers must compute, in float64 NumPy, from the definitions."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from jaxnorm.norms import BatchInstanceNorm, BatchNorm, GroupNorm, InstanceNorm, LayerNorm

EPSILON = 1e-5


@dataclasses.dataclass(frozen=True)
class Case:
    """A layer on NHWC images, and the sets of values that it normalizes together."""

    build: Callable[..., Any]
    axes: tuple[int, ...]
    group_size: int | None = None

    def layer(self, **fields: Any) -> Any:
        return self.build(epsilon=EPSILON, **fields)


CASES = {
    "batch": Case(lambda **fields: BatchNorm(**{"use_running_average": False, **fields}), (0, 1, 2)),
    "instance": Case(InstanceNorm, (1, 2)),
    "layer": Case(lambda **fields: LayerNorm(reduction_axes=(1, 2, 3), **fields), (1, 2, 3)),
    "layer_last": Case(LayerNorm, (3,)),
    "group": Case(lambda **fields: GroupNorm(num_groups=None, group_size=4, **fields), (1, 2), 4),
}


def oracle_moments(x: np.ndarray, case: Case, mask: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and biased variance, broadcast to x's shape; zero where a set is empty."""
    x = np.asarray(x, np.float64)
    where = np.ones(x.shape, bool) if mask is None else np.broadcast_to(mask, x.shape)
    x, shape, axes = np.where(where, x, 0), x.shape, case.axes
    if case.group_size:
        grouped = (*shape[:-1], shape[-1] // case.group_size, case.group_size)
        x, where, axes = x.reshape(grouped), where.reshape(grouped), (*axes, 4)
    count = np.maximum(where.sum(axes, keepdims=True), 1)
    mean = x.sum(axes, keepdims=True) / count
    var = (np.where(where, x - mean, 0) ** 2).sum(axes, keepdims=True) / count
    return np.broadcast_to(mean, x.shape).reshape(shape), np.broadcast_to(var, x.shape).reshape(shape)


def oracle_normalize(
    x: np.ndarray, case: Case, scale: Any = 1.0, bias: Any = 0.0, mask: np.ndarray | None = None
) -> np.ndarray:
    mean, var = oracle_moments(x, case, mask)
    return scale * (np.asarray(x, np.float64) - mean) / np.sqrt(var + EPSILON) + bias


def oracle_gradient(x: np.ndarray, case: Case, cotangent: np.ndarray) -> np.ndarray:
    """d/dx of sum(cotangent * (x - mean) / sqrt(var + epsilon)): the textbook's backward pass."""
    x_hat, (_, var) = oracle_normalize(x, case), oracle_moments(x, case)
    mean_cotangent, mean_product = (oracle_moments(v, case)[0] for v in (cotangent, cotangent * x_hat))
    return (cotangent - mean_cotangent - x_hat * mean_product) / np.sqrt(var + EPSILON)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(params=[*CASES, "mixed"])
def any_case(request: pytest.FixtureRequest, mixed: Callable[..., Any]) -> Callable[..., Any]:
    """Each of the five layers, by a function of its fields."""
    return mixed if request.param == "mixed" else CASES[request.param].layer


@pytest.fixture
def cases() -> dict[str, Case]:
    return CASES


@pytest.fixture
def mixed() -> Callable[..., Any]:
    """BatchInstanceNorm, whose oracle mixes those of two cases."""
    return lambda **fields: BatchInstanceNorm(**{"use_running_average": False, "epsilon": EPSILON, **fields})


@pytest.fixture
def oracle() -> Any:
    class Oracle:
        moments = staticmethod(oracle_moments)
        normalize = staticmethod(oracle_normalize)
        gradient = staticmethod(oracle_gradient)
        epsilon = EPSILON

    return Oracle
