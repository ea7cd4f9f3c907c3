"""The settings that decide a run's numbers, as frozen dataclasses, and the presets."""

import dataclasses
import difflib
import functools
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from jaxnorm.errors import UserError

DEFAULT_NORMS = ("flax_bn", "none", "bn", "in", "bin", "ln", "gn")
GHOST_BATCH_NORMS = ("bn", "bin", "bin_frozen")
"""Norms that take `ghost_batch_size`: their batch statistics can be of parts of a batch."""
REVISABLE = ("learning_rate", "lr_rule", "gate_lr_multiplier")
"""Fields that may change in a run that has begun, if its user allows it."""
NETWORK = ("model", "num_blocks", "num_filters", "optimizer", "momentum", "weight_decay", "schedule")
"""Fields of the network and its optimizer that the original paper does not vary."""
ADDED = (*NETWORK, "image_size", "probe_learning_rate", "probe_smoothness")
"""Fields that the first files have not: there they have their defaults."""
REFERENCE_BATCH_SIZE = 128
"""The original paper's batch size, at which the linear rule's learning rate equals the fixed one."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How every run of a grid is trained. The defaults follow the original paper, on a smaller data set.

    Examples:
        >>> Recipe(batch_size=64, lr_rule="linear").peak_learning_rate
        0.05
    """

    dataset: str = "digits"
    """Data to train on: digits (of scikit-learn), cifar10, cifar100, folder (images in --data-dir), or of --import."""
    image_size: int | None = None
    """With --dataset folder: crop images to squares and resize them to this side; else they must have one size."""
    batch_size: int = 32
    """Images per training step, over all devices together."""
    num_epochs: int = 12
    """Length of the schedule: in steps, the rate falls to a tenth at 75 % of it and to a hundredth at 95 %."""
    stop_after_epoch: int | None = None
    """End after this epoch, with the schedule unchanged. You may raise it later: the same command then continues."""
    learning_rate: float = 0.1
    """Rate before the schedule lowers it. adamw needs a lower one, such as 0.001."""
    optimizer: Literal["sgd", "momentum", "adamw"] = "sgd"
    """Plain SGD, SGD with momentum, or AdamW (Loshchilov & Hutter 2019)."""
    momentum: float | None = None
    """Weight of the earlier updates with --optimizer momentum; 0.9 if it is left out."""
    weight_decay: float = 0.0
    """Decay of the kernels of convolutions and the dense layer: part of the gradient; with adamw, apart from it."""
    schedule: Literal["step", "cosine"] = "step"
    """How the rate falls over --num-epochs: in two steps to a hundredth, or with each step along a cosine to 0."""
    lr_rule: Literal["fixed", "linear"] = "fixed"
    """The learning rate at another batch size than 128: unchanged, or times batch size / 128."""
    gate_lr_multiplier: float = 10.0
    """The gate of batch-instance norm learns at this multiple of the learning rate."""
    model: str = "resnet"
    """Network: resnet, or one of --import."""
    num_blocks: int = 2
    """Residual blocks in each of the three stages: 2 give 14 layers, n give 6n+2."""
    num_filters: int = 16
    """Channels of the first stage; the second has twice, the third four times as many."""
    init: Literal["torch", "he"] = "torch"
    """Initial weights: uniform within 1/sqrt(fan-in), as in the original paper, or normal with variance 2/fan-in."""
    ghost_batch_size: int | None = None
    """Take batch statistics over parts of this many images of each batch (bn and bin only)."""
    bn_statistics: Literal["global", "replica"] = "global"
    """Batch statistics of the whole batch, or of each replica's part of it, as with pmap without axis_name."""
    num_replicas: int | None = None
    """Number of replicas for --bn-statistics replica; by default one on each device."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the network's arithmetic; parameters and statistics stay in float32."""
    record_features: Literal["pooled", "all"] = "pooled"
    """Record quantiles after each epoch of the pooled features alone, or of every convolution's output too."""
    quantiles: tuple[float, ...] = (1.0, 20.0, 80.0, 99.0)
    """Which quantiles, in percent."""
    evaluate_statistics: bool = False
    """Also evaluate the final weights with recomputed batch statistics, where a norm keeps running ones."""
    probe_learning_rate: bool = False
    """Record after each epoch the norms of every layer's kernel and gradient, and the angle the kernel has turned."""
    probe_smoothness: int | None = None
    """Record how smooth the loss is along the gradient, before every so many steps: at 20, training takes a quarter
    longer."""

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate of the first epoch, after the rule for the batch size."""
        return self.learning_rate * (self.batch_size / REFERENCE_BATCH_SIZE if self.lr_rule == "linear" else 1)

    @property
    def statistics_batch_size(self) -> int:
        """Images whose batch statistics are taken together in training: the batch, a ghost, or a replica's part."""
        return self.ghost_batch_size or self.batch_size // (self.num_replicas or 1)

    @property
    def last_epoch(self) -> int:
        """The epoch after which training ends, counted from 1."""
        return self.num_epochs if self.stop_after_epoch is None else min(self.stop_after_epoch, self.num_epochs)


