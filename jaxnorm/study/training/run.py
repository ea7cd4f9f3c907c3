"""The story of one run: restore, train epoch by epoch, evaluate, result."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnorm.errors import UserError, one_line
from jaxnorm.study import clock
from jaxnorm.study.config import Config
from jaxnorm.study.data.dataset import Dataset
from jaxnorm.study.training import smoothness
from jaxnorm.study.training.devices import Devices, devices_for, with_replicas
from jaxnorm.study.training.epoch import begun, epoch_arrays, epoch_row
from jaxnorm.study.training.evaluation import evaluate
from jaxnorm.study.training.images import Images, on_device
from jaxnorm.study.training.metrics import Metrics, measure
from jaxnorm.study.training.recalibration import check_recomputable, evaluate_statistics
from jaxnorm.study.training.record import Memory, Record, Row, Stopped
from jaxnorm.study.training.state import TrainState, build_network, initial_state, random_key
from jaxnorm.study.training.step import call_sizes, epoch_order, train_steps

SPLITS = ("train", "validation", "test")
MOST_STEPS_PER_CALL = 1000


@dataclasses.dataclass(frozen=True)
class Result:
    """The outcome of a run.

    Attributes:
        status: "complete", or "diverged" where a loss or gradient was not finite, in training or in evaluation.
        step: updates done.
        epoch: last finished epoch, from 1; 0 if none.
        diverged_at_step: the step, from 1, that was not finite, or after which an evaluation was not; None if complete.
        num_params: number of trainable parameters.
        seconds: spent in training steps, without compilation.
        rows: one mapping per epoch, as in ``metrics.jsonl``; see `jaxnorm.study.training.epoch.epoch_row`.
        splits: metrics by split ("train", "validation", "test") under the final weights; empty if diverged.
        statistics: validation and test metrics under other batch statistics, see `evaluate_statistics`; None unless
            the configuration asks for them and the network keeps batch statistics.
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
    model: nn.Module | None = None,
    record: Record | None = None,
    devices: Devices | None = None,
    steps_per_call: int | None = None,
) -> Result:
    """Trains and evaluates one run. The same configuration, data and machine give the same numbers, bit for bit.

    Args:
        config: the run.
        dataset: from `jaxnorm.study.data.load_dataset`.
        model: a network of your own in place of the one that `config` describes. It is called as
            ``model.apply(variables, image, train=..., mutable=...)`` with float32 images (N, H, W, 3) and returns
            logits (N, classes); it gets no random numbers after initialization, so it can have no dropout. Features
            that it sows as ``self.sow("intermediates", "pooled", x)``, (N, C), are summarized after every epoch;
            without them the rows' ``feature_quantiles`` are None. `config.norm` is then only the name of the run.
        record: keeps rows and checkpoints, and may stop the run; by default `Memory`, which keeps no checkpoints.
        devices: share each batch; by default those that `devices_for` chooses.
        steps_per_call: steps in one dispatch to the device; by default one on CPU, where a convolution in a loop is
            slow, and up to an epoch elsewhere.

    Returns:
        The result. A run whose loss is no longer finite returns too, with status "diverged".

    Raises:
        UserError: if the configuration does not fit the data or `model`, if `steps_per_call` is not at least 1, if a
            layer asks for random numbers, or if statistics are to be evaluated that cannot be computed anew.
        Stopped: if the record asked to stop; everything is saved by then.

    Examples:
        >>> from jaxnorm import Config, ResNet, train
        >>> from jaxnorm.study.data import load_dataset
        >>> config = Config(num_epochs=1, batch_size=512)
        >>> result = train(config, load_dataset("digits"), model=ResNet(num_blocks=1, num_filters=4))
        >>> result.status, result.step, result.splits["test"].num_images
        ('complete', 2, 360)
    """
    check_fits(config, dataset)
    _check_model(config, model)
    if steps_per_call is not None and steps_per_call < 1:
        raise UserError(
            f"steps_per_call must be at least 1, but is {steps_per_call}; give 1 or more, or None to choose by platform"
        )
    config = with_replicas(config, "auto" if devices is None else devices.count)
    devices = devices_for(config) if devices is None else devices
    steps_per_call = steps_per_call or (1 if devices.platform == "cpu" else MOST_STEPS_PER_CALL)
    steps_per_epoch = len(dataset.train) // config.batch_size
    record = Memory() if record is None else record

    images = {name: on_device(getattr(dataset, name), dataset, devices) for name in SPLITS}
    state = begun(config, initial_state(config, dataset, model), Devices())
    with _refusing_random_numbers(config):
        if config.evaluate_statistics and config.ghost_batch_size is None:
            check_recomputable(state.model, state.variables, images["train"].on_one_device())
        saved, seconds = record.restore(state.saved)
        state, diverged_at = devices.replicate(state.replace(**saved)), -1
        steps_per_call = min(steps_per_call, config.probe_smoothness or steps_per_call)
        for num_steps in call_sizes(int(state.step), config.last_epoch, steps_per_epoch, steps_per_call):
            _compile_ahead(state, images["train"], config, num_steps)

    while True:
        epochs_done, into_epoch = divmod(int(state.step), steps_per_epoch)
        if diverged_at < 0 and into_epoch == 0 and epochs_done > len(record.rows):
            if close_epoch(config, record, state, images, epochs_done, seconds):
                seconds = 0.0
            else:
                diverged_at = int(state.step)
        if record.should_stop():
            record.save(state.saved, seconds)
            raise Stopped
        if diverged_at >= 0 or epochs_done >= config.last_epoch:
            break
        if into_epoch == 0:
            state = begun(config, state, devices)
        state, seconds, diverged_at = _train_epoch(config, record, state, images["train"], steps_per_call, seconds)
    record.save(state.saved, seconds)
    return _evaluate_run(config, record, state, images, diverged_at)


