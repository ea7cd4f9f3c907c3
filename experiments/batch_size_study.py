"""Trains batch norm and group norm at several batch sizes: when does batch norm break, and is it training or averages?

    python experiments/batch_size_study.py                     # digits, batch sizes 128 and 8, minutes on 2 cores
    python experiments/batch_size_study.py --preset study --batch-sizes 128 64 32 16 8 4 2  # an accelerator

All sides share one schedule in epochs. With the linear rule the learning rate is 0.1 * batch size / 128; at 128 both
rules compute the same, which is trained once and stands under both names. Every batch norm is evaluated with its
running averages, with recomputed ("precise") statistics, and with those of the evaluated batch; --ghost-batch-sizes
adds runs at the largest batch size whose statistics are taken over parts of each batch: the noise of small batches
without their small steps.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any, Literal

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a bare checkout works without being installed

from jaxnorm.errors import UserError
from jaxnorm.study import command_line
from jaxnorm.study.config import GHOSTLY_NORMS, PRESETS, Config


@dataclasses.dataclass(frozen=True)
class Options(command_line.Options):
    """Flags of the batch-size study."""

    norms: tuple[str, ...] = ("bn", "gn")
    """Normalizations to compare, by id."""
    workdir: Path = Path("runs/batch_size_study")
    """Folder for the runs, tables, figures and the report. The same command there goes on where it stopped."""
    batch_sizes: tuple[int, ...] = (128, 8)
    """Images per training step; the full sweep is 128 64 32 16 8 4 2."""
    lr_rules: tuple[Literal["fixed", "linear"], ...] = ("fixed", "linear")
    """Learning rate at each batch size: as it is, or times batch size / 128."""
    ghost_batch_sizes: tuple[int, ...] = ()
    """Also train at the largest batch size with batch statistics over parts of this many images (bn and bin)."""
    evaluate_statistics: bool = True
    """Evaluate the final weights with recomputed batch statistics, too, where a norm keeps running ones."""
    batch_size: tyro.conf.Suppress[int] = 128
    lr_rule: tyro.conf.Suppress[Literal["fixed", "linear"]] = "fixed"
    ghost_batch_size: tyro.conf.Suppress[int | None] = None

    @property
    def varied(self) -> tuple[str, ...]:
        """Batch size, rule and ghosts."""
        return ("batch_size", "lr_rule", "ghost_batch_size")

    def points(self) -> list[dict[str, Any]]:
        """Every batch size under every rule."""
        return [
            {"batch_size": size, "lr_rule": rule, "tags": (f"bs{size}", rule)}
            for rule in self.lr_rules
            for size in self.batch_sizes
        ]

    def configs(self) -> list[Config]:
        """The grid, and the ghosts of the norms that can have them."""
        plain = super().configs()
        largest = [config for config in plain if config.batch_size == max(self.batch_sizes)]
        haunted = [
            dataclasses.replace(
                config, lr_rule="fixed", ghost_batch_size=size, tags=(f"bs{config.batch_size}", f"ghost{size}")
            )
            for config in largest
            for size in self.ghost_batch_sizes
            if config.norm in GHOSTLY_NORMS and config.lr_rule == self.lr_rules[0]
        ]
        return plain + haunted

    def validate(self) -> None:
        """Also checks the lists."""
        super().validate()
        for flag, values in (
            ("--batch-sizes", self.batch_sizes),
            ("--lr-rules", self.lr_rules),
            ("--ghost-batch-sizes", self.ghost_batch_sizes),
        ):
            command_line.check_distinct(flag, values)
            if not values and flag != "--ghost-batch-sizes":
                raise UserError(f"{flag} must name at least one value, but names none; see --help")
        for size in self.batch_sizes:
            if size < 1:
                raise UserError(f"--batch-sizes must be at least 1, but name {size}; give 1 or more")
        for size in self.ghost_batch_sizes:
            if size < 1 or max(self.batch_sizes) % size:
                raise UserError(
                    f"--ghost-batch-sizes must divide the largest batch size {max(self.batch_sizes)}, but name {size}; "
                    "give divisors"
                )
        if self.ghost_batch_sizes and not set(self.norms) & set(GHOSTLY_NORMS):
            raise UserError(
                f"--ghost-batch-sizes needs one of our norms with batch statistics ({', '.join(GHOSTLY_NORMS)}), but "
                f"the norms are {', '.join(self.norms)}; drop it or change --norms"
            )


def main() -> int:
    """Studies, and returns the exit code."""
    presets = {name: {**preset, "batch_size": 128} for name, preset in PRESETS.items()}
    options = command_line.parse(Options, presets=presets, description=__doc__)
    return command_line.carry_out(options, study="batch_size_study")


if __name__ == "__main__":
    command_line.run(main)
