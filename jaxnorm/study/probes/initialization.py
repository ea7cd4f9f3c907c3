"""What networks with each norm are like before their first step: gradients and features of every layer."""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pandas as pd

from jaxnorm.study.config import Config
from jaxnorm.study.data.dataset import Dataset
from jaxnorm.study.models.resnet import Weights
from jaxnorm.study.probes.layers import forget_programs, probe_layers
from jaxnorm.study.probes.plain_network import LAYER, PlainNetwork, growth, predicted_growth
from jaxnorm.study.registry import NORMS
from jaxnorm.study.training.images import on_device
from jaxnorm.study.training.state import create_state, initial_state, random_key
from jaxnorm.study.training.step import epoch_order

PIXELS = (32, 2, 2, 3)
"""The plain network's input, standard normal: 32 images of four pixels, fewer samples than channels, as in theory."""


def probe_initialization(
    norms: Sequence[str], seeds: Sequence[int], dataset: Dataset, *, init: Weights = "torch", batch_size: int = 32
) -> Iterable[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """Probes ResNet-14 on the first batch of training, without augmentation, and the plain network of the theory.

    Args:
        norms: ids in `jaxnorm.NORMS`.
        seeds: each decides initial weights and the batch, as in training.
        dataset: gives the batch.
        init: initial weights.
        batch_size: images in the batch; all training images where these are fewer.

    Yields:
        For each norm its id and two tables. The first has a row for each seed and layer of ResNet-14: `norm`, `label`,
        `seed`, `layer`, and the fields of `jaxnorm.study.probes.layers.Layer`. The second has a row for each seed:
        `norm`, `label`, `seed`, `growth` (of the gradient per layer of the plain network), `predicted` (by theory, or
        nan), and `cosine` (of the input of its last convolution).
    """
    images = on_device(dataset.train, dataset)
    size = min(batch_size, len(dataset.train))
    for norm in norms:
        found: list[dict[str, Any]] = []
        plain: list[dict[str, Any]] = []
        network = PlainNetwork(norm=NORMS[norm], conv=NORMS[norm].conv, weights=init, num_filters=512)
        predicted = predicted_growth(norm, init)
        for seed in seeds:
            about = {"norm": norm, "label": NORMS[norm].label, "seed": seed}
            batch = epoch_order(seed, 1, len(dataset.train))[:size]
            state = initial_state(Config(norm=norm, seed=seed, init=init, batch_size=size), dataset)
            image = images.normalized(images.image[batch])
            layers = probe_layers(state.model, state.variables, image, images.label[batch])
            found += [{**about, "layer": name, **layer._asdict()} for name, layer in layers.items()]

            key = jax.random.fold_in(random_key(seed), 4)
            image, label = jax.random.normal(key, PIXELS), jnp.arange(PIXELS[0]) % network.num_classes
            variables = create_state(network, optax.identity(), seed, PIXELS[1:]).variables
            layers = probe_layers(network, variables, image, label)
            deepest = layers[f"{LAYER}{network.depth}"]
            plain.append({**about, "growth": growth(layers), "predicted": predicted, "cosine": deepest.cosine})
        forget_programs()
        yield norm, pd.DataFrame(found), pd.DataFrame(plain)
