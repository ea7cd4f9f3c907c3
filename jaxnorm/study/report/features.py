"""The page of the feature-evolution study, from the question to the last section."""

import pandas as pd

from jaxnorm.study.report import sections, sentences
from jaxnorm.study.report.comparisons import BASELINE, chosen, paired
from jaxnorm.study.report.folders import quantile_columns
from jaxnorm.study.report.formats import DASH, listed, times, within
from jaxnorm.study.report.frames import Study, finished_rows
from jaxnorm.study.report.page import Page, Section, Table
from jaxnorm.study.words import counted

QUESTION = "How do the features evolve, and do they diverge without normalization?"


def page(everything: Study) -> Page:
    """The answer, features and their growth, results, curves, gates, differences, and details."""
    study = chosen(everything)
    found, grown = paired(study), growth(study)
    layers = len(set(study.layers.layer) - {sections.POOLED})
    where = f"{layers} convolutions, before norm and ReLU, and of " * bool(layers) + "the pooled features"
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
            Section("Growth", tables=growth_tables(study, grown)),
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

    Columns `layer, variant, label, first, last` and `ratio` (nan where `first` is not positive), in the order in which
    the network applies the layers.
    """
    top, keys = quantile_columns(study.percentages)[-1], ["layer", "variant", "label"]
    means = finished_rows(study.layers).groupby([*keys, "epoch"], observed=True, sort=False)[top].mean().reset_index()
    found = means.groupby(keys, observed=True, sort=False)[top].agg(["first", "last", "size"]).reset_index()
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
    ratios = others.groupby("label", observed=True).ratio.agg(["min", "max"])
    ranges = [f"{within(str(one.Index))} {times(one.min)} to {times(one.max)}" for one in ratios.itertuples()]
    between = f"With normalization, the growth over the layers is between: {'; '.join(ranges)}."
    return [*words, between] if ranges else words


def growth_tables(study: Study, grown: pd.DataFrame) -> list[Table | None]:
    """The highest quantile of the last epoch by layer: over that of the first epoch, and over that of the baseline."""
    theirs = grown[(grown.variant == BASELINE) & (grown["last"] > 0)].set_index("layer")["last"]
    mine = grown[(grown.variant != BASELINE) & grown.layer.isin(theirs.index)]
    level = mine["last"] / mine.layer.map(theirs).astype(float)
    tables: list[Table | None] = []
    for title, rows, values, what in (
        ("Growth of each layer", grown, grown.ratio, "that after the first"),
        ("Against batch norm at the end", mine, level, "batch norm's in that layer"),
    ):
        table = rows.assign(shown=values.map(times)).pivot(index="layer", columns="label", values="shown")
        frame = table.loc[list(dict.fromkeys(rows.layer))].fillna(DASH).rename(columns=str).rename_axis(None, axis=1)
        frame = frame.rename_axis("Layer").reset_index().set_axis([""] * len(frame))
        note = f"The {study.percentages[-1]:g} % quantile after the last epoch, as a multiple of {what}."
        tables.append(Table(title, frame, note) if len(frame) else None)
    return tables
