"""Sections that several pages share, and the folded details at the end of every page."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jaxnorm.study.config import REVISABLE
from jaxnorm.study.report import feature_figures, figures, formats, sentences, style, tables
from jaxnorm.study.report.comparisons import SANITY_PAIR, chosen, validation_gaps, varies_rates
from jaxnorm.study.report.formats import listed, number, percent, within
from jaxnorm.study.report.frames import Study, finished_rows
from jaxnorm.study.report.page import Picture, Section
from jaxnorm.study.report.published import published_for
from jaxnorm.study.report.records import quantile_columns
from jaxnorm.study.report.statistics import mean_interval, standard_error

POOLED = "pooled"


def picture(study: Study, name: str, title: str, caption: str, figure: Figure) -> Picture:
    """A figure as the page and ``figures/NAME.png`` show it; its caption says on which data."""
    return Picture(name, title, f"{caption} Data: {study.data_description}.", style.png(figure))


def subtitle(study: Study) -> str:
    """What every figure says of itself."""
    return figures.subtitle(study.runs, study.data_description)


def test_accuracy(study: Study) -> list[Picture]:
    """The final test accuracies, a mark for each variant."""
    test, ends = study.final("test"), {}
    if not len(test):
        return []
    for label, rows in test.groupby("label", observed=True):
        mean, interval = float(rows.accuracy.mean()), mean_interval(rows.accuracy.tolist())
        error = standard_error(mean, int(rows.num_images.iloc[0]))
        ends[label] = (interval.low, interval.high) if interval else (mean - error, mean + error)
    known = {norm: one.test for norm, one in published_for(study.recipe).items()}
    bars = pd.DataFrame.from_dict(ends, orient="index", columns=["low", "high"])
    several = test.variant.duplicated().any()
    caption = "Accuracy after the last epoch. " + (
        "Pale dots: seeds; large mark: their mean with its 95 % interval, which is not paired."
        if several
        else "Bar: one standard error from the number of test images, to either side."
    ) + (" Hollow diamonds: the original paper, one seed each." if set(known) & set(test.norm) else "")  # fmt: skip
    drawn = figures.test_accuracy(test, bars, subtitle(study), known)
    return [picture(study, "test_accuracy", "Accuracy on the test images", caption, drawn)]


def curves(study: Study) -> Section:
    """Accuracy and loss over training, and the sanity check."""
    if not len(study.epochs):
        return Section("Training")
    band = " Lines: mean over the finished seeds; bands: lowest to highest." if tables.digits(study) == 2 else ""
    cross = " A cross: a run diverged." if (study.runs.status == "diverged").any() else ""
    drawn = [
        picture(
            study, "accuracy", "Accuracy over training",
            "Training accuracy is of each epoch's augmented batches, while the weights change; validation accuracy is of "
            f"untouched images after the epoch.{band}{cross}",
            figures.accuracy(study.runs, study.epochs, subtitle(study)),
        ),
        picture(
            study, "loss", "Loss over training", "Mean cross entropy in nats of the same epochs.",
            figures.loss(study.runs, study.epochs, subtitle(study)),
        ),
    ]  # fmt: skip
    if set(SANITY_PAIR) <= set(study.epochs.norm) and validation_gaps(study).size:
        library, own = (within(study.labels[norm]) for norm in SANITY_PAIR)
        caption = (
            f"Library against ours: {library} minus {own}, from the same seeds. Band: half a point. The two round "
            "differently, which training amplifies while the learning rate is high."
        )
        figure = figures.sanity_check(study.epochs, subtitle(study))
        drawn.append(picture(study, "sanity_check", "The library's batch norm against ours", caption, figure))
    return Section("Training", figures=drawn)


def last_convolution(study: Study) -> str | None:
    """The last layer before norm and ReLU of which quantiles were recorded."""
    return next((layer for layer in reversed(list(dict.fromkeys(study.layers.layer))) if layer != POOLED), None)


def features(study: Study) -> Section:
    """What the layers compute: pooled, the last convolution, and all layers where these were recorded."""
    drawn: list[Picture] = []
    if len(study.epochs):
        known = {
            norm: one.feature_quantiles or ()
            for norm, one in published_for(study.recipe).items()
            if study.num_epochs == 100 and (study.epochs.epoch[study.epochs.norm == norm] == 100).any()
        }
        caption = (
            f"{listed([f'{value:g}' for value in study.percentages])} % quantiles of the input of the last layer, over all "
            "validation images, in evaluation mode. Dark band: the middle of the values; pale band: nearly all."
        ) + (" Hollow diamonds: the original paper, read off its plots." if known else "")
        figure = feature_figures.feature_quantiles(study.epochs, subtitle(study), published=known)
        drawn.append(picture(study, "feature_quantiles", "Distribution of the pooled features", caption, figure))
    layer = last_convolution(study)
    drawn += _histograms(study, POOLED, "pooled_histograms", "Histograms of the pooled features")
    if layer:
        rows, title = study.layers[study.layers.layer == layer], "Distribution of the last convolution"
        figure = feature_figures.feature_quantiles(rows, f"{subtitle(study)} · {layer}", title)
        caption = f"The same at {layer}, before norm and ReLU: where the Group Normalization paper looks (its conv5_3)."
        drawn.append(picture(study, "last_convolution", title, caption, figure))
        drawn += _histograms(study, layer, "convolution_histograms", "Histograms of the last convolution")
        caption = "Every convolution's output before norm and ReLU, and the pooled features. A row shares its axis."
        figure = feature_figures.layers(study.layers, subtitle(study))
        drawn.append(picture(study, "layers", "Distribution of every layer over training", caption, figure))
    return Section("Features", figures=drawn)


def _histograms(study: Study, layer: str, name: str, title: str) -> list[Picture]:
    counts = study.histograms(layer)
    if not counts:
        return []
    caption = "Every value on the validation images, counted exactly, at the first, middle and last recorded epoch."
    figure = feature_figures.histograms(counts, study.runs, layer, title, subtitle(study))
    return [picture(study, name, title, caption, figure)]


def gates(study: Study) -> Section:
    """Batch-instance norm's gates: where they end, and how they got there."""
    rows = finished_rows(study.gates)
    if not len(rows):
        return Section("Gates")
    words, last = [], rows[rows.epoch == rows.groupby("variant", observed=True).epoch.transform("max")]
    for label, mine in last.groupby("label", observed=True):
        low, middle, high = (number(float(value), 2) for value in np.quantile(mine.gate, (0.1, 0.5, 0.9)))
        moved, name = float((np.abs(mine.gate - 1) > 1e-6).mean()), within(str(label))
        words.append(
            f"Of the {len(mine):,} gates of {name}, {percent(moved, 0)} % are below their start at 1 after epoch "
            f"{mine.epoch.iloc[0]}: the median is {middle}, and 80 % are between {low} and {high}."
            if moved
            else f"The gates of {name} are all at 1, as in the original paper: such a layer computes batch norm."
        )
    ends = "A gate of 1 takes the batch's statistics alone, a gate of 0 the image's own; all start at 1."
    drawn = [
        picture(study, "gate_histograms", "Gates of every layer at the end", f"Gates after the last epoch. {ends}",
                feature_figures.gate_histograms(study.runs, study.gates, subtitle(study))),
        picture(study, "gate_paths", "Gates over training",
                "Median over channels with a band from 10 to 90 %; share of channels exactly at 1 and at 0.",
                feature_figures.gate_paths(study.runs, study.gates, subtitle(study))),
    ]  # fmt: skip
    return Section("Gates", words, figures=drawn, tables=[tables.gates(study)])


