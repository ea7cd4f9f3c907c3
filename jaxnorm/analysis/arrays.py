"""The arrays of an epoch, `arrays/epoch_0001.npz`: gates, and every layer's quantiles and histogram."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from jaxnorm.files import reading

BUCKETS = 65_536
"""Buckets of a recorded histogram: the values of float32 by the upper half of their order-preserving key."""


@dataclass(frozen=True)
class EpochArrays:
    """One epoch's file; nothing is read before it is asked for, and then only that array."""

    epoch: int
    path: Path

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The keys of the file, such as `gate/stem_norm`, in its own order."""
        with reading(self.path), self.path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return tuple(arrays.files)

    def layers(self, kind: str) -> tuple[str, ...]:
        """The layers that have an array of this kind: gate, quantiles or histogram."""
        return tuple(name.removeprefix(f"{kind}/") for name in self.names if name.startswith(f"{kind}/"))

    def read(self, kind: str, only: str | None = None) -> dict[str, np.ndarray]:
        """Arrays of this kind by layer, in the file's order: every layer's, or `only` one layer's.

        Raises:
            UserError: if the file is damaged or an array has not the shape of its kind.
        """
        layers = [layer for layer in self.layers(kind) if only in (None, layer)]
        if not layers:
            return {}
        with reading(self.path), self.path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            found = {layer: np.asarray(arrays[f"{kind}/{layer}"]) for layer in layers}
            for layer, array in found.items():
                if array.ndim != 1 or len(array) == 0 or (kind == "histogram" and len(array) != BUCKETS):
                    raise ValueError(f"{kind}/{layer} has shape {array.shape}")
            return found


def find_arrays(directory: Path) -> tuple[EpochArrays, ...]:
    """The files in `directory` in the order of their epochs; none where there is no such folder."""
    found = [(re.fullmatch(r"epoch_(\d+)\.npz", path.name), path) for path in directory.glob("epoch_*.npz")]
    return tuple(sorted((EpochArrays(int(m[1]), path) for m, path in found if m), key=lambda one: one.epoch))


def bucket_edges() -> np.ndarray:
    """Lower edge of every bucket as float64, ascending, (65536,): inverts the key that counted the values.

    A float32's key is its bits, all flipped where the sign is set and with the sign set where it is not; its bucket is
    the key's upper half. Buckets of values that are not finite have edges that are not finite either. A negative
    bucket's lower edge is the value whose lower bits are all set.
    """
    key = np.arange(BUCKETS, dtype=np.uint32) << 16
    bits = np.where(key >> 31 == 1, key & np.uint32(0x7FFFFFFF), ~key)
    with np.errstate(invalid="ignore"):
        return bits.astype(np.uint32).view(np.float32).astype(np.float64)
