"""Probes networks with each normalization before their first step: gradients and features of every layer.

    python experiments/initialization.py                                # seven norms, seconds each, no training
    python experiments/initialization.py --runs runs/compare_norms      # and does that tell how fast they learn?

Expect gradients that vanish towards the input without normalization, and grow by 1.21 a layer with batch norm in a
plain network of 30 layers, as mean-field theory predicts. The workdir then contains tables, figures and report.html.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a checkout works without being installed

from jaxnorm.__main__ import main

if __name__ == "__main__":
    main("initialization")
