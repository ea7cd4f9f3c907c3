"""Trains every variant and records how the features of every layer are distributed after each epoch.

    python experiments/feature_evolution.py                    # digits, minutes on 2 cores
    python experiments/feature_evolution.py --preset study --seeds 0                        # an accelerator

Exact quantiles over the whole validation set, in evaluation mode, of the pooled features (as the study drew them)
and of every convolution's output before norm and ReLU (as the Group Normalization paper did). Runs that are already
recorded so are not trained again.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a bare checkout works without being installed

from jaxnorm.study import command_line


@dataclasses.dataclass(frozen=True)
class Options(command_line.Options):
    """Flags of the feature evolution."""

    workdir: Path = Path("runs/feature_evolution")
    """Folder for the runs, tables, figures and the report. The same command there goes on where it stopped."""
    record_features: Literal["pooled", "all"] = "all"
    """Quantiles after each epoch of the pooled features alone, or of every convolution's output too."""


def main() -> int:
    """Trains and records, and returns the exit code."""
    return command_line.carry_out(command_line.parse(Options, description=__doc__), study="feature_evolution")


if __name__ == "__main__":
    command_line.run(main)
