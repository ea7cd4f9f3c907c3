"""Sections that several pages share, and the folded details at the end of every page."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jaxnorm.study.config import REVISABLE
from jaxnorm.study.report import feature_figures, figures, sentences, style, tables
from jaxnorm.study.report.comparisons import SANITY_PAIR, chosen, validation_gaps, varies_rates
from jaxnorm.study.report.folders import quantile_columns
from jaxnorm.study.report.formats import listed, number, percent, within
from jaxnorm.study.report.frames import Study
from jaxnorm.study.report.page import Picture, Section
from jaxnorm.study.report.published import SOURCE, published_for
from jaxnorm.study.report.statistics import mean_interval, standard_error

POOLED = "pooled"


def picture(study: Study, name: str, caption: str, figure: Figure) -> Picture:
    """A figure as the page and ``figures/NAME.png`` show it; its caption says on which data."""
    caption = f"{caption} Data: {study.data_description}."
    return Picture(name, figure.get_suptitle().strip(), caption, style.png(figure, dpi=144))


def subtitle(study: Study) -> str:
    """What every figure says of itself."""
    return figures.subtitle(study.runs, study.data_description)


def results(study: Study) -> Section:
    """The final accuracies as a table and as a figure."""
    test, ends = study.final("test"), {}
    if not len(test):
        return Section("Results", tables=[tables.results(study)])
    for label, rows in test.groupby("label", observed=True):
        mean, interval = float(rows.accuracy.mean()), mean_interval(rows.accuracy)
        error = standard_error(mean, int(rows.num_images.iloc[0]))
        ends[label] = (interval.low, interval.high) if interval else (mean - error, mean + error)
    known = {norm: one.test for norm, one in published_for(study.recipe).items()}
    caption = "Accuracy after the last epoch. Bar: one standard error from the number of test images, to either side."
    if tables.digits(study) == 2:
        caption = "Pale dots: seeds. Large mark: their mean, with its 95 % interval, which is not paired."
    caption += " Hollow diamonds: the original paper." * bool(set(known) & set(test.norm))
    drawn = figures.test_accuracy(test, ends, subtitle(study), known)
    return Section("Results", tables=[tables.results(study)], figures=[picture(study, "test_accuracy", caption, drawn)])


def curves(study: Study) -> Section:
    """Accuracy and loss over training, and the sanity check."""
    runs, epochs, about, drawn = study.runs, study.epochs, subtitle(study), []
    if not len(epochs):
        return Section("Training")
    caption = (
        "Training accuracy: each epoch's augmented batches, while the weights change. Validation: after the epoch."
    )
    caption += " Lines: mean over the finished seeds; bands: lowest to highest." * (tables.digits(study) == 2)
    caption += " A cross: a run diverged." * bool((runs.status == "diverged").any())
    for kind, said in (("accuracy", caption), ("loss", "Cross entropy in nats.")):
        drawn.append(picture(study, kind, said, figures.curves(runs, epochs, kind, about)))
    if set(SANITY_PAIR) <= set(epochs.norm) and validation_gaps(study).size:
        caption = (
            "The two layers round differently, which training amplifies while the rate is high. Band: half a point."
        )
        drawn.append(picture(study, "sanity_check", caption, figures.sanity_check(epochs, about)))
    return Section("Training", figures=drawn)


def features(study: Study) -> Section:
    """What the layers compute: the pooled features, and all layers where these were recorded."""
    about, drawn = subtitle(study), []
    if study.epochs[quantile_columns(study.percentages)].notna().any(axis=None):
        to_its_end = study.recipe.get("num_epochs") == 100 and set(study.epochs.norm[study.epochs.epoch == 100])
        known = {norm: one.feature_quantiles or () for norm, one in published_for(study.recipe).items()}
        known = {norm: values for norm, values in known.items() if to_its_end and norm in to_its_end}
        names = listed([f"{value:g}" for value in study.percentages])
        caption = f"{names} % quantiles of the last layer's input over all validation images, in evaluation mode."
        caption += " Hollow diamonds: the original paper, read off its plots." * bool(known)
        figure = feature_figures.feature_quantiles(study.epochs, about, published=known)
        drawn.append(picture(study, "feature_quantiles", caption, figure))
    if set(study.layers.layer) - {POOLED}:
        caption = "Every convolution before norm and ReLU, and the pooled features."
        drawn.append(picture(study, "layers", caption, feature_figures.layers(study.layers, about)))
    return Section("Features", figures=drawn)


def gates(study: Study) -> Section:
    """Batch-instance norm's gates: where they end, and how they got there."""
    words, last, about = [], feature_figures.final_gates(study.gates), subtitle(study)
    if not len(last):
        return Section("Gates")
    for label, mine in last.groupby("label", observed=True):
        low, middle, high = (number(float(value), 2) for value in np.quantile(mine.gate, (0.1, 0.5, 0.9)))
        moved, name = float((np.abs(mine.gate - 1) > 1e-6).mean()), within(str(label))
        words.append(
            f"Of the {len(mine):,} gates of {name}, {percent(moved, 0)} % are below their start at 1 after epoch "
            f"{mine.epoch.iloc[0]}; the median is {middle}, and 80 % are between {low} and {high}."
            if moved
            else f"The gates of {name} are all at 1, as in the original paper: such a layer computes batch norm."
        )
    ends = "A gate of 1 takes the batch's statistics alone, a gate of 0 the image's own; all start at 1."
    band = "Median over channels with a band from 10 to 90 %; share of channels exactly at 1 and at 0."
    drawn = [
        picture(study, "gate_histograms", ends, feature_figures.gate_histograms(study.runs, study.gates, about)),
        picture(study, "gate_paths", band, feature_figures.gate_paths(study.runs, study.gates, about)),
    ]
    return Section("Gates", words, figures=drawn, tables=[tables.gates(study)])


