"""The story of a run, or of several in lockstep: restore, train epoch by epoch, evaluate, report."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxnorm.errors import UserError
from jaxnorm.study.config import Config
from jaxnorm.study.data.dataset import Dataset, Split
from jaxnorm.study.models import ResNet14
from jaxnorm.study.registry import NORMS, with_ghosts
from jaxnorm.study.training.evaluation import EVAL_BATCH_SIZE, evaluate
from jaxnorm.study.training.features import feature_quantiles, layer_quantiles
from jaxnorm.study.training.metrics import Metrics, measure
from jaxnorm.study.training.optimizer import gates, learning_rate_in, make_optimizer
from jaxnorm.study.training.parallel import Devices, devices_for, with_replicas
from jaxnorm.study.training.recalibration import evaluate_statistics
from jaxnorm.study.training.record import Memory, Record, Row, Stopped
from jaxnorm.study.training.step import EpochSums, Images, TrainState, create_state, epoch_order, train_steps
from jaxnorm.study.training.team import team_for

MOST_STEPS_PER_CALL = 1000


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        status: "complete", or "diverged" where a loss or gradient stopped being finite, in training or in evaluation.
        step: updates done.
        epoch: last finished epoch, from 1.
        diverged_at_step: the step, from 1, that was not finite, or whose weights gave evaluations that were not; None
            otherwise.
        num_params: trainable numbers of the network.
        seconds: spent in training steps, compilation left out.
        rows: one mapping per epoch, as in ``metrics.jsonl``.
        splits: metrics by split ("train", "validation", "test") under the final weights; empty if diverged.
        statistics: validation and test metrics under other batch statistics, see `evaluate_statistics`; None unless
            asked for.
        test_logits: (N, classes) float32; None if diverged.
        variables: the network's final (or last good) variables.
    """

    status: Literal["complete", "diverged"]
    step: int
    epoch: int
    diverged_at_step: int | None
    num_params: int
    seconds: float
    rows: list[Row]
    splits: Mapping[str, Metrics]
    statistics: Mapping[str, Any] | None
    test_logits: np.ndarray | None
    variables: Mapping[str, Any]


def train(
    config: Config,
    dataset: Dataset,
    *,
    record: Record | None = None,
    devices: Devices | None = None,
    steps_per_call: int | None = None,
) -> Result:
    """Trains and evaluates one run; the same configuration, data and machine give the same numbers, bit for bit.

    Args:
        config: the run.
        dataset: from `jaxnorm.study.data.load_dataset`.
        record: keeps rows and checkpoints, and may stop the run; by default nothing is kept.
        devices: what shares each batch; by default as `devices_for` chooses.
        steps_per_call: steps for which the host is not asked; by default one on CPU, where a convolution in a loop
            crawls, and up to an epoch elsewhere.

    Returns:
        The result. A run whose loss stops being finite returns too, with status "diverged".

    Raises:
        UserError: if the configuration does not fit the data, or `steps_per_call` is not at least 1.
        Stopped: if the record asked to stop; everything is saved by then.

    Example:
        >>> from jaxnorm import Config, train
        >>> from jaxnorm.study.data import load_dataset
        >>> result = train(Config(norm="bn", num_epochs=1), load_dataset("digits"))  # doctest: +SKIP
        >>> result.splits["test"].accuracy > 0.5  # doctest: +SKIP
        True
    """
    record = record or Memory()
    check_fits(config, dataset)
    if steps_per_call is not None and steps_per_call < 1:
        raise UserError(
            f"steps_per_call must be at least 1, but is {steps_per_call}; give 1 or more, or None to choose by platform"
        )
    config = with_replicas(config, "auto" if devices is None else devices.count)
    devices = devices_for(config) if devices is None else devices
    ((_, result),) = train_team([config], dataset, [record], alone=devices, steps_per_call=steps_per_call)
    return result


