"""The report: one self-contained page, its Markdown twin, figures and summaries, from a workdir's files alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from jaxnorm import files
from jaxnorm.analysis import prose, tables
from jaxnorm.analysis.comparison import Comparison, compare
from jaxnorm.analysis.figures import FigureFile, draw_figures, figure_names
from jaxnorm.analysis.markdown import fenced, markdown
from jaxnorm.analysis.reference import SOURCE, references_for
from jaxnorm.analysis.runs import Study, read_study
from jaxnorm.analysis.styles import INK, styles_for
from jaxnorm.analysis.summary import summary_csv, summary_json
from jaxnorm.analysis.svg import marker_path
from jaxnorm.analysis.tables import Table
from jaxnorm.analysis.terminal import print_table as print_table
from jaxnorm.analysis.words import number
from jaxnorm.errors import UserError


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
    def empty(self) -> bool:
        """Whether nothing but words stands below the heading."""
        return not (self.figures or any(self.tables) or self.matrices or self.facts or self.code)


def write_report(workdir: Path) -> Path:
    """Rebuilds summary.csv, summary.json, figures/, report.html and report.md, and returns the path of the page.

    Reads the files in `workdir` and nothing else; the same files give the same bytes. Every file is replaced in one
    step. Runs that are unfinished, diverged or crashed are shown as such.

    Raises:
        UserError: if `workdir` is no workdir, holds a damaged file, or cannot be written.
    """
    study = read_study(workdir)
    comparisons = compare(study)
    figures = draw_figures(study)
    page = _page(study, comparisons, figures)
    try:
        files.write_text(workdir / "summary.csv", summary_csv(study))
        files.write_json(workdir / "summary.json", summary_json(study, comparisons))
        for figure in figures:
            files.write_bytes(workdir / "figures" / f"{figure.name}.png", figure.png)
            files.write_bytes(workdir / "figures" / f"{figure.name}.svg", figure.svg)
        for name in set(figure_names()) - {figure.name for figure in figures}:
            for suffix in ("png", "svg"):  # of an earlier report on other files
                (workdir / "figures" / f"{name}.{suffix}").unlink(missing_ok=True)
        files.write_text(
            workdir / "report.html", _environment(autoescape=True).get_template("report.html.jinja").render(page)
        )
        markdown_twin = _environment(finalize=markdown).get_template("report.md.jinja").render(page)
        files.write_text(workdir / "report.md", markdown_twin)
    except OSError as error:
        raise UserError(
            f"the report is written into the workdir, but {workdir} cannot be written ({error.strerror or error}); "
            "make it writable, or copy it to where it is"
        ) from error
    return workdir / "report.html"


def _environment(autoescape: bool = False, finalize: Callable[[Any], Any] | None = None) -> jinja2.Environment:
    """Whatever a run's name or command holds, it ends up as text: HTML is escaped by Jinja, Markdown by `finalize`."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=autoescape,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )


def _page(study: Study, comparisons: tuple[Comparison, ...], figures: Sequence[FigureFile]) -> dict[str, Any]:
    sections = _sections(study, comparisons, {figure.name: figure for figure in figures})
    styles = styles_for(study.norms)
    return {
        "title": prose.question(study),
        "kicker": f"{study.name.replace('_', ' ')} · {study.data_description}",
        "introduction": prose.introduction(study),
        "lead": prose.lead(study, comparisons),
        "cautions": prose.cautions(study),
        "sections": [section for section in sections if not section.empty],
        "classes": tables.class_names(study) if any(run.complete for run in study.runs) else [],
        "marks": {
            norm: {"id": f"mark-{index}", "path": marker_path(style.marker), "colour": style.colour, "open": style.open}
            for index, (norm, style) in enumerate(styles.items())
        },
        "ink": INK,
        "trusted": Markup,  # only for what svg.py made, escaped there, and for our own file names
        "fenced": fenced,
    }


def _sections(study: Study, comparisons: tuple[Comparison, ...], figures: dict[str, FigureFile]) -> list[Section]:
    def drawn(*names: str) -> list[FigureFile]:
        return [figures[name] for name in names if name in figures]

    published = [f"The study is {SOURCE}; its values are from one seed each."] if references_for(study.recipe) else []
    return [
        Section("Results", figures=drawn("test_accuracy"), tables=[tables.results_table(study)]),
        Section("Training", figures=drawn("accuracy", "loss")),
        Section("Sanity check", figures=drawn("sanity_check")),
        Section("Features", figures=drawn("feature_quantiles")),
        Section(
            "Comparisons",
            prose.about_statistics(comparisons),
            tables=[tables.comparison_table(study, comparisons)],
        ),
        Section("Published study", published, tables=[tables.reference_table(study)]),
        Section("All metrics", [_METRICS], tables=tables.metrics_tables(study)),
        Section("Classes", [_CLASSES], tables=[tables.class_f1_table(study)], matrices=_matrices(study)),
        Section("Calibration", tables=[tables.calibration_table(study)]),
        Section("Time", tables=[tables.time_table(study)]),
        Section("Runs", tables=[tables.runs_table(study)]),
        Section("Configuration", facts=_configuration(study)),
        Section("Data and machine", facts=_provenance(study)),
        Section("Reproduce", ["The command that made these runs, from a checkout of the project:"], code=study.command),
    ]


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
    for norm in study.norms:
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
    return "" if value == 0 else "<1" if value < 0.5 else number(value, 0)


def _configuration(study: Study) -> list[tuple[str, str]]:
    plan = {"study": study.name, "preset": study.preset, "norms": " ".join(study.norms), "seeds": list(study.seeds)}
    plan["seeds"] = " ".join(map(str, study.seeds))
    return [(key, "none" if value is None else str(value)) for key, value in (plan | dict(study.recipe)).items()]


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
    return found
