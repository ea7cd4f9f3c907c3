"""Trains one small residual network with seven normalizations and compares them.

    python experiments/compare_norms.py                    # 7 norms on the embedded digits, minutes on 2 cores
    python experiments/compare_norms.py --preset short     # CIFAR-10, 10 epochs, an hour on 2 cores
    python experiments/compare_norms.py --preset study     # CIFAR-10, 100 epochs, 10 seeds, on an accelerator

Expect batch norm and its relatives first (99 % on the digits) and the network without normalization last. The workdir
then contains tables, figures and report.html. The same command continues where an earlier one stopped; more --norms or
--seeds extend it.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a checkout works without being installed

from jaxnorm.study.cli import driver, entry, lists, options


@dataclasses.dataclass(frozen=True)
class Options(options.Options):
    """Flags of the comparison."""

    workdir: Path = Path("runs/compare_norms")
    """Folder for the runs, tables, figures and the report. The same command there continues where it stopped."""
    learning_rates: tuple[float, ...] = ()
    """Train at each of these rates instead of one; the report chooses each norm's on validation."""

    @property
    def varied(self) -> tuple[str, ...]:
        """The learning rate, where several are compared."""
        return ("learning_rate",) if self.learning_rates else ()

    def points(self) -> list[dict[str, Any]]:
        """One point, or one for each learning rate."""
        points: list[dict[str, Any]] = []
        for rate in self.learning_rates:
            short = f"{rate:g}"
            points.append({"learning_rate": rate, "tags": (f"lr{short if float(short) == rate else repr(rate)}",)})
        return points or [{}]

    def check_flags(self) -> None:
        """Also checks the learning rates."""
        super().check_flags()
        lists.check_distinct("--learning-rates", self.learning_rates)


def main() -> int:
    """Compares, and returns the exit code."""
    return driver.drive(options.parse(Options, description=__doc__), study="compare_norms")


if __name__ == "__main__":
    entry.run(main)
