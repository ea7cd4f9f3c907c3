"""What decides a run's numbers, as frozen dataclasses, and the presets."""

import dataclasses
import difflib
from collections.abc import Iterable
from typing import Any, Literal

from jaxnorm.errors import UserError

DEFAULT_NORMS = ("flax_bn", "none", "bn", "in", "bin", "ln", "gn")
GHOSTLY_NORMS = ("bn", "bin", "bin_frozen")
"""Norms whose batch statistics can be taken over parts of a batch."""
REVISABLE = ("learning_rate", "lr_rule", "gate_lr_multiplier")
"""Fields that a run which has begun may go on with changed, where its user allows that."""
REFERENCE_BATCH_SIZE = 128
"""The study's batch size, at which the linear rule's learning rate equals the fixed one."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How every run of a study is trained: the study's protocol, and what a flag may change in it."""

    dataset: Literal["digits", "cifar10"] = "digits"
    """Data to train on: the embedded handwritten digits, or CIFAR-10."""
    batch_size: int = 32
    """Images per training step, over all devices together."""
    num_epochs: int = 12
    """Length of the schedule: the rate falls to a tenth at 75 % of it and to a hundredth at 95 %."""
    stop_after_epoch: int | None = None
    """End after this epoch, schedule unchanged. May be raised later: the same command then goes on."""
    learning_rate: float = 0.1
    """Rate of plain SGD before the schedule lowers it."""
    lr_rule: Literal["fixed", "linear"] = "fixed"
    """The learning rate at another batch size than 128: as it is, or times batch size / 128."""
    gate_lr_multiplier: float = 10.0
    """Batch-instance norm's gate learns at this multiple of the learning rate."""
    init: Literal["torch", "he"] = "torch"
    """Initial weights: uniform within 1/sqrt(fan-in), as the study's, or normal with variance 2/fan-in and bias 0."""
    ghost_batch_size: int | None = None
    """Take batch statistics over parts of this many images of each batch (bn and bin only)."""
    bn_statistics: Literal["global", "replica"] = "global"
    """Batch statistics over the whole batch, or over each replica's part of it, as pmap without axis_name has them."""
    num_replicas: int | None = None
    """Replicas that the batch is cut into for --bn-statistics replica; by default one on each device."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the network's arithmetic; parameters and statistics stay in float32."""
    record_features: Literal["pooled", "all"] = "pooled"
    """Quantiles after each epoch of the pooled features alone, or of every convolution's output too."""
    quantiles: tuple[float, ...] = (1.0, 20.0, 80.0, 99.0)
    """Which quantiles, in percent."""
    evaluate_statistics: bool = False
    """Evaluate the final weights with recomputed batch statistics, too, where a norm keeps running ones."""

    @property
    def peak_learning_rate(self) -> float:
        """The rate before the schedule lowers it, after the rule for the batch size."""
        return self.learning_rate * (self.batch_size / REFERENCE_BATCH_SIZE if self.lr_rule == "linear" else 1)

    @property
    def statistics_batch_size(self) -> int:
        """Images whose batch statistics are taken together in training: the batch, a ghost, or a replica's part."""
        return self.ghost_batch_size or self.batch_size // (self.num_replicas or 1)

    @property
    def last_epoch(self) -> int:
        """The epoch after which training ends, counted from 1."""
        return self.num_epochs if self.stop_after_epoch is None else min(self.stop_after_epoch, self.num_epochs)

    def validate(self) -> None:
        """Checks every field that can be checked without data.

        Raises:
            UserError: naming the field, its value and what it may be.
        """
        _at_least("batch_size", self.batch_size, 1)
        _at_least("num_epochs", self.num_epochs, 1)
        if self.stop_after_epoch is not None:
            _at_least("stop_after_epoch", self.stop_after_epoch, 1)
            if self.stop_after_epoch > self.num_epochs:
                raise UserError(
                    f"stop_after_epoch must lie within the schedule of {self.num_epochs} epochs, "
                    f"but is {self.stop_after_epoch}; lower it or raise --num-epochs"
                )
        _positive("learning_rate", self.learning_rate)
        _not_negative("gate_lr_multiplier", self.gate_lr_multiplier)
        if self.ghost_batch_size is not None:
            _at_least("ghost_batch_size", self.ghost_batch_size, 1)
            if self.batch_size % self.ghost_batch_size:
                raise UserError(
                    f"ghost_batch_size must divide the batch size {self.batch_size}, but is {self.ghost_batch_size}; "
                    "give --ghost-batch-size a divisor"
                )
        if self.num_replicas is not None:
            self._check_replicas(self.num_replicas)
        if not self.quantiles:
            raise UserError("quantiles must name at least one percentage, but name none; for example --quantiles 1 99")
        for value in self.quantiles:
            if not 0 <= value <= 100:
                raise UserError(f"quantiles must lie in 0..100 percent, but hold {value}; see --quantiles")
        if list(self.quantiles) != sorted(set(self.quantiles)):
            raise UserError(
                f"quantiles must ascend, each once, but are {self.quantiles}; sort --quantiles and drop repeats"
            )

    def _check_replicas(self, num_replicas: int) -> None:
        _at_least("num_replicas", num_replicas, 2)
        if self.bn_statistics == "global":
            raise UserError(
                f"num_replicas goes with --bn-statistics replica, but is {num_replicas} with global statistics; drop "
                "--num-replicas or add --bn-statistics replica"
            )
        if self.batch_size % num_replicas:
            raise UserError(
                f"num_replicas must divide the batch size {self.batch_size}, but is {num_replicas}; give "
                "--num-replicas a divisor"
            )
        if self.ghost_batch_size is not None:
            raise UserError(
                f"ghosts and replicas both cut the batch, but ghost_batch_size is {self.ghost_batch_size} and "
                f"num_replicas {num_replicas}; drop one of them"
            )


