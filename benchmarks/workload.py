"""What the benchmarks of a training step time: the study's own step, on noise of CIFAR-10's shape."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from jaxnorm.study.data.binary import CIFAR10, SIDE
from jaxnorm.study.data.dataset import Dataset, Split
from jaxnorm.study.training.optimizer import make_optimizer
from jaxnorm.study.training.state import create_state
from jaxnorm.study.training.step import train_step


def random_images(num_train: int, num_validation: int, num_test: int = 8) -> Dataset:
    """A data set of noise, prepared like CIFAR-10: 32x32 pixels, ten classes."""
    draw = np.random.default_rng(0)

    def split(count: int) -> Split:
        image = draw.integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)
        return Split(image=image, label=draw.integers(0, 10, count).astype(np.int32))

    return Dataset(
        name="cifar10",
        description="noise",
        source="a random generator",
        fingerprint="0" * 64,
        train=split(num_train),
        validation=split(num_validation),
        test=split(num_test),
        mean=CIFAR10.mean,
        pad=SIDE // 8,
        flip=True,
        class_names=tuple("0123456789"),
    )


def bare_step(model: nn.Module, batch_size: int, side: int = 32) -> tuple[Callable[[], Any], int]:
    """A call that takes one compiled step on one prepared batch, and the step's working memory in bytes."""
    state = create_state(model, make_optimizer(0.1, 10.0, 10, 312), 0, (side, side, 3))
    image = jax.random.normal(jax.random.key(0), (batch_size, side, side, 3))
    label = jax.random.randint(jax.random.key(1), (batch_size,), 0, 10)
    compiled = jax.jit(train_step, donate_argnums=0).lower(state, image, label).compile()

    def call() -> Any:
        nonlocal state
        state, loss = compiled(state, image, label)
        return state.params, loss

    return call, compiled.memory_analysis().temp_size_in_bytes
