"""Figures of a probe at initialization. Each takes tables and a subtitle, and returns a matplotlib Figure."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from jaxnorm.study.report import style
from jaxnorm.study.report.accuracy_figures import name_rows


@style.styled
def growth(plain: pd.DataFrame, about: str) -> Figure:
    """Growth of the gradient per layer of the plain network: a mark for each seed, and what theory predicts.

    Args:
        plain: rows of `jaxnorm.study.probes.initialization.probe_initialization`.
        about: the subtitle.

    Returns:
        The figure.
    """
    groups = list(plain.groupby("norm", sort=False))
    title = "Growth of the gradient per layer, plain network of 30 layers"
    entries = [style.entry("mean-field theory", style.PUBLISHED, joined=False)]
    figure, (axis,) = style.sheet(title, about, entries, height=0.22 * len(groups) + 0.5, xlabel="Factor per layer")
    axis.axvline(1, color=style.INK, linewidth=0.9, zorder=1)
    for row, (norm, rows) in enumerate(groups):
        look = style.of(str(norm))
        axis.plot(rows.growth, [row] * len(rows), **style.markers(look, 6, linestyle="none", alpha=0.7))
        axis.plot(rows.predicted.iloc[:1], [row], **style.markers(style.PUBLISHED, 5.5, linestyle="none", zorder=6))
    name_rows(axis, [style.plain(str(rows.label.iloc[0]), 34) for _, rows in groups])
    return figure


@style.styled
def layers(rows: pd.DataFrame, about: str) -> Figure:
    """Norm of the gradient by each layer's kernel, the geometric mean over seeds; a panel for each norm.

    Args:
        rows: of ResNet-14, see `jaxnorm.study.probes.initialization.probe_initialization`.
        about: the subtitle.

    Returns:
        The figure.
    """
    logs = rows.assign(log=np.log(rows.weight_gradient.where(rows.weight_gradient > 0)))
    means = np.exp(logs.groupby(["norm", "layer"], sort=False).log.mean()).unstack(0)
    labels = rows.groupby("norm", sort=False).label.first()
    panels = [style.plain(str(label), 34) for label in labels]
    title = "Gradient by layer before training"
    figure, axes = style.sheet(title, about, [], panels, 4, 1.35, "Layer", 7.5, sharex=True, sharey=True)
    places = range(1, len(means) + 1)
    for axis, norm in zip(axes, labels.index, strict=True):
        axis.plot(places, means, color=style.GRID, linewidth=0.8, zorder=1)
        axis.plot(places, means[norm], **style.line(style.of(norm), 3, zorder=3))
    style.log_axis(axes[0])  # shared
    return figure


@style.styled
def speed(probed: pd.DataFrame, learned: pd.DataFrame, about: str) -> Figure:
    """The mean validation loss of each norm over the norm of the stem's gradient; a panel for each setting.

    Args:
        probed: from `jaxnorm.study.probes.speed.at_initialization`.
        learned: from `jaxnorm.study.probes.speed.learning_speed`.
        about: the subtitle.

    Returns:
        The figure.
    """
    settings = list(learned.groupby("tags", sort=False))
    joined = [(str(tags), probed.join(rows.set_index("norm"), how="inner")) for tags, rows in settings]
    shown = probed[probed.index.isin(learned.norm)]
    entries = [style.entry(one.label, style.of(str(one.Index)), joined=False) for one in shown.itertuples()]
    panels = [tags or "" for tags, _ in joined]
    xlabel = "Norm of the stem's gradient before training, log scale"
    title = "Gradient before training and speed of learning"
    figure, axes = style.sheet(title, about, entries, panels, min(3, len(panels)), 3.2, xlabel, sharey=True)
    for axis, (_, both) in zip(axes, joined, strict=True):
        for one in both.itertuples():
            axis.plot([one.stem_gradient], [one.curve], **style.markers(style.of(str(one.Index)), 7))
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes[0].set_ylabel("Mean validation loss over training")
    return figure
