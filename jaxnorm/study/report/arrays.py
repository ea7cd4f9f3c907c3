"""Arrays of a run's epochs on disk: gates, and every layer's quantiles and histogram.

Training writes a file an epoch, ``RUN/arrays/epoch_0001.npz``, of arrays such as ``gate/stem_norm``. A publication has
one file for all runs, ``arrays.npz``: ``RUN/gate/stem_norm`` is that array of several epochs, stacked, and
``RUN/epochs/gate`` says which epochs these are.
"""

import io
import zipfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np

from jaxnorm import files
from jaxnorm.files import reading

PACKED = "arrays.npz"
BUCKETS = 65_536
"""Buckets of a recorded histogram: the values of float32 by the upper half of their order-preserving key."""


def read_arrays(
    folder: Path, run: str, kind: str, layers: Collection[str] | None = None
) -> dict[str, dict[int, np.ndarray]]:
    """A run's arrays of a kind (gate, quantiles or histogram) by layer and epoch: all layers, or those named.

    Raises:
        UserError: if a file is damaged, or an array has not the shape of its kind.
    """
    paths = [folder / PACKED] if (folder / PACKED).is_file() else sorted((folder / run).glob("arrays/epoch_*.npz"))
    found: dict[str, dict[int, np.ndarray]] = {}
    for path in paths:
        start = f"{run}/" if path.name == PACKED else ""
        with reading(path), path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            names = [
                name.removeprefix(f"{start}{kind}/") for name in arrays.files if name.startswith(f"{start}{kind}/")
            ]
            for layer in [name for name in names if layers is None or name in layers]:
                table = np.asarray(arrays[f"{start}{kind}/{layer}"])
                if start:
                    epochs = arrays[f"{start}epochs/{kind}"].tolist()
                else:
                    epochs, table = [int(path.stem.removeprefix("epoch_"))], table[None]
                if table.ndim != 2 or len(table) != len(epochs) or table.shape[1] == 0:
                    raise ValueError(f"{kind}/{layer} has shape {table.shape} for {len(epochs)} epochs")
                if kind == "histogram" and table.shape[1] != BUCKETS:
                    raise ValueError(f"{kind}/{layer} has {table.shape[1]} buckets, not {BUCKETS}")
                found.setdefault(layer, {}).update(zip(epochs, table, strict=True))
    return found


def packed(folder: Path, runs: Iterable[str], histograms: Collection[str]) -> dict[str, np.ndarray]:
    """The arrays of several runs as ``arrays.npz`` holds them, but of histograms only those of the layers named."""
    stacked: dict[str, np.ndarray] = {}
    for run in runs:
        for kind, layers in (("gate", None), ("quantiles", None), ("histogram", histograms)):
            found = read_arrays(folder, run, kind, layers)
            epochs = sorted(set.intersection(*map(set, found.values()))) if found else []
            if epochs:
                stacked[f"{run}/epochs/{kind}"] = np.array(epochs, np.int32)
            for layer, by_epoch in found.items():
                stacked[f"{run}/{kind}/{layer}"] = np.stack([by_epoch[epoch] for epoch in epochs])
    return stacked


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an .npz file with LZMA, an eighth smaller than with deflate; `numpy.load` reads it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue(), zipfile.ZIP_LZMA)
    files.write_bytes(path, buffer.getvalue())


def bucket_edges() -> np.ndarray:
    """Lower edge of every bucket as float64, ascending, (65536,): inverts the key that counted the values.

    A float32's key is its bits, all flipped where the sign is set and with the sign set where it is not; its bucket is
    the key's upper half. Edges of buckets of values that are not finite are not finite either.
    """
    key = np.arange(BUCKETS, dtype=np.uint32) << 16
    bits = np.where(key >> 31 == 1, key & np.uint32(0x7FFFFFFF), ~key)
    with np.errstate(invalid="ignore"):
        return bits.astype(np.uint32).view(np.float32).astype(np.float64)
