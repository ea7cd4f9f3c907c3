"""What is recorded of each finished epoch: a row of numbers and some arrays."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnorm.study.config import Config
from jaxnorm.study.training import layer_rates, smoothness
from jaxnorm.study.training.devices import Devices
from jaxnorm.study.training.evaluation import EVAL_BATCH_SIZE
from jaxnorm.study.training.features import feature_quantiles, layer_quantiles
from jaxnorm.study.training.images import Images
from jaxnorm.study.training.metrics import Metrics
from jaxnorm.study.training.optimizer import gates, learning_rate_in
from jaxnorm.study.training.record import Row
from jaxnorm.study.training.state import EpochSums, TrainState
from jaxnorm.study.training.step import epoch_order


def begun(config: Config, state: TrainState, devices: Devices) -> TrainState:
    """The state at the start of an epoch.

    Args:
        config: the run.
        state: after the epoch before, or before the first step.
        devices: those of the run.

    Returns:
        The state with sums of zero, and with what the run's probes keep of the epoch's start.
    """
    probes: dict[str, Any] = {}
    if config.probe_learning_rate:
        probes[layer_rates.KEPT] = jax.tree.map(jnp.copy, layer_rates.kernels(state.params))  # a step donates them
    if config.probe_smoothness:
        probes[smoothness.KEPT] = devices.replicate(smoothness.unprobed(config, state.num_steps // config.num_epochs))
    return state.replace(sums=devices.replicate(EpochSums.zero()), probes=probes)


def epoch_row(
    config: Config, state: TrainState, validation: Metrics, pooled: np.ndarray | None, epoch: int, seconds: float
) -> Row:
    """The row of an epoch: training metrics over its augmented batches, validation metrics under its last weights.

    Args:
        config: the run.
        state: after the epoch.
        validation: metrics of the validation split.
        pooled: pooled features of the validation split, (N, C); None where the network sows none.
        epoch: counted from 1.
        seconds: spent in training steps.

    Returns:
        The row. ``feature_quantiles`` holds one value per percentage of ``config.quantiles``; None without features.
    """
    count = int(state.sums.count)
    return dict(
        epoch=epoch,
        step=int(state.step),
        learning_rate=learning_rate_in(epoch, config.peak_learning_rate, config.num_epochs, config.schedule),
        train_loss=float(state.sums.loss) / count,
        train_accuracy=int(state.sums.correct) / count,
        val_loss=validation.loss,
        val_accuracy=validation.accuracy,
        val_macro_f1=validation.macro_f1,
        seconds=round(seconds, 3),
        feature_quantiles=None if pooled is None else feature_quantiles(pooled, config.quantiles),
    )


def epoch_arrays(config: Config, state: TrainState, images: Mapping[str, Images], epoch: int) -> dict[str, np.ndarray]:
    """The arrays of an epoch.

    Args:
        config: the run.
        state: after the epoch.
        images: the splits "train" and "validation".
        epoch: counted from 1.

    Returns:
        ``gate/LAYER``: every gate. Where all features are recorded, also ``quantiles/LAYER`` and, in the first, middle
        and last epoch, ``histogram/LAYER``, see `layer_quantiles`. Where the learning rate is probed, ``rates/LAYER``,
        see `layer_rates`. Where smoothness is probed, ``smoothness/NAME``, see `smoothness_arrays`.
    """
    validation = images["validation"]
    arrays = {f"gate/{layer}": np.asarray(gate) for layer, gate in gates(state.params).items()}
    if config.record_features == "all":
        variables = validation.devices.local(state.variables)
        quantiles, histograms = layer_quantiles(
            state.model, variables, validation.on_one_device(), config.quantiles, EVAL_BATCH_SIZE
        )
        arrays |= {f"quantiles/{layer}": values for layer, values in quantiles.items()}
        if epoch in (1, (config.last_epoch + 1) // 2, config.last_epoch):
            arrays |= {f"histogram/{layer}": counts for layer, counts in histograms.items()}
    if config.probe_learning_rate:
        order = validation.devices.replicate(epoch_order(config.seed, epoch + 1, len(images["train"].label)))
        rates = layer_rates.layer_rates(state, images["train"], order, config.batch_size)
        arrays |= {f"rates/{layer}": values for layer, values in rates.items()}
    if config.probe_smoothness:
        found = smoothness.smoothness_arrays(state, config, state.num_steps // config.num_epochs, validation.devices)
        arrays |= {f"smoothness/{name}": values for name, values in found.items()}
    return arrays
