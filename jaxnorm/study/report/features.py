"""The page of the feature-evolution study, from the question to the last section."""

import pandas as pd

from jaxnorm.study.report import sections, sentences
from jaxnorm.study.report.comparisons import BASELINE, chosen, paired
from jaxnorm.study.report.folders import quantile_columns
from jaxnorm.study.report.formats import listed, times, within
from jaxnorm.study.report.frames import Study, finished_rows
from jaxnorm.study.report.page import Page, Section, Table
from jaxnorm.study.words import counted

QUESTION = "How do the features evolve, and do they diverge without normalization?"


def page(everything: Study) -> Page:
    """The answer, features and their growth, results, curves, gates, differences, and details."""
    study = chosen(everything)
    found, grown = paired(study), growth(study)
    layers = len(set(study.layers.layer) - {sections.POOLED})
    where = (
        f"{layers} convolutions, before norm and ReLU, and of the pooled features" if layers else "the pooled features"
    )
    return Page(
        title=QUESTION,
        kicker=f"{study.name.replace('_', ' ')} · {study.data_description}",
        introduction=(
            f"A 14-layer residual network is trained on {study.data_description} in "
            f"{counted(study.runs.variant.nunique(), 'variant')} that differ in nothing but their normalization. After "
            f"every epoch the {listed([f'{value:g}' for value in study.percentages])} % quantiles of {where} are taken "
            "over all validation images, exactly."
        ),
        lead=[
            *(answer(study, grown) or ["No run has recorded more than one epoch of its layers yet."]),
            *sentences.failed(study),
        ],
        cautions=sentences.cautions(study),
        sections=[
            sections.features(study),
            Section("Growth", tables=[growth_table(study, grown), level_table(study, grown)]),
            sections.results(study),
            sections.learning_rates(everything),
            sections.curves(study),
            sections.gates(study),
            sections.comparison(study, found),
            *sections.details(study, everything),
        ],
    )


def growth(study: Study) -> pd.DataFrame:
    """The highest recorded quantile after the first and the last epoch, of every variant and layer.

    Returns:
        A row for each layer and variant: `layer, variant, label, first, last` and `ratio` (nan where `first` is not
        positive); in the order in which the network applies the layers.
    """
    top = quantile_columns(study.percentages)[-1]
    rows = finished_rows(study.layers)
    means = rows.groupby(["layer", "variant", "label", "epoch"], observed=True, sort=False)[top].mean().reset_index()
    ends = means.groupby(["layer", "variant", "label"], observed=True, sort=False)
    found = ends[top].agg(["first", "last", "size"]).reset_index()
    found = found[found["size"] > 1]
    return found.assign(ratio=(found["last"] / found["first"]).where(found["first"] > 0))


def answer(study: Study, grown: pd.DataFrame) -> list[str]:
    """Whether features grow, by how much and where, without normalization and with it."""
    words, known = [], grown.dropna(subset="ratio")
    mine, others = known[known.variant == "none"], known[known.variant != "none"]
    if len(mine):
        most, pooled = mine.loc[mine.ratio.idxmax()], mine[mine.layer == sections.POOLED]
        fastest = others.groupby("layer", observed=True).ratio.max()
        faster = (mine.ratio > mine.layer.map(fastest).astype(float)).sum()
        at_pooled = f"of the pooled features grows {times(pooled.ratio.iloc[0])}; it " if len(pooled) else ""
        words.append(
            f"Without normalization, the {study.percentages[-1]:g} % quantile {at_pooled}grows most at {most.layer}, "
            f"{times(most.ratio)}. It grows faster than in every normalized variant at {faster} of {len(mine)} layers."
        )
    ranges = [
        f"{within(str(label))} {times(rows.ratio.min())} to {times(rows.ratio.max())}"
        for label, rows in others.groupby("label", observed=True)
    ]
    return words + (
        [f"With normalization, the growth over the layers is between: {'; '.join(ranges)}."] if ranges else []
    )


def growth_table(study: Study, grown: pd.DataFrame) -> Table | None:
    """The highest quantile of the last epoch over that of the first, by layer and variant."""
    note = f"The {study.percentages[-1]:g} % quantile after the last epoch, as a multiple of that after the first."
    return _by_layer("Growth of each layer", grown, "ratio", note)


def level_table(study: Study, grown: pd.DataFrame) -> Table | None:
    """The highest quantile of the last epoch over that of the baseline, by layer."""
    theirs = grown[(grown.variant == BASELINE) & (grown["last"] > 0)].set_index("layer")["last"]
    mine = grown[(grown.variant != BASELINE) & grown.layer.isin(theirs.index)]
    mine = mine.assign(level=mine["last"] / mine.layer.map(theirs).astype(float))
    note = (
        f"The {study.percentages[-1]:g} % quantile after the last epoch, as a multiple of batch norm's in that layer."
    )
    return _by_layer("Against batch norm at the end", mine, "level", note)


def _by_layer(title: str, grown: pd.DataFrame, column: str, note: str) -> Table | None:
    table = grown.pivot(index="layer", columns="label", values=column).loc[list(dict.fromkeys(grown.layer))].map(times)
    frame = table.rename(columns=str).rename_axis(None, axis=1).rename_axis("Layer").reset_index()
    return Table(title, frame.set_axis([""] * len(frame)), note) if len(frame) else None
