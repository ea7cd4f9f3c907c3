"""The page of the feature-evolution study, from the question to the last section."""

import pandas as pd

from jaxnorm.study.report.comparisons import chosen
from jaxnorm.study.report.formats import DASH, listed, times, within
from jaxnorm.study.report.frames import POOLED, Study, finished_rows
from jaxnorm.study.report.page import Page, Section, Table
from jaxnorm.study.report.sections import Sections
from jaxnorm.study.words import counted


def page(study: Study) -> Page:
    """The page of a `study`: the answer, features and their growth, results, curves, gates, differences, details."""
    chosen_study = chosen(study)
    parts, grown = Sections(chosen_study, study), growth(chosen_study)
    layers = len(set(chosen_study.layers.layer) - {POOLED})
    where = f"{layers} convolutions, before norm and ReLU, and of " * bool(layers) + "the pooled features"
    answer = _answer(chosen_study, grown) or ["No run has recorded more than one epoch of its layers yet."]
    return Page(
        title="How do the features evolve, and do they diverge without normalization?",
        kicker=f"{study.name.replace('_', ' ')} · {study.data_description}",
        introduction=(
            f"A 14-layer residual network is trained on {study.data_description} in "
            f"{counted(chosen_study.runs.variant.nunique(), 'variant')} that differ in nothing but their "
            f"normalization. After every epoch the {listed([name[1:] for name in study.quantiles])} % quantiles "
            f"of {where} are taken over all validation images, exactly."
        ),
        lead=parts.lead(answer),
        cautions=parts.cautions(),
        sections=[
            parts.features(),
            Section("Growth", tables=[growth_table(chosen_study, grown)]),
            parts.results(),
            parts.learning_rates(),
            parts.curves(),
            parts.gates(),
            parts.comparison(),
            *parts.details(),
        ],
    )


def growth(study: Study) -> pd.DataFrame:
    """The highest recorded quantile after the first and the last epoch, of every variant and layer of a `study`.

    Columns `layer, variant, label, first, last` and `ratio` (nan where `first` is not positive), in the order in which
    the network applies the layers.
    """
    top, keys = study.quantiles[-1], ["layer", "variant", "label"]
    means = finished_rows(study.layers).groupby([*keys, "epoch"], observed=True, sort=False)[top].mean().reset_index()
    found = means.groupby(keys, observed=True, sort=False)[top].agg(["first", "last", "size"]).reset_index()
    found = found[found["size"] > 1]
    return found.assign(ratio=(found["last"] / found["first"]).where(found["first"] > 0))


def _answer(study: Study, grown: pd.DataFrame) -> list[str]:
    """Whether features grow, by how much and where, without normalization and with it."""
    words, known = [], grown.dropna(subset="ratio")
    mine, others = known[known.variant == "none"], known[known.variant != "none"]
    if len(mine):
        most, pooled = mine.loc[mine.ratio.idxmax()], mine[mine.layer == POOLED]
        fastest = others.groupby("layer", observed=True).ratio.max()
        faster = (mine.ratio > mine.layer.map(fastest).astype(float)).sum()
        at_pooled = f"of the pooled features grows {times(pooled.ratio.iloc[0])}; it " if len(pooled) else ""
        words.append(
            f"Without normalization, the {study.quantiles[-1][1:]} % quantile {at_pooled}grows most at {most.layer}, "
            f"{times(most.ratio)}. It grows faster than in every normalized variant at {faster} of {len(mine)} layers."
        )
    ratios = others.groupby("label", observed=True).ratio.agg(["min", "max"])
    ranges = [f"{within(str(one.Index))} {times(one.min)} to {times(one.max)}" for one in ratios.itertuples()]
    between = f"With normalization, the growth over the layers is between: {'; '.join(ranges)}."
    return [*words, between] if ranges else words


def growth_table(study: Study, grown: pd.DataFrame) -> Table | None:
    """By layer of a `study`, how many times its highest quantile has `grown`, see `growth`; None without layers."""
    table = grown.assign(shown=grown.ratio.map(times)).pivot(index="layer", columns="label", values="shown")
    frame = table.loc[list(dict.fromkeys(grown.layer))].fillna(DASH).rename(columns=str).rename_axis(None, axis=1)
    frame = frame.rename_axis("Layer").reset_index().set_axis([""] * len(frame))
    note = f"The {study.quantiles[-1][1:]} % quantile after the last epoch, as a multiple of that after the first."
    return Table("Growth of each layer", frame, note) if len(frame) else None
