"""The batch-size study: ``jaxnorm batch-sizes`` and ``experiments/batch_size_study.py``."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import tyro

from jaxnorm.study.cli import lists
from jaxnorm.study.cli.driver import Driver
from jaxnorm.study.config import GHOST_BATCH_NORMS, Config


@dataclasses.dataclass(frozen=True)
class BatchSizes(Driver):
    """Flags of the batch-size study."""

    study = "batch_size_study"
    summary = "Trains batch and group norm at several batch sizes."
    details = """
When does batch norm break, and is it training or its averages?

    {program}  # digits, 128 and 8, minutes
    {program} --preset study --batch-sizes 128 32 8 2

All runs share one schedule in epochs. Under the linear rule the learning rate is 0.1 * batch size / 128. Batch norm is
evaluated with its running averages, with recomputed ("precise") statistics, and with those of the evaluated batch;
--ghost-batch-sizes adds runs whose statistics are taken over parts of each batch: the noise of small batches without
their small steps. Expect batch norm to lose to group norm at the smallest batches."""

    norms: tuple[str, ...] = ("bn", "gn")
    """Normalizations to compare, by id; --list norms lists them."""
    workdir: Path = Path("runs/batch_size_study")
    """Folder for the runs, tables, figures and the report. The same command there continues where it stopped."""
    batch_sizes: tuple[int, ...] = (128, 8)
    """Images per training step; the full sweep is 128 64 32 16 8 4 2."""
    lr_rules: tuple[Literal["fixed", "linear"], ...] = ("fixed", "linear")
    """Learning rate at each batch size: as it is, or times batch size / 128. At 128 they are one run, the fixed one."""
    ghost_batch_sizes: tuple[int, ...] = ()
    """Also train at the largest batch size with batch statistics over parts of this many images (bn and bin)."""
    evaluate_statistics: bool = True
    """Evaluate the final weights with recomputed batch statistics, too, where a norm keeps running ones."""
    batch_size: tyro.conf.Suppress[int] = 128
    """No flag here: `batch_sizes`."""
    lr_rule: tyro.conf.Suppress[Literal["fixed", "linear"]] = "fixed"
    """No flag here: `lr_rules`."""
    ghost_batch_size: tyro.conf.Suppress[int | None] = None
    """No flag here: `ghost_batch_sizes`."""

    varied = ("batch_size", "lr_rule", "ghost_batch_size")

    def points(self) -> list[dict[str, Any]]:
        """Every batch size under every rule; what both rules give alike is there once.

        Returns:
            Values of the `varied` fields, and tags.
        """
        points = [(size, rule) for rule in self.lr_rules for size in self.batch_sizes]
        if (128, "fixed") in points and (128, "linear") in points:
            points.remove((128, "linear"))
        return [{"batch_size": size, "lr_rule": rule, "tags": (f"bs{size}", rule)} for size, rule in points]

    def configs(self) -> list[Config]:
        """The grid, then the ghosts: at the largest batch size, of the norms that can have them.

        Returns:
            All runs.
        """
        size, norms = max(self.batch_sizes), [norm for norm in self.norms if norm in GHOST_BATCH_NORMS]
        tags = {part: (f"bs{size}", f"ghost{part}") for part in self.ghost_batch_sizes}
        ghosts = [{"batch_size": size, "ghost_batch_size": part, "tags": tags[part]} for part in tags]
        return super().configs() + self.grid(norms, ghosts)

    def notes(self) -> list[str]:
        """Says that a point is left out, where it is.

        Returns:
            A line, or none.
        """
        complete = len(self.points()) == len(self.lr_rules) * len(self.batch_sizes)
        return [] if complete else ["Rules: at batch size 128 both are one run, trained as bs128-fixed"]

    def check_flags(self) -> None:
        """Also checks the lists."""
        super().check_flags()
        lists.check_batch_sizes(self.batch_sizes, self.ghost_batch_sizes, self.norms)
        lists.check_distinct("--lr-rules", self.lr_rules)
