"""What pages share: their sections, and the sentences of the lead and of the cautions."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jaxnorm.study.config import unusual
from jaxnorm.study.planned import recorded
from jaxnorm.study.report import accuracy_figures, feature_figures, figures, style, tables
from jaxnorm.study.report.comparisons import BASELINE, LEAST_PAIRS, chosen, families, null_words, nulls, paired, plan_of
from jaxnorm.study.report.formats import NAMED, interval_points, listed, number, p_value, percent, points, within
from jaxnorm.study.report.frames import POOLED, Study
from jaxnorm.study.report.page import Picture, Section
from jaxnorm.study.report.published import published_for
from jaxnorm.study.report.statistics import LEAST_SEEDS, Interval, mean_interval, wilson
from jaxnorm.study.words import counted

_VERDICTS = {True: "shown to differ", False: "no difference shown", None: "without a verdict"}


@dataclass(frozen=True)
class Sections:
    """The sections and sentences of a study's page. An empty section is left out of the page.

    Attributes:
        study: the study with each norm at one learning rate, see `comparisons.chosen`.
        all_rates: the study with all its runs.
    """

    study: Study
    all_rates: Study

    @cached_property
    def _found(self) -> pd.DataFrame:
        return paired(self.study)

    @property
    def _has_rates(self) -> bool:
        return len((self.all_rates.plan.get("grid") or {}).get("learning_rates") or ()) > 1

    @cached_property
    def about(self) -> str:
        """The subtitle of every figure."""
        return figures.subtitle(self.study.runs, self.study.data_description)

    def picture(self, name: str, caption: str, figure: Figure) -> Picture:
        """The `figure` with its `caption`; `name` is that of its file."""
        return Picture(name, figure.get_suptitle().strip(), caption, style.png(figure))

    def lead(self, answer: list[str]) -> list[str]:
        """The sentences of an `answer`, and which runs failed."""
        runs = [run for run in self.study.runs.itertuples() if run.status in ("diverged", "crashed")]
        fates = [f"{within(str(run.label))} (seed {run.seed}) {tables.status(run).partition(':')[0]}" for run in runs]
        nothing = "No run has finished yet, so there is no result to report; below is what has been trained so far."
        failed = [f"Without final figures: {listed(fates, NAMED)}."] if fates else []
        return [*(answer if len(self.study.finished) else [nothing]), *failed]

    def accuracy_range(self) -> list[str]:
        """The lowest and the highest test accuracy."""
        test = self.study.final("test")
        if not len(test):
            return []
        means = test.groupby("label", observed=True).accuracy.mean().sort_values()
        shown = means.map(lambda mean: percent(mean, self.study.digits))
        low, high = shown.iloc[0], shown.iloc[-1]
        names = {end: listed([within(str(one)) for one in shown.index[shown == end].sort_values()]) for end in shown}
        images = f"On {test.num_images.iloc[0]:,.0f} test images, accuracy"
        images += ", the mean over the finished seeds," * (self.study.digits == 2)
        if low == high:
            return [f"{images} is {low} % ({names[low]})."]
        return [f"{images} ranges from {low} % ({names[low]}) to {high} % ({names[high]})."]

    def against_baseline(self) -> list[str]:
        """Which variants differ from batch norm where a test can say so; else by how much, without a verdict."""
        found = self._found[(self._found.quantity == "accuracy") & (self._found.baseline == BASELINE)]
        found = found[found.norm.ne(BASELINE) & (found.test != "null") & (found.test != "equality")]
        groups: dict[str, list[str]] = {}
        for one in found.itertuples():
            unplanned = one.differs is not None and not one.planned
            verdict = _VERDICTS[one.differs] + " (comparisons not planned)" * unplanned
            text = f"{within(one.label)} {points(one.mean)}"
            if one.both:
                text += f" ({interval_points(one.both)})"
            groups.setdefault(verdict, []).append(text)
        said = "; ".join(f"{start}: {listed(texts)}" for start, texts in groups.items())
        both = ", with the 95 % interval for another seed and other test images" if found.both.notna().any() else ""
        few = found.seeds.map(len).max() < LEAST_SEEDS if len(found) else False
        why = f" Fewer than {LEAST_SEEDS} seeds cannot separate a layer's effect from a seed's." if few else ""
        lines = [f"Test accuracy against batch norm, in points{both}; {said}.{why}"] if said else []
        return [*lines, *null_words(self.study), *self._pairing()]

    def _pairing(self) -> list[str]:
        """What pairing by seed gains."""
        found = self._found.correlation[self._found.quantity == "accuracy"].dropna().astype(float)
        if not len(found):
            return []
        return [
            f"Pairing by seed: over {counted(len(found), 'comparison')} the correlation of the two accuracies is "
            f"{number(found.mean(), 2)} on average; with a correlation of 0, pairing gains nothing."
        ]

    def planned(self, quantity: str = "accuracy") -> list[str]:
        """What the planned tests of differences in a `quantity` show."""
        lines, found = [], self._found[self._found.planned & self._found.p.notna()]
        for one in found[found.quantity == quantity].itertuples():
            said = f"test accuracy, {within(one.label)} against {within(one.against)}: {points(one.mean)} points"
            if one.both:
                said += f" (95 % interval for another seed and other test images {interval_points(one.both)})"
            if quantity == "train_loss":
                ends = [number(end, 3) for end in (one.interval.low, one.interval.high)] if one.interval else []
                said = f"training loss of the last epoch, {within(one.label)} against {within(one.against)}: "
                said += number(one.mean, 3) + f" (95 % interval over seeds {' to '.join(ends)})" * bool(ends)
            test = "" if one.test == "difference" else f", one-sided ({one.test})"
            p = f"{counted(len(one.seeds), 'seed')}, corrected p {p_value(one.holm_p)}{test}"
            lines.append(f"Planned: {said}, {p}: {_VERDICTS[one.differs]}.")
        return lines

    def equality(self) -> list[str]:
        """What the equality tests of the plan say; of others only the interval."""
        lines, plan = [], plan_of(self.study)
        for one in self._found[self._found.test.isin(["equality", "null"]) & self._found.narrow.notna()].itertuples():
            text = f"{one.label} is {points(one.mean)} points from {within(one.against)} on test"
            text += f" (90 % interval for another seed and other images {interval_points(one.narrow)})"
            if plan and one.equal is not None:
                said = "equal" if one.equal else "not shown to be equal"
                text += f": {said} within {plan.margin:g} points by two one-sided tests at 5 %"
            lines.append(f"{text}.")
        return lines

    def cautions(self) -> list[str]:
        """What must be known before any number is believed."""
        study, found = self.study, []
        test, planned, data = study.final("test"), study.recipe.get("num_epochs"), study.data_description
        if study.recipe.get("dataset") == "digits":
            images = int(test.num_images.iloc[0]) if len(test) else int(study.data.get("num_test") or 360)
            means = test.groupby("label", observed=True).accuracy.mean().tolist() or [0.95]
            ends = wilson(max(means), images)
            found.append(
                f"This is a demonstration on {images} test images of small handwritten digits: one network "
                f"with {percent(max(means))} %, the highest accuracy, would have {percent(ends.low)} to "
                f"{percent(ends.high)} % on other images (95 % interval, Wilson). The full experiment "
                "needs CIFAR-10: --preset study."
            )
        rates, runs = sorted(self.all_rates.runs.learning_rate.unique()), study.finished.drop_duplicates("norm")
        edge = runs.norm_label[runs.learning_rate.isin([rates[0], rates[-1]])].map(within).tolist()
        if edge and self._has_rates:
            found.append(
                f"The rate that was chosen is the lowest or the highest of the tried ones for {listed(edge)}: a rate "
                "beyond it may be better, which would change the differences."
            )
        if others := unusual(study.recipe):
            said = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in others.items() if value is not None)
            found.append(f"The network or its optimizer is not that of the original paper: {said}.")
        if "jpeg" in data.lower():
            found.append(f"The images are {data}, not the original pixels: differences from the paper include this.")
        if study.recipe.get("dataset") == "cifar10" and planned not in (None, 100):
            found.append(
                f"The schedule has {counted(planned, 'epoch')}; that of the original paper has 100. Its values are "
                "beside ours for orientation only."
            )
        stops = sorted(set(study.finished.epoch.dropna()))
        if stops and planned is not None and stops[0] < planned:
            found.append(f"Training was stopped after epoch {listed([*map(str, stops)])} of the schedule's {planned}.")
        waiting = study.runs.name[study.runs.status.isin(["unfinished", "missing"])].tolist()
        if waiting:
            found.append(
                f"Not finished: {len(waiting)} of {counted(len(study.runs), 'run')} ({listed(waiting, NAMED)}). "
                "The same command continues where it stopped."
            )
        if len({str(one["data"].get("fingerprint")) for one in study.runs.provenance if one.get("data")}) > 1:
            found.append("The runs were not all trained on the same data, so do not compare them: fingerprints differ.")
        return found

    def results(self) -> Section:
        """The final accuracies as a table and as a figure."""
        study, ends, table = self.study, {}, tables.results(self.study)
        test = study.final("test")
        if not len(test):
            return Section("Results", tables=[table])
        for label, rows in test.groupby("label", observed=True):
            values = rows.accuracy.tolist()
            lowest = Interval(min(values), max(values), "lowest to highest")
            interval = mean_interval(values) or (lowest if values[1:] else wilson(values[0], rows.num_images.iloc[0]))
            ends[label] = (interval.low, interval.high)
        known = {norm: one.test for norm, one in published_for(study.recipe).items()}
        caption = "Accuracy after the last epoch. Bar: 95 % interval for other test images (Wilson)."
        if study.digits == 2:
            enough = test.groupby("label", observed=True).size() >= LEAST_SEEDS
            bars = ["its 95 % interval over seeds, which is not paired"] * bool(enough.any())
            bars += ["lowest to highest of the few seeds"] * (not enough.all())
            caption = f"Pale dots: seeds. Large mark: their mean. Bar: {' or '.join(bars)}."
        caption += " Hollow diamonds: the original paper." * bool(set(known) & set(test.norm))
        drawn = accuracy_figures.test_accuracy(test, ends, self.about, known)
        return Section("Results", tables=[table], figures=[self.picture("test_accuracy", caption, drawn)])

    def comparison(self) -> Section:
        """Paired differences and what they can show."""
        found, words = self._found, [self._planned()]
        n, corrected = max(map(len, found.seeds), default=0), families(found, plan_of(self.study))
        if n < 2:
            words.append(
                "One seed: nothing here shows how much another seed would change a difference. Interval: Bonett and "
                "Price, for other test images and the weights as trained; p: McNemar's exact test."
            )
        else:
            few = f"fewer than {LEAST_SEEDS} seeds have none" * bool((found.seeds.map(len) < LEAST_SEEDS).any())
            words.append(
                "Differences are paired by seed. Intervals: Student's t over seeds, for these test images; crossed "
                f"random effects, for another seed and other images{'; ' * bool(few)}{few}. p: two-sided sign-flip "
                f"test, for {n} seeds at least {2 / 2**n:.3g}. A large p does not show that two variants are equal."
            )
        if corrected:
            sizes = [f"{counted(size, 'comparison')} ({name})" for name, size in corrected.items()]
            words.append(f"Holm's correction is over {listed(sizes)}.")
        if self._has_rates:
            words.append("Each norm is compared at the rate that was chosen on validation data, see below.")
        words += self.planned("train_loss")
        return Section("Paired differences", words, [tables.comparison(found)], self._forest(found))

    def _planned(self) -> str:
        """Who chose the comparisons, and when."""
        known, plan = recorded(self.study.plan, self.study.folder / "study.json"), plan_of(self.study)
        if not known or not plan:
            return "The comparisons were chosen by the tool: no plan was recorded before the first run."
        wanted = {seed for one in plan.comparisons for seed in one.seeds or plan.seeds}
        absent = wanted - set(self.study.finished.seed)
        missing = f" Of its seeds {len(absent)} of {len(wanted)} have not finished." * bool(absent)
        tested = f"{self._found.planned.sum()} of its {counted(len(plan.comparisons), 'comparison')}"
        return (
            f"Planned: {known.file} (SHA-256 {known.sha256[:12]}), recorded on {known.date} before the first run; the "
            f"runs allow {tested}. All others are exploratory and have no verdict.{missing}"
        )

    def _forest(self, found: pd.DataFrame) -> list[Picture]:
        """The differences in accuracy as a figure; with one seed, with the intervals over test images."""
        found = found[found.quantity != "train_loss"]
        if not len(found):
            return []
        over_seeds, same, seeds = found.both.notna(), nulls(self.study).difference, found.seeds.map(len).max()
        bars, caption = found.assign(interval=found.both.where(over_seeds, found.image_interval)), "Marks: differences."
        if bars.interval.notna().any():
            caption += f" Bars: 95 % intervals for {'another seed and ' * bool(over_seeds.any())}other test images."
        caption += " Pale dots: seeds." * bool(seeds > 1)
        null = float(same.abs().max()) if len(same) >= LEAST_PAIRS else None
        if null is not None:
            means = f"; marks are means of {seeds} seeds" * bool(seeds > 1)
            caption += f" Band: the largest difference between two single runs of the same function{means}."
        elif len(same):
            caption += f" No band: too few pairs of runs of the same function ({len(same)})."
        return [self.picture("differences", caption, accuracy_figures.forest(bars, null, self.about))]

    def learning_rates(self) -> Section:
        """The control over learning rates, where the study has one."""
        if not self._has_rates:
            return Section("Learning rates")
        best = chosen(self.all_rates)
        by_rate = best.finished.drop_duplicates("norm").groupby("learning_rate")
        named = [f"{rate:g} for {listed([within(label) for label in rows.norm_label])}" for rate, rows in by_rate]
        words = f"Each norm is shown at the rate with its highest mean validation accuracy: {'; '.join(named)}."
        final, rates = (
            self.all_rates.final("validation"),
            dict(zip(best.runs.norm, best.runs.learning_rate, strict=True)),
        )
        drawn = accuracy_figures.learning_rates(self.all_rates.runs, final, rates, self.about)
        caption = "Dots: seeds after the last epoch. Lines: their means. No error is drawn below half an image."
        pictures = [self.picture("learning_rates", caption, drawn)] if len(final) else []
        return Section("Learning rates", [words], [tables.rates(self.all_rates, best)], pictures)

    def curves(self) -> Section:
        """Accuracy and loss over training."""
        runs, epochs, drawn = self.study.runs, self.study.epochs, []
        if epochs.epoch.nunique() < 2:
            return Section("Training")
        caption = "Training accuracy: augmented batches of each epoch, while the weights change. Validation: after it."
        seeds = self.study.finished.groupby("variant").size()
        bands = ["quartiles"] * bool((seeds >= LEAST_SEEDS).any())
        bands += ["lowest to highest of the few seeds"] * bool(seeds.between(2, LEAST_SEEDS - 1).any())
        caption += f" Lines: median over the finished seeds; bands: {' or '.join(bands)}." * bool(bands)
        caption += " A cross: a run diverged." * bool((runs.status == "diverged").any())
        for kind, said in (("accuracy", caption), ("loss", "Cross entropy in nats.")):
            drawn.append(self.picture(kind, said, figures.curves(runs, epochs, kind, self.about)))
        return Section("Training", figures=drawn)

    def features(self) -> Section:
        """What the layers compute: the pooled features, and all layers where these were recorded."""
        study, drawn = self.study, []
        if study.epochs.epoch.nunique() < 2:
            return Section("Features")
        if study.epochs[study.quantiles].notna().any(axis=None):
            theirs = published_for(study.recipe) if study.recipe.get("num_epochs") == 100 else {}
            reached = set(study.epochs.norm[study.epochs.epoch == 100])
            known = {norm: one.feature_quantiles or () for norm, one in theirs.items() if norm in reached}
            names = listed([name[1:] for name in study.quantiles])
            caption = f"{names} % quantiles of the last layer's input over all validation images, in evaluation mode."
            caption += " Hollow diamonds: the original paper, read off its plots." * bool(known)
            figure = feature_figures.feature_quantiles(study.epochs, self.about, published=known)
            drawn.append(self.picture("feature_quantiles", caption, figure))
        if set(study.layers.layer) - {POOLED}:
            caption = "Every convolution before norm and ReLU, and the pooled features."
            drawn.append(self.picture("layers", caption, feature_figures.layers(study.layers, self.about)))
        for layer, rows in study.histograms.groupby("layer", observed=True, sort=False):
            caption = "All validation images. Heights are comparable within a panel, not between panels."
            name = f"distribution_{str(layer).replace('/', '_')}"
            drawn.append(self.picture(name, caption, feature_figures.ridges(rows, self.about)))
        return Section("Features", figures=drawn)

    def gates(self) -> Section:
        """Batch-instance norm's gates: where they end."""
        words, last = [], feature_figures.final_gates(self.study.gates)
        if not len(last):
            return Section("Gates")
        for label, mine in last.groupby("label", observed=True):
            low, middle, high = (number(float(value), 2) for value in np.quantile(mine.gate, (0.1, 0.5, 0.9)))
            moved, name = float((np.abs(mine.gate - 1) > 1e-6).mean()), within(str(label))
            if not moved:
                words.append(
                    f"All {len(mine):,} gates of {name} are at 1, their start, after epoch {mine.epoch.iloc[0]}."
                )
                continue
            words.append(
                f"Of the {len(mine):,} gates of {name}, {percent(moved, 0)} % are below their start at 1 after epoch "
                f"{mine.epoch.iloc[0]}; the median is {middle}, and 80 % are between {low} and {high}."
            )
        ends = "A gate of 1 takes the batch's statistics alone, as batch norm does, and a gate of 0 the image's own."
        ends = f"Mark: the median channel; bar: 80 % of all channels; line: all. {ends}"
        figure = feature_figures.gates(self.study.runs, last, self.about)
        return Section("Gates", words, figures=[self.picture("gates", ends, figure)])

    def details(self) -> list[Section]:
        """The folded end of every page."""
        study, test, confusion = self.study, self.study.final("test"), []
        if len(test):
            names = [str(name) for name in study.data.get("class_names") or ()]
            caption = "Share of each class's test images (row) by the predicted class (column), over all seeds."
            confusion = [self.picture("confusion", caption, figures.confusion(test, names, self.about))]
        return [
            Section("Classes", figures=confusion, folded=True),
            Section("Runs", tables=[tables.runs(self.all_rates)], folded=True),
            Section("Configuration", tables=[tables.configuration(study, self.all_rates)], folded=True),
        ]
