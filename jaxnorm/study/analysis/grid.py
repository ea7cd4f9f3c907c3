"""A figure of many small panels: a row for each layer, a column for each variant, the same scale along each row."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxnorm.study.analysis.sheet import PAD, Entry, Layout, head_height, headed

TITLE_LINE = 0.17
ROW_NAME = 0.24
LEFT = 0.5
GAP = 0.12


def grid(
    layout: Layout,
    title: str,
    subtitle: str,
    entries: Sequence[Entry],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    per_block: int,
    height: float,
    xlabel: str,
) -> tuple[Figure, list[list[Axes]]]:
    """A figure and its axes by row and column, `height` inches each.

    Where there are more than `per_block` columns, they stand in blocks below each other, each with all rows. A row's
    name stands above its first panel, a column's (already broken into lines) above its block.
    """
    blocks = [range(start, min(start + per_block, len(columns))) for start in range(0, len(columns), per_block)]
    lines = [max(columns[index].count("\n") + 1 for index in block) for block in blocks]
    row = ROW_NAME + height
    blocks_height = [0.12 + TITLE_LINE * count + len(rows) * row + 0.55 for count in lines]
    total = head_height(layout, subtitle, entries) + sum(blocks_height) + PAD / 2
    figure = headed(layout, title, subtitle, entries, total)
    # All blocks have columns of the same width, so that panels can be compared.
    across = min(per_block, len(columns))
    width = (layout.width - 2 * PAD - LEFT - GAP * (across - 1)) / across
    axes: list[list[Axes]] = [[] for _ in rows]
    top = total - head_height(layout, subtitle, entries)
    for block, count, tall in zip(blocks, lines, blocks_height, strict=True):
        start = top - 0.12 - TITLE_LINE * count
        for place, index in enumerate(block):
            x = PAD + LEFT + place * (width + GAP)
            figure.text(
                x / layout.width, (start + 0.02) / total, columns[index], va="bottom", size=8, weight="bold",
                linespacing=1.15, parse_math=False,
            )  # fmt: skip
            for line, name in enumerate(rows):
                bottom = start - (line + 1) * row
                axis = figure.add_axes((x / layout.width, bottom / total, width / layout.width, height / total))
                axis.tick_params(labelsize=7.5, labelleft=place == 0, labelbottom=line == len(rows) - 1)
                if place == 0:
                    y = (bottom + height + 0.045) / total
                    figure.text(PAD / layout.width, y, name, va="bottom", size=8, parse_math=False)
                if line == len(rows) - 1:
                    axis.set_xlabel(xlabel, size=8)
                axes[line].append(axis)
        top -= tall
    return figure, axes
