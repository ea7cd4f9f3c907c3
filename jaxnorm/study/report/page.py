"""A page: sections of text, tables and figures, rendered as one self-contained HTML file or as Markdown."""

import base64
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.markers import MarkerStyle

from jaxnorm.study.report import style

TEXT_COLUMNS = ("Variant", "against", "Rule", "Setting", "Kind", "Layer", "Run", "Status")
"""Columns of words; the cells of all others are aligned as numbers."""


@dataclass(frozen=True)
class Table:
    """A table as a reader sees it. Its title is left out where it is the section's.

    The cells of `frame` are text. Its index holds the norm of each row, whose mark is drawn before the first cell, or
    "". A column is a title, or a pair: a heading that neighbours share, and a title.
    """

    title: str
    frame: pd.DataFrame
    note: str = ""

    @property
    def columns(self) -> list[tuple[str, str]]:
        """Shared heading ("" for none) and title of each column."""
        return [name if isinstance(name, tuple) else ("", str(name)) for name in self.frame.columns]

    @property
    def rows(self) -> list[tuple[str, list[str]]]:
        """Norm and cells of each row."""
        return [(norm, list(cells)) for norm, *cells in self.frame.itertuples(name=None)]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """The shared headings and how many columns each spans; empty where there are none."""
        spans = [(name, len(list(same))) for name, same in itertools.groupby(group for group, _ in self.columns)]
        return spans if any(name for name, _ in spans) else []

    @property
    def classes(self) -> list[str]:
        """The CSS class of each column."""
        groups = [group for group, _ in self.columns]
        return [
            ("text" if title in TEXT_COLUMNS else "number") + (" first" if group and group != before else "")
            for (group, title), before in zip(self.columns, ["", *groups], strict=False)
        ]


@dataclass(frozen=True)
class Picture:
    """A figure as a PNG file with its caption; `name` is that of the file."""

    name: str
    title: str
    caption: str
    png: bytes

    @property
    def data(self) -> str:
        """The PNG as a page holds it."""
        return base64.b64encode(self.png).decode()


@dataclass(frozen=True)
class Section:
    """A heading and what is below it. A `folded` one is opened by a click."""

    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table | None] = ()
    figures: Sequence[Picture] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    code: str = ""
    folded: bool = False

    @property
    def anchor(self) -> str:
        """The heading's id on the page."""
        return self.title.lower().replace(" ", "-")

    @property
    def empty(self) -> bool:
        """Whether there is nothing but words below the heading."""
        return not (self.figures or any(self.tables) or self.facts or self.code)


@dataclass(frozen=True)
class Page:
    """A report before it is rendered: what was asked, the answer, what to beware of, and the sections."""

    title: str
    kicker: str
    introduction: str
    lead: Sequence[str]
    cautions: Sequence[str]
    sections: Sequence[Section]


def html(page: Page) -> str:
    """The page as HTML. Whatever a run's name or command holds is shown as text."""
    norms = {norm for section in page.sections for table in section.tables if table for norm in table.frame.index}
    marks = {norm: (_path(style.of(norm).marker), style.of(norm)) for norm in sorted(norms - {""})}
    return _template("page.html.jinja", autoescape=True, finalize=_unbroken).render(
        page=page, marks=marks, ink=style.INK
    )


def markdown(page: Page) -> str:
    """The page as Markdown, with the figures in ``figures/``."""
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
