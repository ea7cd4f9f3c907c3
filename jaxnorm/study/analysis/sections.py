"""The parts of a page that every study has: metrics, classes, calibration, time, runs, configuration, machine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxnorm.study.analysis import gates, prose, rates, tables
from jaxnorm.study.analysis.comparison import Comparison
from jaxnorm.study.analysis.figures import FigureFile
from jaxnorm.study.analysis.runs import Study
from jaxnorm.study.analysis.tables import Table
from jaxnorm.study.analysis.words import number
from jaxnorm.study.config import REVISABLE

FOLDED_FROM = 9
"""Confusion matrices from which they stand behind a summary that unfolds."""


@dataclass(frozen=True)
class Matrix:
    """One variant's confusion matrix on test: mean images for each true (row) and predicted class."""

    norm: str
    label: str
    rows: tuple[tuple[tuple[str, float], ...], ...]
    """(text, share of the row's images) for each cell."""


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it; an empty one is left out."""

    title: str
    paragraphs: Sequence[str] = ()
    figures: Sequence[FigureFile] = ()
    tables: Sequence[Table | None] = ()
    matrices: Sequence[Matrix] = ()
    facts: Sequence[tuple[str, str]] = ()
    code: str = ""

    @property
    def anchor(self) -> str:
        """The heading's id on the page."""
        return self.title.lower().replace(" ", "-")

    @property
    def folded(self) -> bool:
        """Whether the matrices are too many to stand open."""
        return len(self.matrices) >= FOLDED_FROM

    @property
    def empty(self) -> bool:
        """Whether nothing but words stands below the heading."""
        return not (self.figures or any(self.tables) or self.matrices or self.facts or self.code)


class Drawn:
    """The figures of a page by name; one that could not be drawn is left out."""

    def __init__(self, figures: Sequence[FigureFile]) -> None:
        self._figures = {figure.name: figure for figure in figures}

    def __call__(self, *names: str) -> list[FigureFile]:
        """Those of `names` that were drawn."""
        return [self._figures[name] for name in names if name in self._figures]


def controls(study: Study, drawn: Drawn) -> list[Section]:
    """The gates and the learning rates, where the runs have any."""
    return [
        Section(
            "Gates",
            gates.about_gates(study),
            figures=drawn("gate_histograms", "gate_paths"),
            tables=[gates.gate_table(study)],
        ),
    ]


def learning_rates(study: Study, drawn: Drawn) -> Section:
    """The control over learning rates; `study` holds all of them."""
    return Section(
        "Learning rates", rates.about_rates(study), figures=drawn("learning_rates"), tables=[rates.rates_table(study)]
    )


def details(study: Study, everything: Study, time: Table | None = None) -> list[Section]:
    """What stands at the end of every page; `everything` holds the runs at rates that were not chosen, too."""
    return [
        Section("All metrics", [_METRICS], tables=tables.metrics_tables(study)),
        Section("Classes", [_CLASSES], tables=[tables.class_f1_table(study)], matrices=_matrices(study)),
        Section("Calibration", tables=[tables.calibration_table(study)]),
        Section("Time", tables=[time or tables.time_table(study)]),
        Section("Runs", tables=[tables.runs_table(everything)]),
        Section("Configuration", facts=_configuration(everything)),
        Section("Data and machine", facts=_provenance(everything)),
        Section("Reproduce", ["The command that made these runs, from a checkout of the project:"], code=study.command),
    ]


def comparisons_section(study: Study, comparisons: tuple[Comparison, ...]) -> Section:
    """Paired differences and what may be said of them."""
    return Section(
        "Comparisons", prose.about_statistics(comparisons), tables=[tables.comparison_table(study, comparisons)]
    )


