"""Writes the report of a study: the page, the same in Markdown, figures and summaries; prints the results."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table as Lines
from rich.text import Text

from jaxnorm import files
from jaxnorm.errors import UserError, one_line
from jaxnorm.study.compact_json import compact_json
from jaxnorm.study.report import batch_sizes, compare_norms, features, tables
from jaxnorm.study.report.comparisons import chosen
from jaxnorm.study.report.folders import read_study
from jaxnorm.study.report.frames import Study
from jaxnorm.study.report.page import Page
from jaxnorm.study.report.render import html, markdown
from jaxnorm.study.report.summary import summary_csv, summary_json

PAGES = {"batch_size_study": batch_sizes.page, "feature_evolution": features.page}
"""The page of each kind of study; any other kind has that of a comparison of norms."""
PRINTED = (
    *("Variant", ("Accuracy, %", "Test"), ("Accuracy, %", "Validation"), ("Accuracy, %", "Train")),
    *(("Validation accuracy, %", "last epoch"), "Test accuracy, %", "Status"),
)
"""The columns that a terminal shows."""


def page_of(study: Study) -> Page:
    """The page of a `study` by its kind."""
    return PAGES.get(study.name, compare_norms.page)(study)


def write_report(folder: Path, *, web_page: bool = True) -> Study:
    """Rebuilds summary.csv, summary.json, figures/, report.html and report.md from the files of a study's `folder`.

    The same files give the same bytes. Each is replaced in one step. Runs that are unfinished, diverged or crashed are
    shown as such. report.html is left out if `web_page` is false. A `UserError` says if `folder` holds no study or a
    damaged file, or cannot be written.
    """
    study = read_study(folder)
    page = page_of(study)
    with writable(folder):
        files.write_text(folder / "summary.csv", summary_csv(study))
        files.write_text(folder / "summary.json", compact_json(summary_json(study)))
    write_page(folder, page, web_page=web_page)
    return study


def write_page(folder: Path, page: Page, *, web_page: bool = True) -> None:
    """Writes a `page` into a `folder`: its figures, report.md, and report.html unless `web_page` is false."""
    drawn = {f"{figure.name}.png": figure.png for section in page.sections for figure in section.figures}
    with writable(folder):
        for name, png in drawn.items():
            files.write_bytes(folder / "figures" / name, png)
        for path in (folder / "figures").glob("*.png"):
            if path.name not in drawn:  # of an earlier report on other files
                path.unlink()
        if web_page:
            files.write_text(folder / "report.html", html(page))
        files.write_text(folder / "report.md", markdown(page))


@contextlib.contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Within it, an `OSError` becomes a `UserError` about the `folder`."""
    try:
        yield
    except OSError as error:
        # A file in place of a folder, such as figures/, has to be named.
        place = error.filename if isinstance(error, FileExistsError | NotADirectoryError) else folder
        raise UserError(
            f"the report needs a folder where one can write, but {one_line(place, 200)} cannot be written "
            f"({error.strerror or error}); make it writable, or choose another"
        ) from error


def print_table(study: Study, console: Console) -> None:
    """Prints to a `console` final accuracies and what happened to every variant of a `study`."""
    study, batches = chosen(study), study.name == "batch_size_study"
    table = batch_sizes.by_batch_size(batch_sizes.in_order(study)) if batches else tables.results(study)
    if table is None:
        return
    shown = Lines(box=box.SIMPLE_HEAD, title=Text(study.data_description))
    names = [name for name in table.frame if name in PRINTED]
    for name in names:
        shown.add_column("\n".join(name) if isinstance(name, tuple) else name)
    for _, *cells in table.frame[names].itertuples(name=None):
        shown.add_row(*map(Text, cells))  # text, not markup: a label may hold brackets
    console.print(shown)
    console.print(Text(table.note))
