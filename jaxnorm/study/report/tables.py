"""The tables that every study has: results, paired differences, runs and learning rates."""

import textwrap
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from jaxnorm.study.config import REVISABLE
from jaxnorm.study.report import formats
from jaxnorm.study.report.formats import DASH, listed, number, percent, points, spread
from jaxnorm.study.report.frames import SPLITS, Study
from jaxnorm.study.report.page import Table
from jaxnorm.study.report.published import SOURCE, comparable, published_for
from jaxnorm.study.report.statistics import LEAST_SEEDS
from jaxnorm.study.words import counted, duration

Columns = Mapping[Any, "pd.Series[Any]"]
"""Texts by column, which is a title, or a pair of a shared heading and a title."""


def of_variants(study: Study, title: str, columns: Columns, note: str = "") -> Table | None:
    """A table with a `title`, a `note` and a row for each variant of a `study` that is in `columns`; None without rows.

    `columns` have texts by label, which is the first column.
    """
    norms = dict(zip(study.labels.values(), study.runs.drop_duplicates("variant").norm, strict=True))
    found = pd.DataFrame({name: column.rename(index=str) for name, column in columns.items()})
    kept = [label for label in norms if label in found.index]
    frame = pd.DataFrame({"Variant": pd.Series(kept, kept, dtype=object), **found}).reindex(kept).fillna(DASH)
    return Table(title, frame.set_axis([norms[label] for label in kept]), note) if kept else None


def texts(rows: pd.DataFrame, column: str, text: Callable[..., str], *args: Any) -> pd.Series:
    """By label: the `text` that a function gives of a variant's values in a `column` of `rows`, and of `args`."""
    return rows.groupby("label", observed=True)[column].agg(text, *args).astype(object)


def _mean(values: pd.Series, digits: int, scale: float = 1.0) -> str:
    return number(values.mean(), digits, scale)


def averaged(study: Study) -> str:
    """What a cell is where a variant of a `study` has several finished seeds: a note of every table of accuracies."""
    sizes = [size for size in study.finished.groupby("variant").size() if size > 1]
    kinds = {
        "± standard deviation" if size >= LEAST_SEEDS else "in brackets the lowest to the highest" for size in sizes
    }
    return f"Mean over the finished seeds, {listed(sorted(kinds))}. " if kinds else ""


def status(run: Any) -> str:
    """What happened to a `run`, a row of `Study.runs`, in words."""
    reached = f"{0 if pd.isna(run.epoch) else run.epoch} of {counted(run.num_epochs, 'epoch')}"
    return {
        "complete": f"complete, {reached}",
        "diverged": f"diverged at step {number(run.diverged_at_step)}, after {reached}",
        "crashed": f"crashed after {reached}: {textwrap.shorten(str(run.error or 'no reason recorded'), 200)}",
        "unfinished": f"unfinished, {reached}",
        "missing": "not started",
    }[run.status]


def whose_statistics(study: Study) -> str:
    """What the batch statistics of a `study` are taken over: a note of every table of results."""
    if study.runs.ghost_batch_size.notna().any():
        return "Batch statistics are of the whole batch, or of each ghost where runs have ghosts."
    replicas = study.runs.num_replicas.max()
    return (
        f"Batch statistics are of {'the whole batch' if replicas == 1 else f'each of {replicas} parts of the batch'}."
    )


def states(study: Study) -> pd.Series:
    """By label: what happened to all runs of a variant of a `study`, in a cell."""
    found = {}
    for label, runs in study.runs.groupby("label", observed=True):
        counts = runs.status.replace("missing", "planned").value_counts(sort=False)
        kinds = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        found[label] = f"{len(runs)} seeds" if list(counts.index) == ["complete"] else kinds
        if len(runs) == 1:
            epoch, planned, complete = runs.epoch.iloc[0], runs.num_epochs.iloc[0], counts.index[0] == "complete"
            found[label] = f"epoch {epoch} of {planned}" if complete and epoch < planned else counts.index[0]
    return pd.Series(found, dtype=object)


def results(study: Study) -> Table | None:
    """Final accuracies in a `study`, the original paper's beside them, and what happened to each variant."""
    places, known, finished = study.digits, published_for(study.recipe), study.finished.to_dict("records")
    train, validation, test = map(study.final, SPLITS)
    columns: dict[Any, pd.Series] = {
        ("Accuracy, %", "Test"): texts(test, "accuracy", spread, places, 100),
        ("Accuracy, %", "Validation"): texts(validation, "accuracy", _mean, places, 100),
        ("Accuracy, %", "Train"): texts(train, "accuracy", _mean, places, 100),
        ("On test", "Macro F1, %"): texts(test, "macro_f1", _mean, places, 100),
        ("On test", "Loss"): texts(test, "loss", _mean, 3),
    }
    note = averaged(study)
    if known:
        norms = study.runs.drop_duplicates("label").set_index("label").norm.rename(index=str)
        for split in ("test", "validation", "train"):
            values = {norm: percent(getattr(one, split)) for norm, one in known.items()}
            columns["Original paper, accuracy, %", split.capitalize()] = norms.map(values)
        note += f"The original paper is {SOURCE}: one seed each, with a standard error on test of 0.3 to 0.4 "
        note += "points from the images alone. "
        if finished and all(comparable(run, run["epoch"]) for run in finished):
            differences = test.accuracy - test.norm.map({norm: one.test for norm, one in known.items()})
            means = differences.groupby(test.label.astype(str)).mean()
            columns["Original paper, accuracy, %", "Difference"] = means.map(lambda value: points(value, 1))
            note += "It has one seed, so each difference includes an unknown effect of the seed. "
        else:
            note += "Only runs of its own protocol, trained to the end, could be compared with them. "
    return of_variants(study, "Results", columns | {"Status": states(study)}, note + whose_statistics(study))


