"""One colour, marker and dash for each variant, the same in every figure and table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxnorm.study.analysis.runs import Study

INK = "#1b1f24"
MUTED = "#5b636d"
GRID = "#dfe2e6"
PAPER = "#ffffff"


@dataclass(frozen=True)
class Style:
    """How a variant is drawn."""

    colour: str
    marker: str
    dash: tuple[float, ...] = ()
    """On and off lengths in line widths; empty for a solid line."""
    open: bool = False
    """Whether the marker is only an outline."""


# Okabe and Ito's palette (safe for the colour-blind) without its yellow, too pale for a line, and with a grey for no
# normalization. Marker and dash tell the variants apart without any colour.
_STYLES: Mapping[str, Style] = {
    "flax_bn": Style(INK, "s", (3, 2.2), open=True),  # lies on bn where the two agree; both stay visible
    "none": Style("#868b92", "x", (1.2, 1.4), open=True),
    "bn": Style("#0072b2", "o"),
    "in": Style("#e69f00", "^", (6, 1.5, 1.2, 1.5)),
    "bin": Style("#d55e00", "D"),
    "ln": Style("#cc79a7", "v", (4, 1.6)),
    "gn": Style("#009e73", "P"),
    "bin_frozen": Style("#56b4e9", "d", (1.2, 1.4)),
}
# For registered norms, in the order in which the study names them; Paul Tol's muted set.
_EXTRA = (
    Style("#aa4499", "p"),
    Style("#999933", "h", (4, 1.6)),
    Style("#44aa99", "<", (6, 1.5, 1.2, 1.5)),
    Style("#7a6fd0", ">", (1.2, 1.4)),
    Style("#cc6677", "*"),
    Style("#9c6b3f", "8", (4, 1.6)),
)
DIVERGED = "X"
"""The marker of a run that diverged; no variant has it."""
HOLLOW = Style(INK, "D", open=True)
"""The published study's value beside ours."""
EQUAL = "#009e73"
"""Tints the band within which two variants count as equal."""


def styles_for(norms: Sequence[str]) -> dict[str, Style]:
    """The style of each norm; a registered one takes the next of six further styles, in the order given."""
    extra = [norm for norm in norms if norm not in _STYLES]
    return {norm: _STYLES.get(norm) or _EXTRA[extra.index(norm) % len(_EXTRA)] for norm in norms}


def styles_of(study: Study) -> dict[str, Style]:
    """The style of every norm and of every variant of the study: a norm keeps its own in every setting."""
    styles = styles_for(list(dict.fromkeys([*study.norms, *(run.norm for run in study.runs)])))
    return styles | {variant: styles[study.norm(variant)] for variant in study.variants}