def check_fits(config: Config, dataset: Dataset) -> None:
    """Checks a configuration against its data.

    Args:
        config: the run.
        dataset: what it trains on.

    Raises:
        UserError: if an epoch would have no batch.
    """
    if config.batch_size > len(dataset.train):
        raise UserError(
            f"`batch_size` must not exceed the {len(dataset.train)} training images of {dataset.name}, "
            f"but is {config.batch_size}; lower it"
        )


def check_network(config: Config, dataset: Dataset) -> None:
    """Checks that the network of a configuration can be built and applied to the data. Nothing is computed.

    Args:
        config: the run.
        dataset: what it trains on.

    Raises:
        UserError: saying what fails, or what the network returns instead of logits.
    """
    image = jax.ShapeDtypeStruct((2, *dataset.image_shape), jnp.float32)
    with _refusing_random_numbers(config):
        try:
            model = build_network(config, dataset.num_classes)
            variables = jax.eval_shape(functools.partial(model.init, train=False), random_key(0), image)
            apply = functools.partial(model.apply, train=True, mutable=[*variables])
            logits, _ = jax.eval_shape(apply, variables, image)
        except (UserError, flax.errors.InvalidRngError):
            raise
        except Exception as error:
            raise UserError(
                f"the network {config.model!r} must be applicable to images {image.shape} with norm {config.norm!r}, "
                f"but fails with {type(error).__name__}: {one_line(error, 300)}; correct it"
            ) from error
    found = (getattr(logits, "shape", type(logits).__name__), "params" in variables)
    is_float = hasattr(logits, "dtype") and jnp.issubdtype(logits.dtype, jnp.floating)
    if found != ((2, dataset.num_classes), True) or not is_float:
        raise UserError(
            f"the network {config.model!r} must have parameters and return floats (2, {dataset.num_classes}) for 2 "
            f"images of {dataset.num_classes} classes, but returns {getattr(logits, 'dtype', '')} {found[0]}"
            f"{'' if found[1] else ' and has no parameters'}; correct it"
        )


def _check_model(config: Config, model: nn.Module | None) -> None:
    """Checks that a configuration says nothing about the network that a given `model` would not follow.

    Raises:
        UserError: naming the first field that would be ignored.
    """
    for field in ("model", "num_blocks", "num_filters", "init", "compute_dtype", "ghost_batch_size"):
        default, value = getattr(Config(), field), getattr(config, field)
        if model is not None and value != default:
            raise UserError(
                f"{field} describes the network that train builds, but is {value} beside a model of your own; leave it "
                f"at {default} and set it in the model"
            )


@contextlib.contextmanager
def _refusing_random_numbers(config: Config) -> Iterator[None]:
    """Within it, a layer that asks for random numbers is a `UserError`."""
    try:
        yield
    except flax.errors.InvalidRngError as error:
        raise UserError(
            f"a network gets no random numbers after initialization, but a layer of {config.name} asks for some "
            f"({one_line(error, 200)}); use a norm without them, or draw them from a key of its own"
        ) from error


