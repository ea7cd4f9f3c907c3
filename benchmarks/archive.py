"""Archives of what `accelerator.py` leaves: ``result.tar``, and ``result-2.tar`` and so on, each under 16 MB."""

import contextlib
import io
import tarfile
from pathlib import Path

from jaxnorm import files

MOST_BYTES = 15_500_000
FACTS = ("machine.json", "correctness.json", "speed.json")
RUN_FILES = ("config.json", "provenance.json", "metrics.jsonl", "result.json", "predictions.npz", "checkpoints.json")


Entry = tuple[tarfile.TarInfo, bytes]


def pack(out: Path) -> list[Path]:
    """Writes the archives anew: facts, plan and finished runs; and the unfinished ones with their newest checkpoint.

    A reader always finds complete archives. A run that changes while it is read is left out; it is in the next ones.

    Args:
        out: the command's folder.

    Returns:
        The archives.
    """
    packets = [[out / name for name in FACTS if (out / name).exists()] + list(out.glob("runs/study.json"))]
    packets += [
        _files_of(folder) for folder in sorted((path.parent for path in out.glob("runs/*/config.json")), key=_age)
    ]
    archives: list[list[Entry]] = [[]]
    for packet in packets:
        with contextlib.suppress(FileNotFoundError):
            entries = [_entry(path, out) for path in packet]
            if _size(archives[-1]) + _size(entries) > MOST_BYTES and archives[-1]:
                archives.append([])
            archives[-1] += entries
    return [_write(out, number, entries) for number, entries in enumerate(archives, 1)]


def unpack(out: Path) -> bool:
    """Unpacks the archives in a folder that holds nothing else of them yet.

    Args:
        out: the command's folder.

    Returns:
        Whether there was something to unpack.
    """
    archives = sorted(out.glob("result*.tar"))
    if not archives or (out / "runs").exists():
        return False
    for archive in archives:
        with files.reading(archive), tarfile.open(archive) as tar:
            tar.extractall(out, filter="data")
    return True


def _age(folder: Path) -> tuple[bool, float, str]:
    """Finished runs first, in the order in which they ended: an archive that is full remains as it is."""
    result = folder / "result.json"
    return (False, result.stat().st_mtime, folder.name) if result.exists() else (True, 0.0, folder.name)


def _files_of(folder: Path) -> list[Path]:
    found = [folder / name for name in RUN_FILES if (folder / name).exists()]
    found += sorted(folder.glob("arrays/*.npz"))
    if not (folder / "result.json").exists():
        for checkpoint in sorted(folder.glob("checkpoints/step_*"))[-1:]:
            found += sorted(path for path in checkpoint.rglob("*") if path.is_file())
    return found


def _entry(path: Path, out: Path) -> Entry:
    content = path.read_bytes()
    entry = tarfile.TarInfo(path.relative_to(out).as_posix())
    entry.size, entry.mtime = len(content), int(path.stat().st_mtime)
    return entry, content


def _size(entries: list[Entry]) -> int:
    return sum(len(content) + 1024 for _, content in entries)


def _write(out: Path, number: int, entries: list[Entry]) -> Path:
    archive = out / ("result.tar" if number == 1 else f"result-{number}.tar")
    with files.replacing(archive) as part, tarfile.open(part, "w") as tar:
        for entry, content in entries:
            tar.addfile(entry, io.BytesIO(content))
    return archive
