"""A study's folder as it is published: what its finished runs wrote, and the report; no checkpoints."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxnorm import files
from jaxnorm.errors import UserError
from jaxnorm.study import home
from jaxnorm.study.analysis.arrays import PACKED, find_arrays, pack_arrays
from jaxnorm.study.analysis.figures import figure_names
from jaxnorm.study.analysis.layers import POOLED, last_convolution
from jaxnorm.study.analysis.predictions import read_predictions, write_predictions
from jaxnorm.study.analysis.report import write_report
from jaxnorm.study.analysis.runs import Study, read_study
from jaxnorm.study.runs.lock import LOCK

OF_A_RUN = ("config.json", "provenance.json", "metrics.jsonl", "predictions.npz", "result.json")
"""With the arrays of its epochs, all that the report reads of a run."""
OUTCOMES = ("complete", "diverged", "crashed")


@dataclass(frozen=True)
class Publication:
    """What came of it.

    Attributes:
        published: names of the runs that the folder holds.
        left_out: names of those that are not finished.
        num_bytes: of all files in the folder.
    """

    published: tuple[str, ...]
    left_out: tuple[str, ...]
    num_bytes: int


def publish(workdir: Path, folder: Path) -> Publication:
    """Copies the finished runs of a study's folder to `folder`, and rebuilds the report there from the copy.

    As small as the same tables and figures allow: of test logits only what the tables read, of histograms those that
    are drawn, the arrays of a run's epochs in one file, and figures beside the page as PNG alone.

    Only reads in `workdir`, so that another process may go on training there. An earlier publication of the same study
    is replaced file by file; what else lies beside it stays.

    Args:
        workdir: the folder that a driver of experiments/ has filled.
        folder: a new or empty one, or an earlier publication of the same study.

    Raises:
        UserError: if `workdir` is no workdir or has no finished run, or if `folder` holds anything else, or runs that
            would be lost.
    """
    study = read_study(workdir)
    _check_apart(workdir, folder)
    earlier = _earlier(folder, study)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        place = tempfile.TemporaryDirectory(dir=folder, prefix=".publish.")  # on the disk on which its files shall lie
    except OSError as error:
        raise UserError(
            f"a publication must lie where one can write, but {folder} cannot be written ({error.strerror or error}); "
            "choose another folder"
        ) from None
    with _leaving_no_empty(folder), place as made:
        part = Path(made)
        drawn = (POOLED, last_convolution(study))
        finished = [run.name for run in study.runs if run.status in OUTCOMES]
        published = [name for name in finished if _copy_run(workdir / name, part / name, drawn)]
        if not published:
            raise UserError(f"a publication needs a finished run, but {workdir} has none; let the study go on first")
        lost = [name for name in earlier if name not in published]
        if lost:
            raise UserError(
                f"{folder} must be published again from a workdir with all that it holds, but {workdir} lacks finished "
                f"runs of {', '.join(lost)}; choose another folder or delete that one"
            )
        left_out = {run.name: run.epoch for run in study.runs if run.name not in published and run.status != "missing"}
        plan = json.loads((workdir / "study.json").read_text(encoding="utf-8"))
        plan |= {"published": True} | ({"left_out": left_out} if left_out else {})
        files.write_json(part / "study.json", home.hidden(plan))
        write_report(part)
        for figure in part.glob("figures/*.svg"):  # the page has them, too
            figure.unlink()
        _move(part, folder)
    return Publication(
        tuple(published),
        tuple(run.name for run in study.runs if run.name not in published),
        sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
    )


def _check_apart(workdir: Path, folder: Path) -> None:
    places = workdir.resolve(), folder.resolve()
    if places[0].is_relative_to(places[1]) or places[1].is_relative_to(places[0]):
        raise UserError(
            f"a publication must lie beside its workdir, but {folder} and {workdir} lie within each other; choose "
            "another folder"
        )
    for place in (folder, *folder.absolute().parents):
        try:
            blocked = not place.is_dir() and (place.exists() or place.is_symlink())
        except OSError as error:  # such as a name that is too long
            raise UserError(
                f"the folder of a publication must have a usable name, but {str(folder)[:80]!r} has not "
                f"({error.strerror}); choose another folder"
            ) from None
        if blocked:
            kind = "a file" if place.exists() else "a link to nothing"
            raise UserError(f"a publication must be a folder in a folder, but {place} is {kind}; choose another folder")


@contextlib.contextmanager
def _leaving_no_empty(folder: Path) -> Iterator[None]:
    """Within it, an error takes a folder away again that was new and has nothing in it."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            folder.rmdir()
        raise


