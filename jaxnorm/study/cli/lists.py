"""Checks of flags that name several values."""

import collections
from collections.abc import Sequence
from typing import Any

from jaxnorm.errors import UserError
from jaxnorm.study.config import GHOST_BATCH_NORMS


def check_list(flag: str, values: Sequence[Any], *, may_be_empty: bool = False) -> None:
    """Checks that a flag names values, and each of them once.

    Args:
        flag: such as ``--seeds``.
        values: what it names.
        may_be_empty: whether it may name none.

    Raises:
        UserError: if it names none, or naming the value that it names twice.
    """
    if not values and not may_be_empty:
        raise UserError(f"{flag} must name at least one value, but names none; see --help")
    for value, count in collections.Counter(values).items():
        if count > 1:
            raise UserError(f"{flag} must name each value once, but names {value} {count} times; drop the others")


def check_batch_sizes(sizes: Sequence[int], ghosts: Sequence[int], norms: Sequence[str]) -> None:
    """Checks the batch sizes of a sweep and those of its ghosts.

    Args:
        sizes: images per training step.
        ghosts: images whose statistics are taken together; they must divide the largest batch.
        norms: ids of the normalizations.

    Raises:
        UserError: naming the flag, its value and what it may be.
    """
    check_list("--batch-sizes", sizes)
    check_list("--ghost-batch-sizes", ghosts, may_be_empty=True)
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
