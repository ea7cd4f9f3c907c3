"""What decides a run's numbers, as frozen dataclasses, and the presets."""

import dataclasses
import difflib
from collections.abc import Iterable
from typing import Any, Literal

from jaxnorm.errors import UserError

DEFAULT_NORMS = ("flax_bn", "none", "bn", "in", "bin", "ln", "gn")


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
    gate_lr_multiplier: float = 10.0
    """Batch-instance norm's gate learns at this multiple of the learning rate."""

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

    @property
    def name(self) -> str:
        """The run's directory within its workdir."""
        return f"{self.norm}-seed{self.seed}"

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values, as `config.json` holds them."""
        return dataclasses.asdict(self)


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