def learning_rates(study: Study) -> Section:
    """The control over learning rates; `study` has all of them."""
    if not varies_rates(study) or study.name == "batch_size_study":
        return Section("Learning rates")
    final, drawn = study.final("validation"), []
    if len(final):
        drawn = [
            picture(study, "learning_rates", "Validation error by learning rate",
                    "Validation error after the last epoch, the basis of the choice.",
                    figures.learning_rates(study.runs, final, subtitle(study)))
        ]  # fmt: skip
    return Section("Learning rates", figures=drawn, tables=[tables.rates(study)])


def chosen_rates(study: Study) -> list[str]:
    """At which learning rate each norm is shown."""
    best = chosen(study).finished.drop_duplicates("norm")
    if not varies_rates(study) or study.name == "batch_size_study" or not len(best):
        return []
    named = {rate: listed([within(label) for label in rows.norm_label]) for rate, rows in best.groupby("learning_rate")}
    text = "; ".join(f"{rate:g} for {names}" for rate, names in named.items())
    return [f"Each norm is shown at the learning rate with its highest mean validation accuracy: {text}."]


def comparison(study: Study, found: pd.DataFrame) -> Section:
    """Paired differences and what they can show."""
    return Section("Paired differences", [sentences.about_statistics(found)], [tables.comparison(study, found)])


