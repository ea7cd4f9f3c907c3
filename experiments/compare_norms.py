"""Trains one small residual network with seven normalizations and compares them: `jaxnorm compare`.

    python experiments/compare_norms.py                    # 7 norms on the embedded digits, minutes on 2 cores
    python experiments/compare_norms.py --preset short     # CIFAR-10, 10 epochs, an hour on 2 cores
    python experiments/compare_norms.py --preset study     # CIFAR-10, 100 epochs, 10 seeds, on an accelerator

Expect batch norm and its relatives first (99 % on the digits) and the network without normalization last.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a checkout works without being installed

from jaxnorm.__main__ import main

if __name__ == "__main__":
    main("compare")
