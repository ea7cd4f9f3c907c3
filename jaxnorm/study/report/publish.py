"""A study's folder as it is published: all runs in a few compact files, and the report; no checkpoints."""

import contextlib
import json
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jaxnorm import files
from jaxnorm.errors import UserError
from jaxnorm.study import home
from jaxnorm.study.report.folders import ARRAYS, EPOCHS, OBJECTS, PREDICTED, PREDICTIONS, RUNS, Folder, read_study
from jaxnorm.study.report.frames import POOLED, Study
from jaxnorm.study.report.write import write_report
from jaxnorm.study.words import counted

MADE = ("summary.csv", "summary.json", "report.md", "report.html", "figures")
PARTS = ("study.json", RUNS, EPOCHS, PREDICTIONS, ARRAYS, *MADE)
"""All that a publication holds; the page is made by ``python -m jaxnorm report``."""
OUTCOMES = ("complete", "diverged", "crashed")


def publish(workdir: Path, folder: Path) -> Study:
    """Writes the finished runs of a study's folder to `folder` in compact form, with the report made from there.

    Of test logits it has only what the tables read, of histograms the last layers'. `workdir` is only read: another
    process may train there. `folder` appears, or replaces an earlier publication, by one rename: never half-written.

    Args:
        workdir: the folder that a driver wrote.
        folder: where to: a new folder, or an earlier publication of the study.

    Returns:
        The study as published; its runs that are not finished were left out.

    Raises:
        UserError: if `workdir` has no finished run, or `folder` holds anything else, or runs that would be lost.
    """
    study = read_study(workdir)
    earlier = _earlier(workdir, folder, study)
    finished = study.runs.status.isin(OUTCOMES)
    names, others = study.runs.name[finished].tolist(), study.runs[~finished]
    if not names:
        raise UserError(f"a publication needs a finished run, but {workdir} has none; let the study go on first")
    if lost := [name for name in earlier if name not in names]:
        raise UserError(
            f"{folder} must be published again from a workdir with all that it holds, but {workdir} lacks "
            f"{counted(len(lost), 'finished run')}, the first is {lost[0]}; choose another folder or delete that one"
        )
    left_out = {one.name: int(one.epoch) for one in others.fillna({"epoch": 0}).itertuples() if one.status != "missing"}
    own = [{name: run[name] for name in run if run[name] != study.recipe.get(name, ...)} for run in study.plan["runs"]]
    plan = study.plan | {"runs": own, "published": True} | ({"left_out": left_out} if left_out else {})
    with _writable(folder):
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        place = tempfile.TemporaryDirectory(dir=folder.absolute().parent, prefix=".publish.")
    with place as made:
        part, source = Path(made) / "new", Folder(workdir)
        part.mkdir()
        layers = [*study.layers.layer.drop_duplicates()[-2:], POOLED]  # the last convolution is before the pooled
        objects, epochs = source.objects(names), source.epochs(names, study.quantiles)
        _write_runs(part, source, objects, epochs, histograms=layers)
        files.write_text(part / "study.json", files.compact_json(home.hidden(plan)))
        if source.objects(names) != objects:
            raise UserError(f"a run of {workdir} began again while it was published; publish it again later")
        write_report(part, web_page=False)
        with contextlib.suppress(FileNotFoundError):
            folder.rename(Path(made) / "old")
        part.rename(folder)
    return read_study(folder)


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
    source, target, choose = workdir.resolve(), folder.resolve(), "choose another folder"
    if source.is_relative_to(target) or target.is_relative_to(source):
        raise UserError(
            f"a publication must be beside its workdir, but one of {folder} and {workdir} is within the other; {choose}"
        )
    with _writable(folder):
        for place in (folder, *folder.absolute().parents):
            if not place.is_dir() and (place.exists() or place.is_symlink()):
                kind = "a file" if place.exists() else "a link to nothing"
                raise UserError(f"a publication must be a folder in a folder, but {place} is {kind}; choose another")
    found = {path.name for path in folder.glob("*")}
    if others := sorted(found - set(PARTS)):
        raise UserError(
            f"a publication must be new, empty or an earlier one of the study, but {folder} holds other files "
            f"({others[0]!r}); {choose}"
        )
    if not found:
        return []
    before = read_study(folder)
    old, new = ({"study": one.name, **one.recipe} for one in (before, study))
    differences = [f"{name}: {old[name]} -> {new[name]}" for name in old if name in new and old[name] != new[name]]
    if differences:
        raise UserError(f"{folder} holds the publication of another study ({'; '.join(differences)}); {choose}")
    return before.runs.name[before.runs.status.isin(OUTCOMES)].tolist()


def _write_runs(
    folder: Path, source: Folder, objects: Mapping[str, Any], epochs: pd.DataFrame, *, histograms: Collection[str]
) -> None:
    """Writes the four files of a publication; of histograms, those of the layers named."""
    objects = home.hidden(objects)
    shared = {}
    for name in OBJECTS:
        texts = [{(key, files.json_line(value)) for key, value in found[name].items()} for found in objects.values()]
        shared[name] = {key: json.loads(text) for key, text in sorted(set.intersection(*texts))}
    own = {
        run: {name: {key: one for key, one in found[name].items() if key not in shared[name]} for name in OBJECTS}
        for run, found in objects.items()
    }
    files.write_text(folder / RUNS, files.compact_json({"shared": shared, "runs": own}))
    files.write_text(folder / EPOCHS, epochs.to_csv(index=False, lineterminator="\n"))
    answers = {run: found for run in objects if (found := source.predictions(run)) is not None}
    if answers:
        stacked = {name: np.stack([found[name].to_numpy() for found in answers.values()]) for name in PREDICTED}
        _save(folder / PREDICTIONS, {"run": np.array(list(answers)), **stacked})
    packed: dict[str, np.ndarray] = {}
    for run in objects:
        for kind, layers in (("gate", None), ("quantiles", None), ("histogram", histograms)):
            found = source.arrays(run, kind, layers)
            common = sorted(set.intersection(*map(set, found.values()))) if found else []
            packed |= {f"{run}/epochs/{kind}": np.array(common, np.int32)} if common else {}
            packed |= {f"{run}/{kind}/{layer}": np.stack([one[e] for e in common]) for layer, one in found.items()}
    if packed:
        _save(folder / ARRAYS, packed)


def _save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with files.replacing(path) as part, part.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