def _earlier(folder: Path, study: Study) -> list[str]:
    """The runs of an earlier publication of the study in `folder`; none where it is new or empty."""
    others = sorted(path.name for path in folder.glob("*") if not path.name.startswith("."))
    if not others:
        return []
    if "study.json" not in others:
        raise UserError(
            f"the folder of a publication must be new, empty or an earlier publication of the study, but {folder} "
            f"holds other files ({others[0]!r}); choose another folder"
        )
    if (folder / LOCK).exists() or any(folder.glob("*/checkpoints")):
        raise UserError(f"{folder} must be a publication, but is a workdir with checkpoints; choose another folder")
    before = read_study(folder)
    differences = [] if before.name == study.name else [f"study: {before.name} -> {study.name}"]
    differences += [
        f"{name}: {value} -> {study.recipe[name]}"
        for name, value in before.recipe.items()
        if name in study.recipe and study.recipe[name] != value
    ]
    if differences:
        raise UserError(
            f"{folder} holds the publication of another study ({'; '.join(differences)}); choose another folder"
        )
    return [run.name for run in before.runs if run.status in OUTCOMES]


def _copy_run(source: Path, target: Path, drawn: Collection[str | None]) -> bool:
    """Copies what a run wrote, and says whether it was finished all the while: a process may take it up again.

    Histograms are kept of the layers of which the report draws them.
    """
    target.mkdir()
    try:
        outcome = (source / "result.json").read_bytes()
        for file in OF_A_RUN:
            if (source / file).exists():
                _copy(source / file, target / file)
        if arrays := find_arrays(source):
            pack_arrays(arrays, target / PACKED, histograms=drawn)
        whole = (source / "result.json").read_bytes() == outcome
    except FileNotFoundError:
        whole = False
    if not whole:
        shutil.rmtree(target)
    return whole


def _copy(source: Path, target: Path) -> None:
    """A copy with the same bytes, unless they name the home directory; of logits only what the tables need."""
    if target.name == "predictions.npz" and (predictions := read_predictions(source)) is not None:
        write_predictions(target, predictions)
        return
    shutil.copyfile(source, target)
    if target.suffix == ".json":
        with files.reading(source):
            found: Any = json.loads(target.read_text(encoding="utf-8"))
        if (shown := home.hidden(found)) != found:
            files.write_json(target, shown)


def _move(part: Path, folder: Path) -> None:
    """Puts the new files in the place of the old ones; figures and arrays that are no longer made go."""
    made = {path.relative_to(part) for path in part.rglob("*") if path.is_file()}
    stale: Iterable[Path] = [Path("figures") / f"{name}.{form}" for name in figure_names() for form in ("png", "svg")]
    runs = {path.parent for path in made if path.name == "result.json"}
    stale = [*stale, *(path.relative_to(folder) for run in runs for path in (folder / run).glob("arrays/epoch_*.npz"))]
    stale += [run / file for run in runs for file in (*OF_A_RUN, PACKED)]
    for path in sorted(made, key=lambda path: (path.name != "study.json", path)):  # by which the next one knows it
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (part / path).replace(folder / path)
    for path in set(stale) - made:
        (folder / path).unlink(missing_ok=True)
