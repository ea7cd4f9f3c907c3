"""Decoded images on disk, so that a later start takes a second: one file per source, verified at every load.

The file: a line with the SHA-256 of all that follows, a line of JSON, then the images and the labels as raw bytes.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from shlex import quote

import numpy as np

from jaxnorm.files import cache_folder, replacing
from jaxnorm.study.streams import tell

FORMAT = 1
IMAGES_AT_ONCE = 1000
Key = list[list[str | int]]


@dataclasses.dataclass(frozen=True, eq=False)
class Decoded:
    """A data set before it is split.

    Attributes:
        image: uint8 (N, H, W, 3).
        label: uint8 (N,).
        fingerprint: that of `fingerprint_of`.
        source: one line: where the data was read from.
    """

    image: np.ndarray
    label: np.ndarray
    fingerprint: str
    source: str


def fingerprint_of(image: np.ndarray, label: np.ndarray) -> str:
    """SHA-256 of images as the records of CIFAR-10's binary files: label, red, green, blue, row by row.

    Args:
        image: uint8 (N, H, W, 3).
        label: uint8 (N,).

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for start in range(0, len(label), IMAGES_AT_ONCE):
        part = slice(start, start + IMAGES_AT_ONCE)
        planar = image[part].transpose(0, 3, 1, 2).reshape(len(label[part]), -1)
        digest.update(np.concatenate([label[part, None], planar], axis=1).data)
    return digest.hexdigest()


def cached(path: Path, files: Iterable[Path], decode: Callable[[], Decoded]) -> Decoded:
    """The decoded data of a source: from its cache file if `files` have not changed since, else from `decode`.

    What `decode` returns is stored in the cache file. A damaged cache file causes a warning and is replaced; one that
    cannot be written causes a warning.

    Args:
        path: the source, a file or a folder; it decides the cache file's name.
        files: the source's files; their names, sizes and modification times must be those in the cache file.
        decode: reads the source.

    Returns:
        The decoded data.
    """
    stats = [(file, file.stat()) for file in files]
    key: Key = [[os.fspath(file.resolve()), stat.st_size, stat.st_mtime_ns] for file, stat in stats]
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]
    cache = cache_folder() / f"decoded-{name}.cache"
    try:
        decoded = _load(cache, key)
    except FileNotFoundError:
        decoded = None
    except (OSError, ValueError, KeyError, TypeError) as error:
        tell(f"warning: the cache {cache} is discarded ({error}); {path} is decoded again")
        decoded = None
    if decoded is not None:
        return dataclasses.replace(decoded, source=f"{decoded.source}, decoded copy in {quote(str(cache.parent))}")
    decoded = decode()
    try:
        _store(cache, key, decoded)
    except OSError as error:
        tell(
            f"warning: {cache.parent} cannot be written ({error.strerror or error}), so every start decodes {path} "
            "again; set XDG_CACHE_HOME to a writable folder"
        )
    return decoded


def _load(cache: Path, key: Key) -> Decoded | None:
    """The cache's content, or None if it was made from other files.

    Raises:
        ValueError, KeyError, TypeError: if it is damaged.
    """
    with cache.open("rb") as file:
        digest, line = file.readline(65), file.readline(2**20)
        payload = np.fromfile(file, np.uint8)
    found = hashlib.sha256(line)
    found.update(payload.data)
    if digest.decode("ascii", "replace").strip() != found.hexdigest():
        raise ValueError("its SHA-256 is wrong")
    header = json.loads(line)
    if header["format"] != FORMAT or header["files"] != key:
        return None
    shape = tuple(header["image_shape"])
    image, label = np.split(payload, [int(np.prod(shape))])
    image = image.reshape(shape)
    if fingerprint_of(image, label) != header["fingerprint"]:  # the hash above says only that nothing changed since
        raise ValueError("its images do not have its fingerprint")
    return Decoded(image, label, header["fingerprint"], header["source"])


def _store(cache: Path, key: Key, decoded: Decoded) -> None:
    header = {
        "format": FORMAT,
        "files": key,
        "image_shape": decoded.image.shape,
        "fingerprint": decoded.fingerprint,
        "source": decoded.source,
    }
    line = json.dumps(header).encode() + b"\n"
    digest = hashlib.sha256(line)
    digest.update(decoded.image.data)
    digest.update(decoded.label.data)
    with replacing(cache) as part, part.open("wb") as file:
        file.write(digest.hexdigest().encode() + b"\n" + line)
        file.write(decoded.image.data)
        file.write(decoded.label.data)
