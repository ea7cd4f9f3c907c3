"""About how long a grid of runs will take, from half a second of measurement."""

import time
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from jaxnorm.study.config import Config
from jaxnorm.study.data.dataset import Dataset
from jaxnorm.study.models.resnet import conv

# Measured on 2 cores: a training step costs about this many forward passes of the first stage's 3x3 convolution,
# evaluation about this many; compiling the programs of a variant about this many seconds.
STEP_COST, EVALUATION_COST, COMPILE_SECONDS = 40.0, 9.5, 5.0


def seconds_for(configs: Sequence[Config], dataset: Dataset, spread: Mapping[Config, int] | None = None) -> float:
    """Seconds to train and evaluate `configs`: a probe convolution's time, scaled; right to a factor of about 1.5.

    Args:
        configs: the runs.
        dataset: what they train on.
        spread: devices that train a run and others at once. What runs gain that share one device is not known before
            it is measured, and counts for nothing.
    """
    per_image = _probe(dataset.train.image.shape[1:3])
    train, validation, test = (len(split.label) for split in (dataset.train, dataset.validation, dataset.test))
    seconds = COMPILE_SECONDS * len({config.norm for config in configs})
    spread = spread or {}
    for config in configs:
        evaluated = config.last_epoch * validation + train + validation + test
        own = per_image * (STEP_COST * config.last_epoch * train + EVALUATION_COST * evaluated)
        seconds += own / spread.get(config, 1)
    return seconds


def _probe(size: tuple[int, int]) -> float:
    image = jnp.ones((32, *size, 16))
    layer = conv(16, 3, 1, 16)
    apply = jax.jit(layer.apply)
    variables = layer.init(jax.random.key(0), image)
    jax.block_until_ready(apply(variables, image))
    times = []
    for _ in range(10):
        started = time.perf_counter()
        jax.block_until_ready(apply(variables, image))
        times.append(time.perf_counter() - started)
    return sorted(times)[len(times) // 2] / len(image)