def details(study: Study, everything: Study, time: Any = None) -> list[Section]:
    """The folded end of every page; `everything` has the runs at learning rates that were not chosen, too."""
    test = study.final("test")
    confusion = []
    if len(test):
        size = len(test.confusion_matrix.iloc[0])
        names = [str(name) for name in study.data.get("class_names") or ()]
        names = names if len(names) == size else [str(index) for index in range(size)]
        figure = figures.confusion(test, names, subtitle(study))
        caption = "Share of each class's test images (row) by the class that was predicted (column), over all seeds."
        confusion = [picture(study, "confusion", "Confusions on the test images", caption, figure)]
    return [
        Section("All metrics", tables=tables.metrics(study), folded=True),
        Section("Classes", figures=confusion, folded=True),
        Section("Calibration", tables=[tables.calibration(study)], folded=True),
        Section("Time", tables=[time or tables.time(study)], folded=True),
        Section("Runs", tables=[tables.runs(everything)], folded=True),
        Section("Configuration", facts=_configuration(everything), folded=True),
        Section("Data and machine", facts=_provenance(everything), folded=True),
        Section("Command", code=str(study.plan.get("command") or ""), folded=True),
    ]


def _configuration(study: Study) -> dict[str, str]:
    """The plan and the recipe; what the study varies shows all its values."""
    facts = {key: study.plan.get(key) for key in ("study", "preset", "norms", "seeds")} | dict(study.recipe)
    facts |= {name.removesuffix("s"): values for name, values in (study.plan.get("grid") or {}).items() if values}
    return {key: _value(value) for key, value in facts.items()}


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(map(_value, value)) or "none"
    return "none" if value is None else {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


FACTS: Mapping[str, Callable[[Any], Any]] = {
    "Data": lambda p: p["data"]["description"],
    "Source": lambda p: p["data"]["source"],
    "Fingerprint": lambda p: p["data"]["fingerprint"],
    "Images": lambda p: "{num_train:,} train, {num_validation:,} validation, {num_test:,} test".format(**p["data"]),
    "Image shape": lambda p: " × ".join(map(str, p["data"]["image_shape"])),
    "Device": lambda p: f"{p['device']['count']} × {p['device']['kind']} ({p['device']['platform']})",
    "CPU cores": lambda p: p["device"]["cores"],
    "Versions": lambda p: ", ".join(f"{name} {version}" for name, version in p["versions"].items()),
    "XLA_FLAGS": lambda p: p["xla_flags"] or "none",
    "Matmul precision": lambda p: p["matmul_precision"],
    "Commit": lambda p: (p["git"]["commit"] or "none") + (", with changes" if p["git"]["dirty"] else ""),
}


def _provenance(study: Study) -> dict[str, str]:
    """What the runs recorded about themselves; where they differ, every value with how many runs have it."""
    found = {}
    for name, read in FACTS.items():
        values: list[str] = []
        for provenance in study.runs.provenance:
            try:
                values.append(str(read(provenance)))
            except (KeyError, TypeError, ValueError):
                continue  # a run that has not started, or that recorded less
        counts = {value: values.count(value) for value in values}
        if counts:
            several = len(counts) > 1
            found[name] = "; ".join(f"{value} ({count} runs)" if several else value for value, count in counts.items())
    runs = study.runs.to_dict("records")
    changes = [f"{run['name']}: {change}" for run in runs for change in run["provenance"].get("changes", ())]
    changes += [
        f"{run['name']}: {name} {_value(run[name])} instead of {_value(value)}"
        for run in runs
        for name, value in study.recipe.items()
        if name in REVISABLE and run[name] != value
    ]
    return found | ({"Changed on the way": "; ".join(changes)} if changes else {})