def learning_rates(study: Study) -> Section:
    """The control over learning rates; `study` has all of them."""
    final, drawn = study.final("validation"), []
    if not varies_rates(study):
        return Section("Learning rates")
    best = chosen(study).finished.drop_duplicates("norm").groupby("learning_rate")
    named = [f"{rate:g} for {listed([within(label) for label in rows.norm_label])}" for rate, rows in best]
    words = f"Each norm is shown at the rate with its highest mean validation accuracy: {'; '.join(named)}."
    if len(final):
        figure = figures.learning_rates(study.runs, final, subtitle(study))
        drawn = [picture(study, "learning_rates", "Validation error after the last epoch decides.", figure)]
    return Section("Learning rates", [words], figures=drawn, tables=[tables.rates(study)])


def comparison(study: Study, found: pd.DataFrame) -> Section:
    """Paired differences and what they can show."""
    return Section("Paired differences", [sentences.about_statistics(found)], [tables.comparison(study, found)])


def details(study: Study, everything: Study, time: Any = None) -> list[Section]:
    """The folded end of every page; `everything` has the runs at learning rates that were not chosen, too."""
    test, confusion = study.final("test"), []
    if len(test):
        names = [str(name) for name in study.data.get("class_names") or ()]
        figure = figures.confusion(test, names, subtitle(study))
        caption = "Share of each class's test images (row) by the class that was predicted (column), over all seeds."
        confusion = [picture(study, "confusion", caption, figure)]
    source = [f"The original paper is {SOURCE}; its values are from one seed each."] * bool(published_for(study.recipe))
    plan = {name: study.plan.get(name) for name in ("study", "preset", "norms", "seeds")}
    varied = {name.removesuffix("s"): values for name, values in (study.plan.get("grid") or {}).items() if values}
    facts = {name: _value(value) for name, value in {**plan, **study.recipe, **varied}.items()}
    return [
        Section("All metrics", source, tables=[tables.metrics(study)], folded=True),
        Section("Classes", figures=confusion, folded=True),
        Section("Calibration", tables=[tables.calibration(study)], folded=True),
        Section("Time", tables=[time or tables.time(study)], folded=True),
        Section("Runs", tables=[tables.runs(everything)], folded=True),
        Section("Configuration", facts=facts, folded=True),
        Section("Data and machine", facts=_provenance(everything), folded=True),
        Section("Command", code=str(study.plan.get("command") or ""), folded=True),
    ]


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(map(_value, value)) or "none"
    return {"None": "none", "": "none", "True": "yes", "False": "no"}.get(str(value), str(value))


def _provenance(study: Study) -> dict[str, str]:
    """What the runs recorded about themselves; where they differ, every value with how many runs have it."""
    own = ("label", "command", "started", "earlier", "changes")
    known = [{key: each for key, each in one.items() if key not in own} for one in study.runs.provenance if one]
    found = {}
    for name, values in pd.json_normalize(known).map(_value).sort_index(axis=1).items():
        counts = values.value_counts(sort=False)
        found[str(name)] = "; ".join(f"{value} ({n} runs)" if len(counts) > 1 else value for value, n in counts.items())
    changes = [f"{run.name}: {text}" for run in study.runs.itertuples() for text in run.provenance.get("changes", ())]
    for name in set(REVISABLE) & set(study.recipe):
        for run in study.runs[study.runs[name] != study.recipe[name]].to_dict("records"):
            changes.append(f"{run['name']}: {name} {run[name]} instead of {study.recipe[name]}")
    return found | ({"changed on the way": "; ".join(changes)} if changes else {})
