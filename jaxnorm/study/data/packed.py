"""CIFAR-10 packed without loss in four files, for machines to which little can be carried: two thirds of the archive.

``cifar10_labels.xz`` holds the labels, one byte an image. ``cifar10_part1.xz`` to ``cifar10_part3.xz`` hold a third of
the images each, in the order of the binary files: bytes of shape (3, N, 32, 32), what a predictor misses of green, red
minus green and blue minus green, modulo 256. The prediction is the median of the left pixel, the upper one and left +
upper - upper left (LOCO-I, Weinberger et al. 2000); in the first row and column it is the neighbour that exists, or 0.
"""

import lzma
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from jaxnorm.errors import UserError, one_line
from jaxnorm.study.data.binary import SIDE, Release, check_labels

LABELS = "cifar10_labels.xz"
PARTS = ("cifar10_part1.xz", "cifar10_part2.xz", "cifar10_part3.xz")
IMAGES_AT_ONCE = 1000
"""Images that one thread unpacks together: they fit into a processor's cache."""


def missing_files(folder: Path) -> list[str]:
    """The names of the packed files that are not in `folder`.

    Args:
        folder: to look in.

    Returns:
        Names in order; all four where there is no packed data at all.
    """
    return [name for name in (LABELS, *PARTS) if not (folder / name).exists()]


def read_packed(folder: Path, release: Release) -> np.ndarray:
    """All records of the packed files, uint8 (60000, 3073), in the order of the binary files.

    Args:
        folder: of the four files.
        release: what they must hold.

    Returns:
        The records.

    Raises:
        UserError: if a file is missing, is damaged or holds another number of images.
    """
    if missing := missing_files(folder):
        raise UserError(
            f"{folder} must hold all four packed files of CIFAR-10, but lacks {', '.join(missing)}; copy them there"
        )
    records = release.empty_records()
    part_images, rest = divmod(len(records), len(PARTS))
    if rest:
        raise UserError(f"packed images must fill {len(PARTS)} equal parts, but there are {len(records)}")
    with ThreadPoolExecutor() as pool:
        label = pool.submit(_unpack, folder / LABELS, len(records))
        packed = [pool.submit(_unpack, folder / name, part_images * (SIDE * SIDE * 3)) for name in PARTS]
        tasks = []
        for number, part in enumerate(packed):
            residual = part.result().reshape(3, part_images, SIDE, SIDE)
            for start in range(0, part_images, IMAGES_AT_ONCE):
                some = residual[:, start : start + IMAGES_AT_ONCE]
                first = number * part_images + start
                tasks.append(pool.submit(_decode_into, records[first : first + some.shape[1], 1:], some))
        records[:, 0] = label.result()
        for task in tasks:
            task.result()
    check_labels(records, folder / LABELS, release)
    return records


def _unpack(path: Path, size: int) -> np.ndarray:
    """The content of an xz file that must have `size` bytes. Never takes more memory than that."""
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ)
    try:
        content = decompressor.decompress(path.read_bytes(), max_length=size)
        # What remains is the end of the stream, where its checksum is.
        surplus = b"" if decompressor.eof else decompressor.decompress(b"", max_length=1)
    except (lzma.LZMAError, EOFError) as error:
        raise UserError(f"{path} must be an xz file, but is damaged ({one_line(error)}); copy it again") from None
    if len(content) != size or surplus or not decompressor.eof:
        found = "more" if surplus else "fewer or is cut short"
        raise UserError(f"{path} must hold {size:,} bytes, but holds {found}; copy it again")
    return np.frombuffer(content, np.uint8)


def _decode_into(pixels: np.ndarray, residual: np.ndarray) -> None:
    """Writes red, green and blue, uint8 (N, 3072), from what the predictor missed, uint8 (3, N, 32, 32)."""
    # The images come last, so that each operation below runs over neighbouring bytes.
    missed = np.ascontiguousarray(residual.transpose(0, 2, 3, 1)).astype(np.int16)
    green = _plane(missed[0], np.zeros_like(missed[0]))
    red, blue = (green + _plane(plane, green) for plane in missed[1:])
    channels = np.stack([red, green, blue]).astype(np.uint8)
    pixels[:] = channels.reshape(-1, channels.shape[-1]).T


def _plane(missed: np.ndarray, base: np.ndarray) -> np.ndarray:
    """The difference of a channel to `base`, (32, 32, N) int16; both together are within 0..255."""
    plane = np.empty_like(missed)
    for row in range(SIDE):
        for column in range(SIDE):
            if row and column:
                left, upper = plane[row, column - 1], plane[row - 1, column]
                low, high = np.minimum(left, upper), np.maximum(left, upper)
                guess = np.clip(left + upper - plane[row - 1, column - 1], low, high)
            elif row or column:
                guess = plane[row - 1, column] if row else plane[row, column - 1]
            else:
                guess = np.zeros_like(missed[0, 0])
            here = base[row, column]
            plane[row, column] = ((here + guess + missed[row, column]) & 255) - here
    return plane
