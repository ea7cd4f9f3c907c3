"""Arrays of a run's epochs on disk: gates, and every layer's quantiles and histogram.

Training writes a file an epoch, ``RUN/arrays/epoch_0001.npz``, of arrays such as ``gate/stem_norm``. A publication has
one file for all runs, ``arrays.npz``: ``RUN/gate/stem_norm`` is that array of several epochs, stacked, and
``RUN/epochs/gate`` says which epochs these are.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxnorm.files import reading

PACKED = "arrays.npz"
KINDS = ("gate", "quantiles", "histogram")
BUCKETS = 65_536
"""Buckets of a recorded histogram: the values of float32 by the upper half of their order-preserving key."""


@dataclass(frozen=True)
class RunArrays:
    """The arrays of one run. Nothing is read before it is asked for.

    Attributes:
        folder: the study's folder.
        run: name of the run.
    """

    folder: Path
    run: str

    def layers(self, kind: str) -> list[str]:
        """The layers that have arrays of a kind (gate, quantiles or histogram), in the order of the file."""
        for path in self._files():
            with reading(path), np.load(path, allow_pickle=False) as arrays:
                prefix = self._prefix(path) + kind + "/"
                found = [name.removeprefix(prefix) for name in arrays.files if name.startswith(prefix)]
            if found:
                return found
        return []

    def read(self, kind: str, layers: Collection[str] | None = None) -> dict[str, dict[int, np.ndarray]]:
        """Arrays of a kind by layer and epoch: every layer's, or those of the layers named.

        Raises:
            UserError: if a file is damaged, or an array has not the shape of its kind.
        """
        found: dict[str, dict[int, np.ndarray]] = {}
        for path in self._files():
            prefix = self._prefix(path) + kind + "/"
            with reading(path), np.load(path, allow_pickle=False) as arrays:
                names = [name for name in arrays.files if name.startswith(prefix)]
                names = [name for name in names if layers is None or name.removeprefix(prefix) in layers]
                for name in names:
                    table = np.asarray(arrays[name])
                    if path.name != PACKED:
                        epochs, table = [int(path.stem.partition("_")[2])], table[None]
                    else:
                        epochs = arrays[f"{self._prefix(path)}epochs/{kind}"].tolist()
                    if table.ndim != 2 or len(table) != len(epochs) or table.shape[1] == 0:
                        raise ValueError(f"{name} has shape {table.shape} for {len(epochs)} epochs")
                    if kind == "histogram" and table.shape[1] != BUCKETS:
                        raise ValueError(f"{name} has {table.shape[1]} buckets, not {BUCKETS}")
                    found.setdefault(name.removeprefix(prefix), {}).update(zip(epochs, table, strict=True))
        return found

    def _files(self) -> list[Path]:
        if (self.folder / PACKED).is_file():
            return [self.folder / PACKED]
        if (self.folder / self.run / PACKED).is_file():  # TRANSITION
            return [self.folder / self.run / PACKED]
        named = (self.folder / self.run).glob("arrays/epoch_*.npz")
        return sorted(path for path in named if re.fullmatch(r"epoch_\d+\.npz", path.name))

    def _prefix(self, path: Path) -> str:
        if path.parent.name == self.run:
            return ""  # TRANSITION
        return f"{self.run}/" if path.name == PACKED else ""


def packed(runs: Mapping[str, RunArrays], *, histograms: Collection[str]) -> dict[str, np.ndarray]:
    """The arrays of several runs as ``arrays.npz`` holds them, but of histograms only those of the layers named.

    One file is a tenth of the size of many: zip takes 250 bytes an array to hold four quantiles.
    """
    stacked: dict[str, np.ndarray] = {}
    for name, run in runs.items():
        for kind in KINDS:
            found = run.read(kind, histograms if kind == "histogram" else None)
            if found:
                epochs = sorted(set.intersection(*(set(by_epoch) for by_epoch in found.values())))
                stacked[f"{name}/epochs/{kind}"] = np.array(epochs, np.int32)
                for layer, by_epoch in found.items():
                    stacked[f"{name}/{kind}/{layer}"] = np.stack([by_epoch[epoch] for epoch in epochs])
    return stacked


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
