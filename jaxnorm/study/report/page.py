"""A page before it is rendered: sections of text, tables and figures."""

import base64
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

TEXT_COLUMNS = ("Variant", "against", "Rule", "Setting", "Kind", "Layer", "Run", "Status", "Name", "Value")
"""Columns of words; the cells of all others are aligned as numbers."""


@dataclass(frozen=True)
class Table:
    """A table as a reader sees it.

    Attributes:
        title: left out where it is the section's.
        frame: cells of text. The index has the norm of each row, whose mark is drawn before the first cell, or "". A
            column is a title, or a pair: a heading that neighbours share, and a title.
        note: what is said below the table.
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
        return ["text" if title in TEXT_COLUMNS else "number" for _, title in self.columns]


@dataclass(frozen=True)
class Picture:
    """A figure with its caption.

    Attributes:
        name: the file's name without ``.png``.
        title: the figure's title, its alternative text.
        caption: what is said below the figure.
        png: the figure as a PNG file.
    """

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
    """A heading and what is below it.

    Attributes:
        title: the heading.
        text: paragraphs.
        tables: tables; None is skipped.
        figures: figures.
        folded: whether the section is opened by a click.
    """

    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table | None] = ()
    figures: Sequence[Picture] = ()
    folded: bool = False

    @property
    def anchor(self) -> str:
        """The heading's id on the page."""
        return self.title.lower().replace(" ", "-")

    @property
    def empty(self) -> bool:
        """Whether there is nothing but words below the heading."""
        return not (self.figures or any(self.tables))


@dataclass(frozen=True)
class Page:
    """A report before it is rendered.

    Attributes:
        title: the question.
        kicker: kind of study and data, above the title.
        introduction: what was done.
        lead: the answer, in sentences.
        cautions: what to beware of.
        sections: the rest; the folded ones come last.
    """

    title: str
    kicker: str
    introduction: str
    lead: Sequence[str]
    cautions: Sequence[str]
    sections: Sequence[Section]