@dataclasses.dataclass(frozen=True)
class Config(Recipe):
    """One run: a recipe, a normalization and a seed. Two runs with equal configurations have equal numbers.

    Example:
        >>> Config(norm="gn", seed=1, num_epochs=3).name
        'gn-seed1'
    """

    norm: str = "bn"
    """Id of the normalization in `jaxnorm.NORMS`."""
    seed: int = 0
    """Decides initial weights, data order and augmentation, alike in all variants."""
    tags: tuple[str, ...] = ()
    """What sets this run apart from others of its norm and seed in the same study, such as "bs8"."""

    def validate(self) -> None:
        """Also checks that the norm can have ghosts, where the recipe asks for them."""
        super().validate()
        if self.ghost_batch_size is not None and self.norm not in GHOSTLY_NORMS:
            raise UserError(
                f"ghost_batch_size needs one of our norms with batch statistics ({', '.join(GHOSTLY_NORMS)}), but the "
                f"norm is {self.norm}; drop --ghost-batch-size or change --norms"
            )

    @property
    def computation(self) -> "Config":
        """What is computed, whatever it is called: at the reference batch size both rules give one learning rate.

        Example:
            >>> fixed, linear = (Config(batch_size=128, lr_rule=rule, tags=(rule,)) for rule in ("fixed", "linear"))
            >>> fixed == linear, fixed.computation == linear.computation
            (False, True)
        """
        return dataclasses.replace(self, learning_rate=self.peak_learning_rate, lr_rule="fixed", tags=())

    @property
    def name(self) -> str:
        """The run's directory within its workdir."""
        return "-".join([self.norm, *self.tags, f"seed{self.seed}"])

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values, as `config.json` holds them."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}


PRESETS: dict[str, dict[str, Any]] = {
    "quick": dict(dataset="digits", batch_size=32, num_epochs=12, seeds=(0,)),
    "short": dict(dataset="cifar10", batch_size=128, num_epochs=10, seeds=(0,)),
    "study": dict(dataset="cifar10", batch_size=128, num_epochs=100, seeds=(0, 1, 2, 3, 4)),
}


def nearest(value: str, valid: Iterable[str]) -> str:
    """Words for an error: the nearest valid names first, then all of them."""
    valid = list(valid)
    close = difflib.get_close_matches(value, valid, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"{hint}valid: {', '.join(valid)}"


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise UserError(f"{name} must be at least {least}, but is {value}; give {_flag(name)} {least} or more")


def _positive(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise UserError(f"{name} must be a positive finite number, but is {value}; for example {_flag(name)} 0.1")


def _not_negative(name: str, value: float) -> None:
    if not 0 <= value < float("inf"):
        raise UserError(f"{name} must be zero or a positive finite number, but is {value}; see {_flag(name)}")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