_METRICS = (
    "Everything is measured on untouched images with the weights after the last epoch; loss is mean cross entropy in "
    "nats. With one label for each image, micro F1 equals accuracy. Of several seeds: mean ± standard deviation."
)
_CLASSES = (
    "In the confusion matrices, a row is a true class and a column what it was called. The numbers are test images (of "
    "several seeds: the mean), the shade is the share of the row, and an empty cell is zero."
)


def _matrices(study: Study) -> list[Matrix]:
    found = []
    for norm in study.variants:
        runs = study.finished(norm)
        if runs:
            mean = np.mean([run.splits["test"].confusion_matrix for run in runs], axis=0)
            share = mean / np.maximum(mean.sum(axis=1, keepdims=True), 1)
            rows = tuple(
                tuple((_count(float(value)), float(part)) for value, part in zip(*both, strict=True))
                for both in zip(mean, share, strict=True)
            )
            found.append(Matrix(norm, study.label(norm), rows))
    return found


def _count(value: float) -> str:
    return "" if value == 0 else "<1" if value < 1 else number(value, 0)


def _configuration(study: Study) -> list[tuple[str, str]]:
    """The plan and the recipe; what the study varies shows all its values."""
    plan: dict[str, Any] = {"study": study.name, "preset": study.preset, "norms": study.norms, "seeds": study.seeds}
    varied = {_FIELDS.get(name, name): values for name, values in study.grid.items() if values}
    return [(key, _value(value)) for key, value in (plan | dict(study.recipe) | varied).items()]


_FIELDS = {
    "batch_sizes": "batch_size",
    "lr_rules": "lr_rule",
    "learning_rates": "learning_rate",
    "ghost_batch_sizes": "ghost_batch_size",
}


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(map(_value, value)) or "none"
    return "none" if value is None else {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _provenance(study: Study) -> list[tuple[str, str]]:
    """What the runs recorded about themselves; where they differ, every value with how many runs have it."""
    facts: dict[str, Callable[[Any], Any]] = {
        "Data": lambda p: p["data"]["description"],
        "Source": lambda p: p["data"]["source"],
        "Fingerprint": lambda p: p["data"]["fingerprint"],
        "Images": lambda p: "{num_train:,} train, {num_validation:,} validation, {num_test:,} test".format(**p["data"]),
        "Image shape": lambda p: " × ".join(map(str, p["data"]["image_shape"])),
        "Device": lambda p: f"{p['device']['count']} × {p['device']['kind']} ({p['device']['platform']})",
        "CPU cores": lambda p: p["device"]["cores"],
        "Versions": lambda p: ", ".join(f"{name} {version}" for name, version in p["versions"].items()),
        "XLA_FLAGS": lambda p: p["xla_flags"] or "none",
        "Matmul precision": lambda p: p["matmul_precision"],
        "Commit": lambda p: (p["git"]["commit"] or "none") + (", with changes" if p["git"]["dirty"] else ""),
    }
    found = []
    for name, read in facts.items():
        values: list[str] = []
        for run in study.runs:
            try:
                values.append(str(read(run.provenance)))
            except (KeyError, TypeError, ValueError):
                continue  # a run that has not started, or that recorded less, has nothing to say here
        distinct = sorted(set(values), key=values.index)
        if len(distinct) == 1:
            found.append((name, distinct[0]))
        elif distinct:
            found.append((name, "; ".join(f"{value} ({values.count(value)} runs)" for value in distinct)))
    changes = [f"{run.name}: {change}" for run in study.runs for change in run.provenance.get("changes", ())]
    own = [
        f"{run.name}: {name} {_value(run.settings[name])} instead of {_value(value)}"
        for run in study.runs
        for name, value in study.recipe.items()
        if name in REVISABLE and run.settings.get(name) != value
    ]
    same = [f"{run.name} is {run.provenance['same_as']}" for run in study.runs if "same_as" in run.provenance]
    if same:
        found.append(("Trained once", "; ".join(same)))
    if changes or own:
        found.append(("Changed on the way", "; ".join(changes + own)))
    return found
