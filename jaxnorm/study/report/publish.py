"""A study's folder as it is published: all runs in a few compact files, and the report; no checkpoints."""

import contextlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from jaxnorm import files
from jaxnorm.errors import UserError
from jaxnorm.study import home
from jaxnorm.study.compact_json import compact_json, json_line
from jaxnorm.study.config import completed
from jaxnorm.study.report.folders import ARRAYS, EPOCHS, KINDS, OBJECTS, PREDICTED, RUNS, Folder, read_study
from jaxnorm.study.report.frames import POOLED, Study
from jaxnorm.study.report.write import writable, write_report
from jaxnorm.study.runs.agreement import PREDICTIONS
from jaxnorm.study.runs.manifest import Manifest, entry, sealed
from jaxnorm.study.words import counted
from jaxnorm.temporary import abandoned, temporary

PARTS = ("study.json", RUNS, EPOCHS, PREDICTIONS, ARRAYS)
MADE = ("summary.csv", "summary.json", "report.md", "report.html", "figures")
"""All that a publication holds; the page is made by ``python -m jaxnorm report``."""
OLD = "old"
OUTCOMES = ("complete", "diverged", "crashed")


def publish(workdir: Path, folder: Path) -> Study:
    """Writes the finished runs of a `workdir` to `folder` in compact form, with the report made from there.

    Of test logits it has only what the tables read, of histograms the last layers'. `workdir` is only read: another
    process may train there. `folder`, a new one or an earlier publication of the study, appears by one rename: never
    half-written. The next call removes what a killed one has left beside it. Returns the study as published; runs that
    are not finished are left out. A `UserError` says if there is no finished run, or `folder` holds anything else, or
    runs that would be lost.
    """
    study = read_study(workdir)
    finished = study.runs.status.isin(OUTCOMES)
    names, others = study.runs.name[finished].tolist(), study.runs[~finished]
    if not names:
        raise UserError(f"a publication needs a finished run, but {workdir} has none; let the study go on first")
    left_out = {one.name: int(one.epoch) for one in others.fillna({"epoch": 0}).itertuples() if one.status != "missing"}
    own = [{name: run[name] for name in run if run[name] != study.recipe.get(name, ...)} for run in study.plan["runs"]]
    plan = study.plan | {"runs": own, "published": True} | ({"left_out": left_out} if left_out else {})
    place = folder.absolute().parent / "publish"
    with contextlib.ExitStack() as stack:
        with writable(folder):
            _bring_back(place)
            _check_place(workdir, folder, study, names)
            files.make_folder(place.parent)
            made = stack.enter_context(temporary(place, is_folder=True))
        part, source = made / "new", Folder.of(workdir, study.plan)
        part.mkdir()
        layers = [*study.layers.layer.drop_duplicates()[-2:], POOLED]  # the last convolution is before the pooled
        before = {name: Manifest.read(workdir / name) for name in names}
        parts = _write_runs(part, source, study, names, histograms=layers)
        plan["files"] = {name: entry(files.read_bytes(part / name)) for name in parts}
        files.write_text(part / "study.json", compact_json(sealed(home.published(plan))))
        if {name: Manifest.read(workdir / name) for name in names} != before:
            raise UserError(f"a run of {workdir} began again while it was published; publish it again later")
        write_report(part, web_page=False)
        (made / OLD).mkdir()
        with contextlib.suppress(FileNotFoundError):
            folder.rename(made / OLD / folder.name)
        part.rename(folder)
        files.sync_folder(folder.absolute().parent)
    return read_study(folder)


def _bring_back(place: Path) -> None:
    """Gives earlier publications their place again if a process was killed just before the new one took it."""
    for old in (old for made in abandoned(place) for old in (made / OLD).glob("*")):
        if not (place.parent / old.name).exists():
            old.rename(place.parent / old.name)


def _check_place(workdir: Path, folder: Path, study: Study, names: Collection[str]) -> None:
    """Raises if `folder` is within `workdir`, or holds anything but an earlier publication with runs of those names."""
    source, target, choose = workdir.resolve(), folder.resolve(), "choose another folder"
    if source.is_relative_to(target) or target.is_relative_to(source):
        raise UserError(f"a publication is beside its workdir, but {folder} is within {workdir} or holds it; {choose}")
    found = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if others := sorted(found - {*PARTS, *MADE}):
        raise UserError(
            f"a publication must be new, empty or an earlier one of the study, but {folder} holds other files "
            f"({others[0]!r}); {choose}"
        )
    if not found:
        return
    before = read_study(folder)
    old, new = ({"study": one.name, **completed(one.recipe)} for one in (before, study))
    differences = [f"{name}: {old[name]} -> {new[name]}" for name in old if name in new and old[name] != new[name]]
    if differences:
        raise UserError(f"{folder} holds the publication of another study ({'; '.join(differences)}); {choose}")
    earlier = before.runs.name[before.runs.status.isin(OUTCOMES)]
    if len(lost := earlier[~earlier.isin(names)]):
        raise UserError(
            f"{folder} must be published again from a workdir with all that it holds, but {workdir} lacks "
            f"{counted(len(lost), 'finished run')}, the first is {lost.iloc[0]}; {choose} or delete that one"
        )


def _write_runs(
    folder: Path, source: Folder, study: Study, names: Sequence[str], *, histograms: Collection[str]
) -> list[str]:
    """Writes the files of a publication, and returns their names; of histograms, those of the layers named."""
    planned = {run["name"]: {**study.recipe, **run} for run in study.plan["runs"] if run["name"] in names}
    read = {name: source.read(run, study.quantiles) for name, run in planned.items()}
    objects = {name: {key: getattr(one[0], key) for key in OBJECTS} for name, one in read.items() if one is not None}
    objects = home.published(objects)
    shared = {}
    for name in OBJECTS:
        texts = [{(key, json_line(value)) for key, value in found[name].items()} for found in objects.values()]
        shared[name] = {key: json.loads(text) for key, text in sorted(set.intersection(*texts))}
    own = {
        run: {name: {key: one for key, one in found[name].items() if key not in shared[name]} for name in OBJECTS}
        for run, found in objects.items()
    }
    files.write_text(folder / RUNS, compact_json({"shared": shared, "runs": own}))
    epochs = pd.concat([one[1] for one in read.values() if one is not None], ignore_index=True)
    epochs = epochs[["run", *epochs.columns.drop("run")]]
    files.write_text(folder / EPOCHS, epochs.to_csv(index=False, lineterminator="\n"))
    answers = {run: source.predictions(run) for run, found in objects.items() if found["result"]["test"] is not None}
    if answers:
        stacked = {name: np.stack([found[name].to_numpy() for found in answers.values()]) for name in PREDICTED}
        _save(folder / PREDICTIONS, {"run": np.array(list(answers)), **stacked})
    packed: dict[str, np.ndarray] = {}
    for run in objects:
        for kind in KINDS:
            found = source.arrays(run, kind)
            if kind == "histogram":
                found = {layer: one for layer, one in found.items() if layer in histograms}
            common = sorted(set.intersection(*map(set, found.values()))) if found else []
            if common:
                packed[f"{run}/epochs/{kind}"] = np.array(common, np.int32)
                packed |= {f"{run}/{kind}/{layer}": np.stack([one[e] for e in common]) for layer, one in found.items()}
    if packed:
        _save(folder / ARRAYS, packed)
    return [RUNS, EPOCHS, *[PREDICTIONS] * bool(answers), *[ARRAYS] * bool(packed)]


def _save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with files.replacing(path) as part, part.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