def comparison(found: pd.DataFrame) -> Table | None:
    """Paired differences in test accuracy: what `comparisons.paired` has `found`; None if nothing."""
    found = found[found.quantity == "accuracy"]
    if not len(found):
        return None
    columns: dict[Any, pd.Series] = {"Variant": found.label, "against": found.against}
    columns["Difference"] = found["mean"].map(points)
    if found.seeds.map(len).max() > 1:
        columns["Lowest"], columns["Highest"] = (found.differences.map(end).map(points) for end in (min, max))
    shown = {
        ("95 % interval", "seeds"): found.interval.map(formats.interval_points),
        ("95 % interval", "seeds and images"): found.both.map(formats.interval_points),
        ("95 % interval", "test images"): found.image_interval.map(formats.interval_points),
        ("Test", "p"): found.p.map(formats.p_value),
        ("Test", "p, Holm"): found.holm_p.map(formats.p_value),
        ("Seeds", "correlation"): found.correlation.map(lambda one: number(one, 2)),
    }
    columns |= {name: texts for name, texts in shown.items() if (texts != DASH).any()}
    null, other = "same function", "exploratory" if found.planned.any() else "chosen by the tool"
    columns["Kind"] = found.planned.map({True: "planned", False: other}).where(found.test != "null", null)
    return Table("Paired differences", pd.DataFrame(columns).set_axis(found.norm), "Test accuracy, in points.")


def runs(study: Study) -> Table | None:
    """Every planned run of a `study` and what happened to it; None without a run."""
    rows = study.runs
    best = rows.best_val_accuracy.map(percent) + " (epoch " + rows.best_val_epoch.astype(str) + ")"
    columns = {
        "Run": rows.name,
        "Status": [status(run) for run in rows.itertuples()],
        "Best validation, %": best.where(rows.best_val_accuracy.notna(), DASH),
        "Training": [DASH if pd.isna(time) else duration(time, 1) for time in rows.seconds],
    }
    note = "The best validation accuracy is what some papers quote; no weights were chosen by it."
    return Table("Runs", pd.DataFrame(columns).set_axis(rows.norm), note) if len(rows) else None


def rates(study: Study, best: Study) -> Table:
    """Validation accuracy at every learning rate of a `study`, test accuracy only at the chosen one, in `best`."""
    final, test = study.final("validation"), best.final("test").groupby("norm")
    columns: dict[Any, pd.Series] = {"Variant": study.runs.groupby("norm").norm_label.first()}
    for rate, planned in study.runs.groupby("learning_rate"):
        lost = planned.groupby("norm").status.agg(_lost)
        shown = final[final.run.isin(planned.name)].groupby("norm").accuracy.agg(spread, 2, 100)
        columns["Validation, %, at learning rate", f"{rate:g}"] = shown.reindex(lost.index, fill_value=DASH) + lost
    columns["Chosen", "rate"] = test.learning_rate.first().map("{:g}".format)
    columns["Chosen", "Test, %"] = test.accuracy.agg(spread, 2, 100)
    frame = pd.DataFrame(columns).reindex(study.norms).fillna(DASH)
    note = f"{averaged(study)}Validation accuracy after the last epoch decides; test accuracy is of the chosen rate."
    return Table("Learning rates", frame, f"{note} {whose_statistics(study)}")


def _lost(statuses: pd.Series) -> str:
    counts = statuses.value_counts()
    return "".join(f", {counts[fate]} {fate}" for fate in ("diverged", "crashed") if fate in counts)


def configuration(study: Study, all_rates: Study) -> Table:
    """Settings of a `study`, and what the runs of `all_rates` recorded about themselves."""
    plan = {name: study.plan.get(name) for name in ("study", "preset", "norms", "seeds")}
    varied = {name.removesuffix("s"): values for name, values in (study.plan.get("grid") or {}).items() if values}
    plan["command"] = "; ".join(str(study.plan.get("command") or "").splitlines())
    facts = {name: _text(value) for name, value in {**plan, **study.recipe, **varied}.items()}
    facts |= _provenance(all_rates)
    frame = pd.DataFrame({"Name": facts.keys(), "Value": facts.values()}).set_axis([""] * len(facts))
    return Table("Configuration", frame)


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(map(_text, value)) or "none"
    return {"None": "none", "": "none", "True": "yes", "False": "no"}.get(str(value), str(value))


def _provenance(study: Study) -> dict[str, str]:
    """What the runs recorded about themselves; where they differ, every value."""
    own = ("label", "command", "started", "earlier", "changes", "options")
    known = [{key: each for key, each in one.items() if key not in own} for one in study.runs.provenance if one]
    table = pd.json_normalize(known).map(_text).sort_index(axis=1)
    found = {str(name): "; ".join(values.unique()) for name, values in table.items()}
    changes = [f"{run.name}: {text}" for run in study.runs.itertuples() for text in run.provenance.get("changes", ())]
    for name in set(REVISABLE) & set(study.recipe):
        for run in study.runs[study.runs[name] != study.recipe[name]].to_dict("records"):
            changes.append(f"{run['name']}: {name} {run[name]} instead of {study.recipe[name]}")
    return found | ({"changed on the way": "; ".join(changes)} if changes else {})