@dataclasses.dataclass(frozen=True)
class Config(Recipe):
    """One run: a recipe, a normalization and a seed. Two runs with equal configurations have equal numbers.

    Raises:
        UserError: if a field cannot have its value. The message has the field's name in backquotes.

    Examples:
        >>> Config(norm="gn", seed=1, num_epochs=3).name
        'gn-seed1'
    """

    norm: str = "bn"
    """Id of the normalization in `jaxnorm.NORMS`."""
    seed: int = 0
    """Decides initial weights, data order and augmentation; the same for all norms."""
    tags: tuple[str, ...] = ()
    """Distinguishes runs of the same norm and seed in one workdir, such as "bs8"."""

    def __post_init__(self) -> None:
        _check_types(self)
        _check_schedule(self)
        _check_optimizer(self)
        if self.image_size is not None:
            _at_least("image_size", self.image_size, 1)
        _at_least("num_blocks", self.num_blocks, 1)
        _at_least("num_filters", self.num_filters, 1)
        if self.probe_smoothness is not None:
            _at_least("probe_smoothness", self.probe_smoothness, 1)
        _check_batches(self)
        _check_quantiles(self.quantiles)

    @property
    def name(self) -> str:
        """The run's directory within its workdir."""
        return "-".join([self.norm, *self.tags, f"seed{self.seed}"])

    def to_json(self) -> dict[str, Any]:
        """The fields as `config.json` has them.

        Returns:
            JSON values.
        """
        return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}