def train_team(
    configs: Sequence[Config],
    dataset: Dataset,
    records: Sequence[Record],
    *,
    alone: Devices = Devices(),  # noqa: B008  (a frozen value)
    steps_per_call: int | None = None,
) -> Iterator[tuple[Config, Result]]:
    """Trains runs that differ in their seed alone, at once, and yields each with its result when it ends.

    Initial weights, data order and augmentation of a run are those it has alone, bit for bit, and its losses are those
    to rounding. A run that diverges leaves the others training. What `records` restore may stand at different steps:
    runs at the same one go on together, others after them.

    Args:
        configs: the runs.
        dataset: as in `train`.
        records: each run's own. Where one asks to stop, all runs are saved.
        alone: the devices of a run that has no other at its step; those of several are `team_for`'s.
        steps_per_call: as in `train`.

    Raises:
        UserError: if the configurations do not fit the data.
        Stopped: if a record asked to stop; everything is saved by then.
    """
    runs = []
    for config, record in zip(configs, records, strict=True):
        if dataclasses.replace(config, seed=configs[0].seed) != configs[0]:
            raise ValueError(f"runs of a team differ in their seed alone, but {config} is not {configs[0]}")
        check_fits(config, dataset)
        state = initial_state(config, dataset)
        numbers, seconds = record.restore(state.numbers)
        runs.append(Run(config, record, state.replace(**numbers), seconds))
    by_step: dict[int, list[Run]] = {}
    for run in runs:
        by_step.setdefault(int(run.state.step), []).append(run)
    for together in by_step.values():
        devices = alone if len(together) == 1 else team_for(len(together))
        for run, result in _in_lockstep(together, dataset, devices, steps_per_call):
            yield run.config, result


@dataclasses.dataclass(eq=False)
class Run:
    """One of the runs that train together.

    Attributes:
        config: what it is.
        record: its own.
        state: as it was restored.
        seconds: that the unfinished epoch has taken.
        diverged_at: the step that was not finite, or -1.
    """

    config: Config
    record: Record
    state: TrainState
    seconds: float
    diverged_at: int = -1


def _in_lockstep(
    runs: list[Run], dataset: Dataset, devices: Devices, steps_per_call: int | None
) -> Iterator[tuple[Run, Result]]:
    """The loop: runs that stand at the same step, all of them at every step from there on."""
    config = runs[0].config  # all share it but for the seed
    images = {name: on_device(getattr(dataset, name), dataset, devices) for name in ("train", "validation", "test")}
    num_train = len(dataset.train.label)
    steps_per_epoch = num_train // config.batch_size
    steps_per_call = steps_per_call or (1 if devices.platform == "cpu" else MOST_STEPS_PER_CALL)

    state, step = devices.stack([run.state for run in runs]), int(runs[0].state.step)
    take_steps = functools.partial(train_steps, batch_size=config.batch_size)

    def order_in(epoch: int) -> jax.Array:
        return devices.stack([epoch_order(run.config.seed, epoch, num_train) for run in runs])

    def hear(latest: jax.Array) -> None:
        for run, diverged_at in zip(runs, devices.apart(latest), strict=True):
            run.diverged_at = max(run.diverged_at, int(diverged_at))

    def save(ended: list[Run], more_seconds: float = 0.0) -> None:
        for run, numbers in zip(runs, devices.apart(state.numbers), strict=True):
            if run in ended:
                run.record.save(numbers, run.seconds + more_seconds)

    def should_stop() -> bool:
        return any(run.record.should_stop() for run in training)

    for num_steps in call_sizes(step, config.last_epoch, steps_per_epoch, steps_per_call):
        compile_ahead(take_steps, state, images["train"], order_in(1), num_steps)

    training = list(runs)
    while training:
        epochs_done, into_epoch = divmod(step, steps_per_epoch)
        closing = [run for run in training if run.diverged_at < 0 and epochs_done > len(run.record.rows)]
        if into_epoch == 0 and closing:
            close_epoch(closing, runs, state, images["validation"], epochs_done)
        if should_stop():
            save(training)
            raise Stopped
        ended = [run for run in training if run.diverged_at >= 0 or epochs_done >= config.last_epoch]
        if ended:
            save(ended)
            yield from conclude(ended, runs, state, images)
            training = [run for run in training if run not in ended]
            continue

        order, last = order_in(epochs_done + 1), (epochs_done + 1) * steps_per_epoch
        if into_epoch == 0:
            state = state.replace(sums=devices.stack([EpochSums.zero()] * len(runs)))
        started = time.perf_counter()
        latest = devices.stack([jnp.full((), -1)] * len(runs))
        while step < last and any(run.diverged_at < 0 for run in training) and not should_stop():
            previous, num_steps = latest, min(steps_per_call, last - step)
            state, latest = take_steps(state, images["train"], order, num_steps=num_steps)
            # Waits for the call before the one just sent off, so that the device always has one in hand.
            hear(previous)
            step += num_steps
            for run in training:
                run.record.stepped(step)
            if any(run.record.should_save() for run in training):
                save(training, time.perf_counter() - started)
        hear(latest)
        # Behind the count above if all of them diverged.
        step = max(int(own) for run, own in zip(runs, devices.apart(state.step), strict=True) if run in training)
        for run in training:
            run.seconds += time.perf_counter() - started


