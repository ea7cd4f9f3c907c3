"""Archives of what `accelerator.py` leaves: ``result.tar``, and ``result-2.tar`` and so on, each under 16 MB."""

import contextlib
import io
import math
import re
import shutil
import tarfile
from pathlib import Path

from jaxnorm import files
from jaxnorm.study.runs.manifest import MANIFEST

MOST_BYTES = 15_500_000
FACTS = ("machine.json", "correctness.json", "speed.json")
FINISHED = ("complete", "diverged")


Entry = tuple[tarfile.TarInfo, bytes]


def pack(out: Path) -> list[Path]:
    """Writes the archives anew: facts, plan and finished runs; and the unfinished ones with their newest checkpoint.

    A reader always finds complete archives. A run that changes while it is read is left out; it is in the next ones.

    Args:
        out: the command's folder.

    Returns:
        The archives.

    Raises:
        OSError: if the disk does not accept them; the earlier ones remain.
    """
    facts = [out / name for name in (*FACTS, "runs/study.json") if (out / name).exists()]
    archives: list[list[Entry]] = [[_entry(path, out) for path in facts]]
    folders = [path.parent for path in out.glob("runs/*/config.json")]
    for folder in sorted(folders, key=_end):
        with contextlib.suppress(FileNotFoundError):
            entries = [_entry(path, out) for path in _files_of(folder)]
            if _size(archives[-1]) + _size(entries) > MOST_BYTES:
                archives.append([])
            archives[-1] += entries
    written = [_write(out, number, entries) for number, entries in enumerate(archives, 1)]
    for old in set(_archives(out)) - set(written):
        old.unlink()
    return written


def unpack(out: Path) -> bool:
    """Unpacks the archives in a folder that holds nothing else of them yet.

    Args:
        out: the command's folder.

    Returns:
        Whether there was something to unpack.

    Raises:
        UserError: if an archive is damaged; nothing is unpacked then.
    """
    archives = _archives(out)
    if not archives or (out / "runs").exists():
        return False
    unpacked = out / ".unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)  # of a process that was killed
    (unpacked / "runs").mkdir(parents=True)
    for archive in archives:
        with files.reading(archive), tarfile.open(archive) as tar:
            tar.extractall(unpacked, filter="data")
    for name in (*FACTS, "runs"):  # the runs last: where they are, all is unpacked
        if (unpacked / name).exists():
            (unpacked / name).replace(out / name)
    shutil.rmtree(unpacked)
    return True


def _archives(out: Path) -> list[Path]:
    return sorted(path for path in out.glob("result*.tar") if re.fullmatch(r"result(-[0-9]+)?[.]tar", path.name))


def _end(folder: Path) -> tuple[float, str]:
    """When a run ended; unfinished runs come last. So an archive that is full remains as it is."""
    try:
        return ((folder / "result.json").stat().st_mtime, folder.name)
    except FileNotFoundError:
        return (math.inf, folder.name)


def _files_of(folder: Path) -> list[Path]:
    every = sorted(path for path in folder.rglob("[!.]*") if path.is_file())
    found = [path for path in every if path.relative_to(folder).parts[0] != "checkpoints"]
    found.sort(key=lambda path: path.name != MANIFEST)  # the manifest first, as it is written last
    if (files.read_json(folder / "result.json") or {}).get("status") not in FINISHED:
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
