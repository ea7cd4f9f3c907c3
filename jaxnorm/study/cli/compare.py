"""The comparison of normalizations: ``jaxnorm compare`` and ``experiments/compare_norms.py``."""

import dataclasses
from pathlib import Path
from typing import Any

from jaxnorm.study.cli.driver import Driver
from jaxnorm.study.cli.lists import check_distinct


@dataclasses.dataclass(frozen=True)
class Compare(Driver):
    """Flags of the comparison."""

    study = "compare_norms"
    summary = "Trains one small network with each norm and compares them."
    details = """
    {program}                 # digits, minutes on 2 cores
    {program} --preset short  # CIFAR-10, an hour
    {program} --preset study  # CIFAR-10, 10 seeds, a GPU

Expect batch norm and its relatives first (99 % on the digits) and the network without normalization last. The workdir
then contains tables, figures and report.html. The same command continues where an earlier one stopped; more --norms or
--seeds extend it."""

    workdir: Path = Path("runs/compare_norms")
    """Folder for the runs, tables, figures and the report. The same command there continues where it stopped."""
    learning_rates: tuple[float, ...] = ()
    """Train at each of these rates instead of one; the report chooses each norm's on validation."""

    @property
    def varied(self) -> tuple[str, ...]:
        """The learning rate, where several are compared."""
        return ("learning_rate",) if self.learning_rates else ()

    def points(self) -> list[dict[str, Any]]:
        """One point, or one for each learning rate.

        Returns:
            The rates, and tags.
        """
        points: list[dict[str, Any]] = []
        for rate in self.learning_rates:
            short = f"{rate:g}"
            points.append({"learning_rate": rate, "tags": (f"lr{short if float(short) == rate else repr(rate)}",)})
        return points or [{}]

    def check_flags(self) -> None:
        """Also checks the learning rates."""
        super().check_flags()
        check_distinct("--learning-rates", self.learning_rates)