def check_fits(config: Config, dataset: Dataset) -> None:
    """Checks a configuration against its data.

    Raises:
        UserError: if it is invalid or an epoch would hold no batch.
    """
    config.validate()
    if config.batch_size > len(dataset.train.label):
        raise UserError(
            f"batch_size must not exceed the {len(dataset.train.label)} training images of {dataset.name}, "
            f"but is {config.batch_size}; lower --batch-size"
        )


def on_device(split: Split, dataset: Dataset, devices: Devices = Devices()) -> Images:  # noqa: B008  (a frozen value)
    """A split's arrays moved to every device, once for the whole run."""
    image, label = devices.replicate(jax.device_put((split.image, split.label)))
    return Images(image, label, mean=dataset.mean, pad=dataset.pad, flip=dataset.flip, devices=devices)


def initial_state(config: Config, dataset: Dataset) -> TrainState:
    """The state of a run before its first step."""
    steps_per_epoch = len(dataset.train.label) // config.batch_size
    norm = NORMS[config.norm]
    if config.ghost_batch_size is not None:
        norm = with_ghosts(config.norm, config.ghost_batch_size)
    dtype = None if config.compute_dtype == "float32" else config.compute_dtype
    model = ResNet14(norm=norm, num_classes=dataset.num_classes, weights=config.init, dtype=dtype)
    tx = make_optimizer(config.peak_learning_rate, config.gate_lr_multiplier, config.num_epochs, steps_per_epoch)
    return create_state(model, tx, config.seed, dataset.image_shape, num_replicas=config.num_replicas or 1)


def call_sizes(step: int, last_epoch: int, steps_per_epoch: int, steps_per_call: int) -> list[int]:
    """The numbers of steps that the calls after `step` will have, each once.

    Example:
        >>> call_sizes(0, 100, steps_per_epoch=312, steps_per_call=100)
        [100, 12]
    """
    epochs_done, into_epoch = divmod(step, steps_per_epoch)
    lengths = [steps_per_epoch - into_epoch, steps_per_epoch][: max(last_epoch - epochs_done, 0)]
    full = [steps_per_call for length in lengths if length >= steps_per_call]
    return list(dict.fromkeys([*full, *(rest for length in lengths if (rest := length % steps_per_call))]))


def compile_ahead(
    take_steps: Callable[..., Any], state: TrainState, images: Images, order: jax.Array, num_steps: int
) -> None:
    """Takes steps on a copy of the state, so that they are compiled before any clock runs."""
    jax.block_until_ready(take_steps(jax.tree.map(jnp.copy, state), images, order, num_steps=num_steps))


def close_epoch(closing: list[Run], runs: list[Run], state: TrainState, validation: Images, epoch: int) -> None:
    """Keeps the epoch's line and arrays of the runs that close it; one whose evaluation is not finite has diverged."""
    apart = validation.devices.apart
    logits, pooled = map(apart, evaluate(state.model, state.variables, validation))
    for place, (run, numbers) in enumerate(zip(runs, apart(state.numbers), strict=True)):
        if run not in closing:
            continue
        own = state.replace(**numbers)
        metrics = measure(logits[place], np.asarray(validation.label))
        row = row_of(run.config, own, metrics, pooled[place], epoch, run.seconds)
        if len(runs) > 1:
            row["parallel_seeds"] = len(runs)
        if np.isfinite([row["val_loss"], *row["feature_quantiles"]]).all():
            run.record.keep(epoch, arrays_of(run.config, own, validation, epoch))
            run.record.append(row)
            run.seconds = 0.0
        else:
            run.diverged_at = int(own.step)