def _compile_ahead(state: TrainState, images: Images, config: Config, num_steps: int) -> None:
    """Takes steps on a copy of the state, so that the program is compiled before any clock runs."""
    order = images.devices.replicate(epoch_order(config.seed, 1, len(images.label)))
    copy = jax.tree.map(jnp.copy, state)
    if config.probe_smoothness:
        copy = smoothness.probed(copy, images, order, config, place=0)
    jax.block_until_ready(train_steps(copy, images, order, batch_size=config.batch_size, num_steps=num_steps))


def _train_epoch(
    config: Config, record: Record, state: TrainState, images: Images, steps_per_call: int, seconds: float
) -> tuple[TrainState, float, int]:
    """Trains to the end of the epoch, or until the record asks to stop or the run diverges.

    Returns:
        The state, the seconds that the epoch has taken so far, and the step that diverged, from 1, or -1.
    """
    num_images = len(images.label)
    steps_per_epoch = num_images // config.batch_size
    step = int(state.step)
    epoch = step // steps_per_epoch + 1
    order = images.devices.replicate(epoch_order(config.seed, epoch, num_images))
    probed = smoothness.places(config, steps_per_epoch)
    started = clock.seconds() - seconds
    latest: Any = -1
    diverged_at = -1
    while step < epoch * steps_per_epoch and diverged_at < 0 and not record.should_stop():
        place = step % steps_per_epoch
        if place in probed:
            state = smoothness.probed(state, images, order, config, place)
        ends = (one for one in (*probed, steps_per_epoch) if one > place)
        previous, num_steps = latest, min(steps_per_call, min(ends) - place)
        state, latest = train_steps(state, images, order, batch_size=config.batch_size, num_steps=num_steps)
        # Waits for the call before this one, so that the device always has work queued.
        diverged_at = int(previous)
        step += num_steps
        record.stepped(step)
        if record.should_save():
            record.save(state.saved, clock.seconds() - started)
    diverged_at = int(latest)
    return state, clock.seconds() - started, diverged_at


def close_epoch(
    config: Config, record: Record, state: TrainState, images: Mapping[str, Images], epoch: int, seconds: float
) -> bool:
    """Evaluates the validation split, and keeps the epoch's row and arrays if the numbers are finite.

    Args:
        config: the run.
        record: keeps the row and the arrays.
        state: at the end of the epoch.
        images: the splits "train" and "validation".
        epoch: the finished epoch, from 1.
        seconds: spent in the epoch's training steps.

    Returns:
        Whether the loss and the feature quantiles were finite.
    """
    validation = images["validation"]
    logits, pooled = evaluate(state.model, state.variables, validation)
    row = epoch_row(config, state, measure(logits, np.asarray(validation.label)), pooled, epoch, seconds)
    if not np.isfinite([row["val_loss"], *(row["feature_quantiles"] or ())]).all():
        return False
    record.keep(epoch, epoch_arrays(config, state, images, epoch))
    record.append(row)
    return True


def _evaluate_run(
    config: Config, record: Record, state: TrainState, images: Mapping[str, Images], diverged_at: int
) -> Result:
    """Evaluates the three splits under the final weights, unless the run has diverged, and sums up the run."""
    logits: dict[str, np.ndarray] = {}
    splits: dict[str, Metrics] = {}
    statistics = None
    devices = images["train"].devices
    variables = devices.local(state.variables)
    if diverged_at < 0:
        logits = {name: evaluate(state.model, state.variables, split)[0] for name, split in images.items()}
        splits = {name: measure(logits[name], np.asarray(split.label)) for name, split in images.items()}
    if not np.isfinite([metrics.loss for metrics in splits.values()]).all():
        splits, diverged_at = {}, int(state.step)
    elif splits and config.evaluate_statistics:
        # Here each batch is as large as a ghost batch, except the last one: the network must not cut it further.
        model = state.model
        if config.ghost_batch_size is not None:
            model = build_network(dataclasses.replace(config, ghost_batch_size=None), logits["test"].shape[-1])
        splits_here = {name: split.on_one_device() for name, split in images.items()}
        key = jax.random.fold_in(random_key(config.seed), 3)
        statistics = evaluate_statistics(model, variables, splits_here, config.statistics_batch_size, key)
    return Result(
        status="complete" if diverged_at < 0 else "diverged",
        step=int(state.step),
        epoch=record.rows[-1]["epoch"] if record.rows else 0,
        diverged_at_step=None if diverged_at < 0 else diverged_at,
        num_params=sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params)),
        seconds=round(sum(row["seconds"] for row in record.rows), 3),
        rows=record.rows,
        splits=splits,
        statistics=statistics,
        test_logits=logits["test"] if splits else None,
        variables=variables,
    )
