"""The page of the feature-evolution study, from the question to the last section."""

import pandas as pd

from jaxnorm.study.config import network_words
from jaxnorm.study.report import effective_rates, smoothness
from jaxnorm.study.report.comparisons import BASELINE, chosen
from jaxnorm.study.report.formats import DASH, listed, number, percent, times, undecided, within
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
            f"{network_words(study.recipe)} is trained on {study.data_description} in "
            f"{counted(chosen_study.runs.variant.nunique(), 'variant')} that differ in nothing but their "
            f"normalization. After every epoch the {listed([name[1:] for name in study.quantiles])} % quantiles "
            f"of {where} are taken over all validation images, exactly."
        ),
        lead=parts.lead(answer),
        cautions=parts.cautions(),
        sections=[
            parts.features(),
            Section("Layers", tables=[layers_table(chosen_study, grown)]),
            parts.results(),
            parts.learning_rates(),
            parts.curves(),
            parts.gates(),
            parts.comparison(),
            effective_rates.section(parts),
            smoothness.section(parts),
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
    """How large features become without normalization, beside batch norm's; and how they change with normalization."""
    words, top = [], study.quantiles[-1][1:]
    mine, base = (grown[grown.variant == norm].set_index("layer") for norm in ("none", BASELINE))
    if len(mine):
        pooled = [
            _course(study, norm, rows) for norm, rows in (("none", mine), (BASELINE, base)) if POOLED in rows.index
        ]
        words += [f"The {top} % quantile of the pooled features goes {' and '.join(pooled)}."] * bool(pooled)
        ends = (mine["last"] / base["last"]).where(base["last"] > 0).dropna().sort_values()
        if len(ends):
            words.append(
                f"After the last epoch the quantile without normalization is {times(ends.iloc[0])} batch norm's at "
                f"{ends.index[0]} to {times(ends.iloc[-1])} at {ends.index[-1]}."
            )
    others = grown.ratio[grown.variant != "none"].dropna()
    if len(others):
        words.append(
            f"With normalization, the {top} % quantile after the last epoch is {times(others.min())} to "
            f"{times(others.max())} that after the first, over all layers and variants."
        )
    few = undecided(study.runs.groupby("variant").size().max())
    return [*words, *filter(None, [few])] if words else []


def _course(study: Study, norm: str, rows: pd.DataFrame) -> str:
    """How the highest quantile of a norm's pooled features begins and ends, and what is learned by then."""
    known, ends = finished_rows(study.epochs[study.epochs.norm == norm]), []
    for place, epoch in (("first", known.epoch.min()), ("last", known.epoch.max())):
        accuracy = percent(known.train_accuracy[known.epoch == epoch].mean())
        ends.append(f"{number(rows[place][POOLED], 2)} after epoch {epoch} (training accuracy {accuracy} %)")
    return f"from {' to '.join(ends)} with {within(rows.label.iloc[0])}"


def layers_table(study: Study, grown: pd.DataFrame) -> Table | None:
    """The highest quantile of each layer of a `study` at the end, from `growth`; None without layers."""
    table = grown.assign(shown=grown["last"].map(lambda last: number(last, 2)))
    table = table.pivot(index="layer", columns="label", values="shown").loc[list(dict.fromkeys(grown.layer))]
    frame = table.fillna(DASH).rename(columns=str).rename_axis(None, axis=1).rename_axis("Layer").reset_index()
    note = f"The {study.quantiles[-1][1:]} % quantile after the last epoch."
    return Table("Layers", frame.set_axis([""] * len(frame)), note) if len(frame) else None