def row_of(
    config: Config, state: TrainState, validation: Metrics, pooled: np.ndarray, epoch: int, seconds: float
) -> Row:
    """The epoch's line: sums over its own augmented batches, and the validation split under its last weights."""
    count = int(state.sums.count)
    return dict(
        epoch=epoch,
        step=int(state.step),
        learning_rate=learning_rate_in(epoch, config.peak_learning_rate, config.num_epochs),
        train_loss=float(state.sums.loss) / count,
        train_accuracy=int(state.sums.correct) / count,
        val_loss=validation.loss,
        val_accuracy=validation.accuracy,
        val_macro_f1=validation.macro_f1,
        seconds=round(seconds, 3),
        feature_quantiles=feature_quantiles(pooled, config.quantiles),
    )


def arrays_of(config: Config, state: TrainState, validation: Images, epoch: int) -> dict[str, np.ndarray]:
    """The epoch's arrays: every gate; where all features are recorded, each layer's quantiles; its histogram in the
    first, middle and last epoch."""
    arrays = {f"gate/{layer}": np.asarray(gate) for layer, gate in gates(state.params).items()}
    if config.record_features == "all":
        local = validation.devices.local
        quantiles, histograms = layer_quantiles(
            state.model, local(state.variables), validation.on_one_device(), config.quantiles, EVAL_BATCH_SIZE
        )
        arrays |= {f"quantiles/{layer}": values for layer, values in quantiles.items()}
        if epoch in (1, (config.last_epoch + 1) // 2, config.last_epoch):
            arrays |= {f"histogram/{layer}": counts for layer, counts in histograms.items()}
    return arrays


def conclude(
    ended: list[Run], runs: list[Run], state: TrainState, images: Mapping[str, Images]
) -> Iterator[tuple[Run, Result]]:
    """The results of the runs that have ended: the three splits under the final weights of those not diverged."""
    apart = images["train"].devices.apart
    logits: dict[str, list[np.ndarray]] = {}
    if any(run.diverged_at < 0 for run in ended):
        logits = {name: apart(evaluate(state.model, state.variables, split)[0]) for name, split in images.items()}
    for place, (run, numbers) in enumerate(zip(runs, apart(state.numbers), strict=True)):
        if run in ended:
            own = {name: found[place] for name, found in logits.items()} if run.diverged_at < 0 else {}
            yield run, result_of(run, state.replace(**numbers), images, own)


def result_of(run: Run, state: TrainState, images: Mapping[str, Images], logits: Mapping[str, np.ndarray]) -> Result:
    """What a run came to, from its final weights' logits of the three splits; of none if it diverged."""
    config, rows, diverged_at = run.config, run.record.rows, run.diverged_at
    splits = {name: measure(found, np.asarray(images[name].label)) for name, found in logits.items()}
    statistics = None
    if not np.isfinite([metrics.loss for metrics in splits.values()]).all():
        splits, diverged_at = {}, int(state.step)
    elif splits and config.evaluate_statistics:
        key = jax.random.fold_in(jax.random.key(config.seed), 3)
        # Batches of a ghost's size are ghosts: without these, the last one may be smaller.
        model = state.model.clone(norm=NORMS[config.norm])
        variables = images["train"].devices.local(state.variables)
        splits_here = {name: split.on_one_device() for name, split in images.items()}
        statistics = evaluate_statistics(model, variables, splits_here, config.statistics_batch_size, key)
    return Result(
        status="complete" if diverged_at < 0 else "diverged",
        step=int(state.step),
        epoch=rows[-1]["epoch"] if rows else 0,
        diverged_at_step=None if diverged_at < 0 else diverged_at,
        num_params=sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params)),
        seconds=round(sum(row["seconds"] for row in rows), 3),
        rows=rows,
        splits=splits,
        statistics=statistics,
        test_logits=logits["test"] if splits else None,
        variables=images["train"].devices.local(state.variables),
    )