def completed(found: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe or configuration from a file, with the fields that were added after it was written.

    Args:
        found: the fields that the file has.

    Returns:
        These fields, and those in `ADDED`.

    Examples:
        >>> completed({"norm": "bn"})["optimizer"]
        'sgd'
    """
    return {**{name: getattr(Recipe(), name) for name in ADDED}, **found}


def unusual(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The fields in which a recipe differs from the published network and optimizer.

    Args:
        recipe: fields by name, see `completed`.

    Returns:
        Values by name.

    Examples:
        >>> unusual({"optimizer": "adamw", "num_blocks": 2})
        {'optimizer': 'adamw'}
    """
    found, usual = completed(recipe), Recipe()
    return {name: found[name] for name in NETWORK if found[name] != getattr(usual, name)}


def network_words(recipe: Mapping[str, Any]) -> str:
    """A recipe's network in words, to begin a sentence.

    Args:
        recipe: fields by name, see `completed`.

    Returns:
        Its kind and depth; of a registered one its id.

    Examples:
        >>> network_words({})
        'A residual network of 14 layers'
    """
    found = completed(recipe)
    if found["model"] != Recipe().model:
        return f"The network “{found['model']}”"
    return f"A residual network of {6 * int(found['num_blocks']) + 2} layers"


PRESETS: dict[str, dict[str, Any]] = {
    "quick": dict(dataset="digits", batch_size=32, num_epochs=12, seeds=(0,)),
    "short": dict(dataset="cifar10", batch_size=128, num_epochs=10, seeds=(0,)),
    "study": dict(dataset="cifar10", batch_size=128, num_epochs=100, seeds=tuple(range(10))),
}


def nearest(value: str, valid: Iterable[str]) -> str:
    """The end of an error message about an unknown name: the nearest valid names first, then all of them.

    Args:
        value: the unknown name.
        valid: the names that are allowed.

    Returns:
        A hint, if a valid name is near, and the list.

    Examples:
        >>> nearest("bm", ["bn", "gn"])
        "did you mean 'bn'? valid: bn, gn"
    """
    valid = list(valid)
    close = difflib.get_close_matches(value, valid, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"{hint}valid: {', '.join(valid)}"


def _check_types(config: Config) -> None:
    """Checks that every field has a value of its type. An integer or float of NumPy becomes Python's."""
    for name, hint in _hints().items():
        value, kinds = getattr(config, name), [*(get_args(hint) or (hint,))]
        if get_origin(hint) is Literal:
            if value not in kinds:
                raise UserError(f"`{name}` must be one of {', '.join(kinds)}, but is {value!r}; choose one")
        elif get_origin(hint) is tuple:
            allowed = (float, int) if kinds[0] is float else (kinds[0],)
            if not isinstance(value, tuple) or not all(isinstance(one, allowed) for one in value):
                raise UserError(f"`{name}` must be a tuple of {_KINDS[kinds[0]]}s, but is {value!r}; give one")
        elif not (value is None and type(None) in kinds):
            found = value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value
            object.__setattr__(config, name, float(found) if kinds[0] is float and type(found) is int else found)
            if type(found) not in ((float, int) if kinds[0] is float else (kinds[0],)):
                raise UserError(f"`{name}` must be a {_KINDS[kinds[0]]}, but is {value!r}; give one")


@functools.cache
def _hints() -> dict[str, Any]:
    return get_type_hints(Config)


_KINDS = {int: "whole number", float: "number", str: "text", bool: "True or False"}


def _check_schedule(config: Config) -> None:
    _at_least("num_epochs", config.num_epochs, 1)
    if config.stop_after_epoch is not None:
        _at_least("stop_after_epoch", config.stop_after_epoch, 1)
        if config.stop_after_epoch > config.num_epochs:
            raise UserError(
                f"`stop_after_epoch` must be within the schedule of {config.num_epochs} epochs, but is "
                f"{config.stop_after_epoch}; lower it or raise `num_epochs`"
            )
    if not 0 < config.learning_rate < float("inf"):
        raise UserError(
            f"`learning_rate` must be a positive finite number, but is {config.learning_rate}; give one such as 0.1"
        )
    if not 0 <= config.gate_lr_multiplier < float("inf"):
        raise UserError(
            f"`gate_lr_multiplier` must be zero or a positive finite number, but is {config.gate_lr_multiplier}; give "
            "one such as 10"
        )


def _check_optimizer(config: Config) -> None:
    if config.momentum is not None:
        if config.optimizer != "momentum":
            raise UserError(
                f"`momentum` needs `optimizer` momentum, but is {config.momentum} with {config.optimizer}; drop it or "
                "change `optimizer`"
            )
        if not 0 <= config.momentum < 1:
            raise UserError(f"`momentum` must be from 0 to below 1, but is {config.momentum}; give one such as 0.9")
    if not 0 <= config.weight_decay < float("inf"):
        raise UserError(
            f"`weight_decay` must be zero or a positive finite number, but is {config.weight_decay}; give one such as "
            "0.0005"
        )


def _check_batches(config: Config) -> None:
    """Checks the batch size and everything that divides a batch: ghosts and replicas."""
    size, ghost, replicas = config.batch_size, config.ghost_batch_size, config.num_replicas
    _at_least("batch_size", size, 1)
    if ghost is not None:
        _at_least("ghost_batch_size", ghost, 1)
        if size % ghost:
            raise UserError(f"`ghost_batch_size` must divide the batch size {size}, but is {ghost}; give a divisor")
        if config.norm not in GHOST_BATCH_NORMS:
            raise UserError(
                f"`ghost_batch_size` needs one of our norms with batch statistics ({', '.join(GHOST_BATCH_NORMS)}), "
                f"but the norm is {config.norm}; drop `ghost_batch_size` or change `norm`"
            )
    if replicas is None:
        return
    _at_least("num_replicas", replicas, 2)
    if config.bn_statistics == "global":
        raise UserError(
            f"`num_replicas` needs `bn_statistics` replica, but is {replicas} with global statistics; drop "
            "`num_replicas`, or set `bn_statistics` to replica"
        )
    if size % replicas:
        raise UserError(f"`num_replicas` must divide the batch size {size}, but is {replicas}; give a divisor")
    if ghost is not None:
        raise UserError(
            f"ghost batches and replicas exclude each other, but `ghost_batch_size` is {ghost} and `num_replicas` "
            f"{replicas}; drop one of them"
        )


def _check_quantiles(quantiles: tuple[float, ...]) -> None:
    if not quantiles:
        raise UserError("`quantiles` must name at least one percentage, but there is none; give some, such as 1 and 99")
    for value in quantiles:
        if not 0 <= value <= 100:
            raise UserError(f"`quantiles` must be in 0..100 percent, but one is {value}; change it")
    if list(quantiles) != sorted(set(quantiles)):
        raise UserError(f"`quantiles` must ascend, each once, but are {quantiles}; sort them and drop repeats")


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise UserError(f"`{name}` must be at least {least}, but is {value}; give {least} or more")
