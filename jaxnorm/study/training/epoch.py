"""What is recorded of each finished epoch: a row of numbers and some arrays."""

import numpy as np

from jaxnorm.study.config import Config
from jaxnorm.study.training.evaluation import EVAL_BATCH_SIZE
from jaxnorm.study.training.features import feature_quantiles, layer_quantiles
from jaxnorm.study.training.images import Images
from jaxnorm.study.training.metrics import Metrics
from jaxnorm.study.training.optimizer import gates, learning_rate_in
from jaxnorm.study.training.record import Row
from jaxnorm.study.training.state import TrainState


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


def epoch_arrays(config: Config, state: TrainState, validation: Images, epoch: int) -> dict[str, np.ndarray]:
    """The arrays of an epoch.

    Args:
        config: the run.
        state: after the epoch.
        validation: the validation split.
        epoch: counted from 1.

    Returns:
        ``gate/LAYER``: every gate. Where all features are recorded, also ``quantiles/LAYER`` and, in the first, middle
        and last epoch, ``histogram/LAYER``, see `layer_quantiles`.
    """
    arrays = {f"gate/{layer}": np.asarray(gate) for layer, gate in gates(state.params).items()}
    if config.record_features == "all":
        variables = validation.devices.local(state.variables)
        quantiles, histograms = layer_quantiles(
            state.model, variables, validation.on_one_device(), config.quantiles, EVAL_BATCH_SIZE
        )
        arrays |= {f"quantiles/{layer}": values for layer, values in quantiles.items()}
        if epoch in (1, (config.last_epoch + 1) // 2, config.last_epoch):
            arrays |= {f"histogram/{layer}": counts for layer, counts in histograms.items()}
    return arrays
