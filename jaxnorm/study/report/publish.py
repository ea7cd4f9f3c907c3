"""A study's folder as it is published: all runs in a few compact files, and the report; no checkpoints."""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jaxnorm import files
from jaxnorm.errors import UserError
from jaxnorm.study import home
from jaxnorm.study.report import folders
from jaxnorm.study.report.frames import Study, read_study
from jaxnorm.study.report.write import write_parts

MADE = ("summary.csv", "summary.json", "report.md", "report.html", "figures")
PARTS = ("study.json", folders.RUNS, folders.EPOCHS, folders.PREDICTIONS, folders.ARRAYS, *MADE)
"""All that a publication holds; the page is made by ``python -m jaxnorm report``."""
OUTCOMES = ("complete", "diverged", "crashed")


@dataclass(frozen=True)
class Publication:
    """What `publish` made: the runs that the folder holds, those that are not finished, and the size of all files."""

    published: tuple[str, ...]
    left_out: tuple[str, ...]
    num_bytes: int


def publish(workdir: Path, folder: Path) -> Publication:
    """Writes the finished runs of a study's folder to `folder` in compact form, with the report made from there.

    As small as the same tables and figures allow: of test logits only what the tables read, of histograms those that
    are drawn. Reads only in `workdir`, so that another process may train there. `folder` appears, or replaces an
    earlier publication of the same study, by one rename: it is never half-written.

    Raises:
        UserError: if `workdir` is no workdir or has no finished run, or if `folder` holds anything else, or runs that
            would be lost.
    """
    study = read_study(workdir)
    earlier = _earlier(workdir, folder, study)
    finished = study.runs.status.isin(OUTCOMES)
    names, others = study.runs.name[finished].tolist(), study.runs[~finished]
    if not names:
        raise UserError(f"a publication needs a finished run, but {workdir} has none; let the study go on first")
    if lost := [name for name in earlier if name not in names]:
        raise UserError(
            f"{folder} must be published again from a workdir with all that it holds, but {workdir} lacks finished "
            f"runs of {', '.join(lost)}; choose another folder or delete that one"
        )
    left_out = {one.name: int(one.epoch) for one in others.fillna({"epoch": 0}).itertuples() if one.status != "missing"}
    own = [{name: run[name] for name in run if run[name] != study.recipe.get(name, ...)} for run in study.plan["runs"]]
    plan = study.plan | {"runs": own, "published": True} | ({"left_out": left_out} if left_out else {})
    with _writable(folder):
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        place = tempfile.TemporaryDirectory(dir=folder.absolute().parent, prefix=".publish.")
    with place as made:
        part, objects = Path(made) / "new", folders.read_objects(workdir, names)
        part.mkdir()
        layers = [*study.layers.layer.drop_duplicates()[-2:], "pooled"]  # the last convolution is before the pooled
        epochs = folders.read_epochs(workdir, names, study.percentages)
        folders.write_runs(part, workdir, objects, epochs, histograms=layers)
        files.write_text(part / "study.json", folders.compact(home.hidden(plan)))
        if folders.read_objects(workdir, names) != objects:
            raise UserError(f"a run of {workdir} began again while it was published; publish it again later")
        write_parts(read_study(part), part, web_page=False)
        with contextlib.suppress(FileNotFoundError):
            folder.rename(Path(made) / "old")
        part.rename(folder)
    num_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Publication(tuple(names), tuple(others.name), num_bytes)


@contextlib.contextmanager
def _writable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"a publication must be where one can write, but {str(folder)[:80]} cannot be written "
            f"({error.strerror or error}); choose another folder"
        ) from None


def _earlier(workdir: Path, folder: Path, study: Study) -> list[str]:
    """The finished runs of an earlier publication of the study in `folder`; none where it is new or empty."""
    places = workdir.resolve(), folder.resolve()
    if places[0].is_relative_to(places[1]) or places[1].is_relative_to(places[0]):
        raise UserError(
            f"a publication must be beside its workdir, but one of {folder} and {workdir} is within the other; choose "
            "another folder"
        )
    with _writable(folder):
        for place in (folder, *folder.absolute().parents):
            if not place.is_dir() and (place.exists() or place.is_symlink()):
                kind = "a file" if place.exists() else "a link to nothing"
                raise UserError(f"a publication must be a folder in a folder, but {place} is {kind}; choose another")
    found = {path.name for path in folder.glob("*")}
    if others := sorted(found - set(PARTS)):
        raise UserError(
            f"the folder of a publication must be new, empty or an earlier publication of the study, but {folder} "
            f"holds other files ({others[0]!r}); choose another folder"
        )
    if not found:
        return []
    before = read_study(folder)
    old, new = ({"study": one.name, **one.recipe} for one in (before, study))
    differences = [f"{name}: {old[name]} -> {new[name]}" for name in old if name in new and old[name] != new[name]]
    if differences:
        raise UserError(
            f"{folder} holds the publication of another study ({'; '.join(differences)}); choose another folder"
        )
    return before.runs.name[before.runs.status.isin(OUTCOMES)].tolist()
