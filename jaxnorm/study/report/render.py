"""A page as one self-contained HTML file, or as Markdown."""

import re
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.markers import MarkerStyle

from jaxnorm.study.report import style
from jaxnorm.study.report.page import Page


def html(page: Page) -> str:
    """`page` as HTML. Whatever a run's name or command holds is shown as text."""
    norms = {norm for section in page.sections for table in section.tables if table for norm in table.frame.index}
    marks = {norm: (_path(style.of(norm).marker), style.of(norm)) for norm in sorted(norms - {""})}
    return _template("page.html.jinja", autoescape=True, finalize=_unbroken).render(
        page=page, marks=marks, ink=style.INK
    )


def markdown(page: Page) -> str:
    """`page` as Markdown, with the figures in ``figures/``."""
    return _template("page.md.jinja", finalize=_escaped).render(page=page, fenced=_fenced, trusted=Markup)


def _template(name: str, **options: Any) -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    options |= dict(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
    return jinja2.Environment(loader=loader, **options).get_template(name)


def _unbroken(value: Any) -> Any:
    """`value` with its per cent signs kept on the line of their numbers."""
    return value.replace(" %", "\u00a0%") if type(value) is str else value


def _escaped(value: Any) -> Any:
    """`value` as one line of Markdown text that shows exactly itself, in a table's cell too."""
    if isinstance(value, Markup):
        return value
    line = " ".join(str(value).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]#~$])", r"\\\1", line).replace("|", "&#124;")


def _fenced(text: str) -> Markup:
    """`text` as a code block, with a fence longer than any that it holds."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return Markup("{}\n{}\n{}").format(Markup(fence), Markup(text), Markup(fence))


def _path(marker: str) -> str:
    """A matplotlib marker as the `d` of an SVG path, at most one unit from the middle in each direction."""
    shape = MarkerStyle(marker)
    path = shape.get_path().transformed(shape.get_transform())
    polygons = [np.asarray(polygon) for polygon in path.to_polygons(closed_only=False)]
    reach = max(float(np.abs(polygon).max()) for polygon in polygons)
    lines = [("L".join(f"{x / reach:.2f} {-y / reach:.2f}" for x, y in polygon), len(polygon)) for polygon in polygons]
    return "".join(f"M{line}" + "Z" * (corners > 2) for line, corners in lines)
