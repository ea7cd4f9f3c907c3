"""The report: one self-contained page, its Markdown twin, figures and summaries, from a workdir's files alone."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from jaxnorm import files
from jaxnorm.errors import UserError
from jaxnorm.study.analysis import prose, tables
from jaxnorm.study.analysis.comparison import compare
from jaxnorm.study.analysis.figures import FigureFile, draw_figures, figure_names
from jaxnorm.study.analysis.markdown import fenced, markdown
from jaxnorm.study.analysis.pages import page_of
from jaxnorm.study.analysis.rates import chosen
from jaxnorm.study.analysis.runs import Study, read_study
from jaxnorm.study.analysis.sections import Drawn
from jaxnorm.study.analysis.styles import INK, styles_of
from jaxnorm.study.analysis.summary import summary_csv, summary_json
from jaxnorm.study.analysis.svg import marker_path
from jaxnorm.study.analysis.terminal import print_table as print_table


def write_report(workdir: Path) -> Path:
    """Rebuilds summary.csv, summary.json, figures/, report.html and report.md, and returns the path of the page.

    Reads the files in `workdir` and nothing else; the same files give the same bytes. Every file is replaced in one
    step. Runs that are unfinished, diverged or crashed are shown as such.

    Raises:
        UserError: if `workdir` is no workdir, holds a damaged file, or cannot be written.
    """
    study = read_study(workdir)
    comparisons = compare(chosen(study))
    figures = draw_figures(study)
    page = _page(study, figures)
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


def _page(study: Study, figures: Sequence[FigureFile]) -> dict[str, Any]:
    page = page_of(study, Drawn(figures))
    return {
        "title": page.title,
        "kicker": f"{study.name.replace('_', ' ')} · {study.data_description}",
        "introduction": page.introduction,
        "lead": page.lead,
        "cautions": prose.cautions(study),
        "sections": [section for section in page.sections if not section.empty],
        "classes": tables.class_names(study) if any(run.complete for run in study.runs) else [],
        "marks": {
            norm: {"id": f"mark-{index}", "path": marker_path(style.marker), "colour": style.colour, "open": style.open}
            for index, (norm, style) in enumerate(styles_of(study).items())
        },
        "ink": INK,
        "trusted": Markup,  # only for what svg.py made, escaped there, and for our own file names
        "fenced": fenced,
    }
