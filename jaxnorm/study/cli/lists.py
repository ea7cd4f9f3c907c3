"""Checks of flags that name several values. `options.parse` checks that none of them is empty."""

import collections
from collections.abc import Sequence
from typing import Any

from jaxnorm.errors import UserError
from jaxnorm.study.config import GHOST_BATCH_NORMS


def check_distinct(flag: str, values: Sequence[Any]) -> None:
    """Checks that a flag names each of its values once.

    Args:
        flag: such as ``--seeds``.
        values: what it names.

    Raises:
        UserError: naming the value that it names twice.
    """
    for value, count in collections.Counter(values).items():
        if count > 1:
            raise UserError(f"{flag} must name each value once, but names {value} {count} times; drop the others")


def check_seeds(seeds: Sequence[int], flag: str = "--seeds") -> None:
    """Checks seeds.

    Args:
        seeds: what the flag names.
        flag: its name.

    Raises:
        UserError: naming the seed that is out of range or there twice.
    """
    for seed in seeds:
        if not 0 <= seed < 2**32:
            raise UserError(f"{flag} must be within 0..{2**32 - 1}, but holds {seed}; for example {flag} 1")
    check_distinct(flag, seeds)


def check_batch_sizes(sizes: Sequence[int], ghosts: Sequence[int], norms: Sequence[str]) -> None:
    """Checks the batch sizes of a sweep and those of its ghosts.

    Args:
        sizes: images per training step.
        ghosts: images whose statistics are taken together; they must divide the largest batch.
        norms: ids of the normalizations.

    Raises:
        UserError: naming the flag, its value and what it may be.
    """
    check_distinct("--batch-sizes", sizes)
    check_distinct("--ghost-batch-sizes", ghosts)
    for size in sizes:
        if size < 1:
            raise UserError(f"--batch-sizes must be at least 1, but name {size}; give 1 or more")
    for size in ghosts:
        if size < 1 or max(sizes) % size:
            raise UserError(
                f"--ghost-batch-sizes must divide the largest batch size {max(sizes)}, but name {size}; give divisors"
            )
    if ghosts and not set(norms) & set(GHOST_BATCH_NORMS):
        raise UserError(
            f"--ghost-batch-sizes needs one of our norms with batch statistics ({', '.join(GHOST_BATCH_NORMS)}), but "
            f"the norms are {', '.join(norms)}; drop it or change --norms"
        )
