"""A page as one self-contained HTML file, or as Markdown."""

import re
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.markers import MarkerStyle

from jaxnorm.study.report import style
from jaxnorm.study.report.page import Page, Table


def html(page: Page) -> str:
    """`page` as HTML. Whatever a run's name or command holds is shown as text."""
    norms = {norm for section in page.sections for table in section.tables if table for norm in table.frame.index}
    marks = {norm: (_path(style.of(norm).marker), style.of(norm)) for norm in sorted(norms - {""})}
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    tidy: dict[str, Any] = dict(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    template = jinja2.Environment(
        loader=loader, autoescape=True, finalize=_unbroken, undefined=jinja2.StrictUndefined, **tidy
    )
    return template.get_template("page.html.jinja").render(page=page, marks=marks, ink=style.INK)


def markdown(page: Page) -> str:
    """`page` as Markdown that shows exactly its text, with the figures in ``figures/``."""
    parts = [f"# {_line(page.title)}", *map(_line, (page.kicker, page.introduction, *page.lead))]
    parts += [f"> {_line(caution)}" for caution in page.cautions]
    for section in page.sections:
        if section.empty:
            continue
        parts += [f"## {_line(section.title)}", *map(_line, section.text)]
        for table in filter(None, section.tables):
            parts += [f"### {_line(table.title)}"] if table.title != section.title else []
            parts += [_table(table), *filter(None, [_line(table.note)])]
        for figure in section.figures:
            parts += [f"![{_line(figure.title)}](figures/{figure.name}.png)", _line(figure.caption)]
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    head = [f"{group}: {title}" if group else title for group, title in table.columns]
    ruler = ["---:" if "number" in name else ":---" for name in table.classes]
    return "\n".join(map(_row, [head, ruler, *(cells for _, cells in table.rows)]))


def _row(cells: Any) -> str:
    return f"| {' | '.join(map(_line, cells))} |"


def _line(text: str) -> str:
    """`text` as one line of Markdown that shows exactly itself, in a table's cell too."""
    line = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]#~$])", r"\\\1", line).replace("|", "&#124;")


def _unbroken(value: Any) -> Any:
    """`value` with its signs for per cent and times kept on the line of their numbers."""
    return re.sub(" (?=[%×])", "\u00a0", value) if type(value) is str else value


def _path(marker: str) -> str:
    """A matplotlib marker as the `d` of an SVG path, at most one unit from the middle in each direction."""
    shape = MarkerStyle(marker)
    path = shape.get_path().transformed(shape.get_transform())
    polygons = [np.asarray(polygon) for polygon in path.to_polygons(closed_only=False)]
    reach = max(float(np.abs(polygon).max()) for polygon in polygons)
    lines = [("L".join(f"{x / reach:.2f} {-y / reach:.2f}" for x, y in polygon), len(polygon)) for polygon in polygons]
    return "".join(f"M{line}" + "Z" * (corners > 2) for line, corners in lines)
