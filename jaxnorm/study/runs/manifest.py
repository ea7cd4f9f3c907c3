"""What proves a folder's files: JSON that contains its own SHA-256, and a manifest with the hashes of the others."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from jaxnorm import files
from jaxnorm.errors import UserError
from jaxnorm.study.compact_json import compact_json

MANIFEST, SEAL = "manifest.json", "sha256"
METRICS = "metrics.jsonl"
MOST_BYTES = 2**31
"""A file of a run is smaller than this."""
Entry = dict[str, Any]
"""Of a file: ``bytes`` and ``sha256``."""
Found = TypeVar("Found")


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Content with the SHA-256 of itself as its last entry.

    Args:
        content: JSON values.

    Returns:
        JSON values for a file that `read_sealed` reads.
    """
    return {**content, SEAL: _seal_of(content)}


def read_sealed(path: Path) -> dict[str, Any] | None:
    """The content of a file of `sealed`.

    Args:
        path: the file.

    Returns:
        The content, without the SHA-256; None if there is no such file.

    Raises:
        UserError: if the file is damaged.
    """
    content = files.read_json(path)
    with files.reading(path):
        if content is not None and content.pop(SEAL, None) != _seal_of(content):
            raise ValueError("its content does not match the SHA-256 in it")
    return content


@dataclasses.dataclass
class Manifest:
    """The files of a run, as ``manifest.json`` in its directory knows them, or those of a publication.

    It is written after the files: what it does not name does not count. Of ``metrics.jsonl``, which grows, it knows
    the beginning that counts.

    Attributes:
        folder: the directory.
        run: the run: its name and a number of its own, such as ``bn-seed0/5f2c90aa``.
        files: size and SHA-256 of each file, by name.
        before: what a file may still be that was about to be replaced; None for no file.
        is_saved: whether the run has had a checkpoint.
    """

    folder: Path
    run: str
    files: dict[str, Entry] = dataclasses.field(default_factory=dict)
    before: dict[str, Entry | None] = dataclasses.field(default_factory=dict)
    is_saved: bool = False

    def __post_init__(self) -> None:
        """Checks what a damaged file could hold.

        Raises:
            ValueError: naming the entry that cannot be.
        """
        for name, one in [*self.files.items(), *((name, one) for name, one in self.before.items() if one is not None)]:
            if type(one["bytes"]) is not int or not 0 <= one["bytes"] < MOST_BYTES or type(one["sha256"]) is not str:
                raise ValueError(f"its entry of {name} is none")
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise ValueError(f"it names {name}, which is elsewhere")
        if type(self.run) is not str:
            raise ValueError("its run is no name")

    @classmethod
    def read(cls, folder: Path) -> "Manifest | None":
        """The manifest of a run.

        Args:
            folder: the run's directory.

        Returns:
            The manifest; None for a run that has not begun.

        Raises:
            UserError: if it is damaged, of another run, or gone.
        """
        path = folder / MANIFEST
        content = read_sealed(path)
        if content is None:
            others = sorted(child.name for child in folder.glob("*") if not child.name.startswith("."))
            if others:
                raise UserError(
                    f"{path} must prove the other files there ({others[0]!r}), but there is none; restore it, or "
                    f"delete the folder {folder} to train this run again"
                )
            return None
        with files.reading(path):
            found = cls(folder, **content)
            if found.run.partition("/")[0] != folder.name:
                raise ValueError(f"it is of the run {found.run.partition('/')[0]}")
        return found

    def write(self) -> None:
        """Writes ``manifest.json``. From then on what it names counts."""
        content = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)[1:]}
        files.write_text(self.folder / MANIFEST, compact_json(sealed(content)))

    def add(self, name: str) -> None:
        """Names a file as it is now.

        Args:
            name: path below the folder.
        """
        self.files[name] = entry(files.read_bytes(self.folder / name))

    def replace(self, contents: Mapping[str, bytes]) -> None:
        """Writes files that belong together, so that at each moment each is the old or the new one, and is known.

        Args:
            contents: by name.
        """
        self.before = {name: self._now(name) for name in contents}
        self.files |= {name: entry(content) for name, content in contents.items()}
        self.write()
        for name, content in contents.items():
            files.write_bytes(self.folder / name, content)
        self.before = {}
        self.write()

    def keep(self, names: Collection[str], lines: bytes) -> None:
        """Leaves out all files but some, and later lines of ``metrics.jsonl``, which it shortens.

        Args:
            names: of the files that are kept.
            lines: of ``metrics.jsonl``, from its beginning.
        """
        self.files = {name: known for name, known in self.files.items() if name in names}
        self.files[METRICS] = entry(lines)
        self.write()
        files.write_bytes(self.folder / METRICS, lines)

    def content(self, name: str) -> bytes:
        """The content of a file; of ``metrics.jsonl``, the lines that count.

        Args:
            name: path below the folder.

        Returns:
            The content.

        Raises:
            UserError: if the file is gone or another one.
        """
        path, known = self.folder / name, [self.files.get(name), self.before.get(name)]
        most = max((each["bytes"] for each in known if each is not None), default=None)
        if most is None:
            raise self._damage(name, "it is not named there")
        try:
            content = files.read_bytes(path, most + 1)
        except OSError as error:
            gone = isinstance(error, FileNotFoundError)
            raise self._damage(name, "is gone" if gone else f"cannot be read ({error.strerror})") from None
        if name == METRICS:
            content = content[:most]
        if entry(content) not in known:
            raise self._damage(name, "is not the file that was written")
        return content

    def json(self, name: str) -> dict[str, Any] | None:
        """The object in a file.

        Args:
            name: path below the folder.

        Returns:
            The object; None if there is no such file and need not be.

        Raises:
            UserError: as for `content`.
        """
        return None if self._is_absent(name) else files.json_object(self.content(name), self.folder / name)

    def lines(self) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl``.

        Returns:
            The objects in them; none if there is no such file.

        Raises:
            UserError: as for `content`.
        """
        lines = [] if self._is_absent(METRICS) else self.content(METRICS).splitlines()
        return [files.json_object(line, self.folder / METRICS) for line in lines]

    def check(self) -> None:
        """Compares every file with its SHA-256.

        Raises:
            UserError: naming the first that is gone or another one.
        """
        for name in self.files:
            self._now(name)

    def _now(self, name: str) -> Entry | None:
        return None if self._is_absent(name) else entry(self.content(name))

    def _is_absent(self, name: str) -> bool:
        """Whether there is no such file, and need not be: it was about to be written, or is empty."""
        may_be = name not in self.files or self.before.get(name, {}) is None or not self.files[name]["bytes"]
        return may_be and not (name in self.files and (self.folder / name).exists())

    def _damage(self, name: str, words: str) -> UserError:
        return UserError(
            f"{self.folder / name} must be as {MANIFEST} beside it says, but {words}; restore it from a copy, or "
            f"delete the folder {self.folder} to train this run again"
        )


def settled(folder: Path, look: Callable[[Manifest | None], Found]) -> Found:
    """What a look at a run's files finds; if a driver writes them meanwhile, another look is taken.

    Args:
        folder: the run's directory.
        look: is given the manifest.

    Returns:
        What `look` has returned.

    Raises:
        UserError: if a file is damaged.
    """
    while True:
        manifest = Manifest.read(folder)
        try:
            return look(manifest)
        except UserError:
            if Manifest.read(folder) == manifest:
                raise


def entry(content: bytes) -> Entry:
    """What a manifest knows of a file.

    Args:
        content: of the file.

    Returns:
        Its size in bytes and its SHA-256.
    """
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _seal_of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
