"""The arrays of an epoch: gates, and every layer's quantiles and histogram.

Training writes a file an epoch, `arrays/epoch_0001.npz`, of arrays such as `gate/stem_norm`. A publication has one file
a run, `arrays.npz`, in which each array is that of several epochs, stacked; `epochs/gate` says which, for every kind.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from jaxnorm.files import reading

PACKED = "arrays.npz"
BUCKETS = 65_536
"""Buckets of a recorded histogram: the values of float32 by the upper half of their order-preserving key."""


@dataclass(frozen=True)
class EpochArrays:
    """One epoch's arrays; nothing is read before it is asked for, and then only that array."""

    epoch: int
    path: Path

    @property
    def packed(self) -> bool:
        """Whether the file holds other epochs, too."""
        return self.path.name == PACKED

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The keys of the epoch's arrays, such as `gate/stem_norm`, in the file's own order."""
        with reading(self.path), self.path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if not self.packed:
                return tuple(arrays.files)
            known = {name.removeprefix("epochs/") for name in arrays.files if name.startswith("epochs/")}
            mine = {kind for kind in known if self.epoch in arrays[f"epochs/{kind}"]}
            return tuple(name for name in arrays.files if _kind(name) in mine)

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
            if self.packed:
                epochs = list(arrays[f"epochs/{kind}"])
                if any(array.shape[:1] != (len(epochs),) for array in found.values()):
                    raise ValueError(f"an array of the kind {kind} is not of {len(epochs)} epochs")
                found = {layer: stacked[epochs.index(self.epoch)] for layer, stacked in found.items()}
            for layer, array in found.items():
                if array.ndim != 1 or len(array) == 0 or (kind == "histogram" and len(array) != BUCKETS):
                    raise ValueError(f"{kind}/{layer} has shape {array.shape}")
            return found


def find_arrays(run: Path) -> tuple[EpochArrays, ...]:
    """Those in a run's directory, in the order of their epochs; none where nothing was recorded.

    Raises:
        UserError: if a publication's file is damaged.
    """
    packed = run / PACKED
    if packed.is_file():
        with reading(packed), packed.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            known = {int(epoch) for name in arrays.files if _kind(name) == "epochs" for epoch in arrays[name]}
        return tuple(EpochArrays(epoch, packed) for epoch in sorted(known))
    found = [(re.fullmatch(r"epoch_(\d+)\.npz", path.name), path) for path in run.glob("arrays/epoch_*.npz")]
    return tuple(sorted((EpochArrays(int(m[1]), path) for m, path in found if m), key=lambda one: one.epoch))


def pack_arrays(epochs: Sequence[EpochArrays], path: Path, *, histograms: Collection[str | None]) -> None:
    """Writes the arrays of all epochs to one file, but of histograms only those of the layers named.

    A tenth of the size: a histogram takes 6 KB, and zip 250 bytes an array to hold four quantiles.
    """
    kinds = dict.fromkeys(_kind(name) for one in epochs for name in one.names)
    stacked: dict[str, np.ndarray] = {}
    for kind in kinds:
        having = [(one.epoch, arrays) for one in epochs if (arrays := one.read(kind))]
        stacked[f"epochs/{kind}"] = np.array([epoch for epoch, _ in having], np.int32)
        for layer in having[0][1]:
            if kind != "histogram" or layer in histograms:
                stacked[f"{kind}/{layer}"] = np.stack([arrays[layer] for _, arrays in having])
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **stacked)


def _kind(name: str) -> str:
    return name.partition("/")[0]


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
