"""What stands on the page of each kind of study, from the question to the last section."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxnorm.study.analysis import batch_prose, batch_tables, feature_prose, prose, tables
from jaxnorm.study.analysis.comparison import compare, compare_cells
from jaxnorm.study.analysis.rates import about_rates, chosen, varies_rates
from jaxnorm.study.analysis.reference import SOURCE, group_norm_paper, references_for
from jaxnorm.study.analysis.runs import Study
from jaxnorm.study.analysis.sections import Drawn, Section, comparisons_section, controls, details, learning_rates


@dataclass(frozen=True)
class Page:
    """A report before it is set."""

    title: str
    introduction: str
    lead: Sequence[str]
    sections: Sequence[Section]


def page_of(study: Study, drawn: Drawn) -> Page:
    """The page of a workdir by the kind of its study; one of an unknown kind is told as a comparison of norms."""
    kinds = {"batch_size_study": _batch_sizes, "feature_evolution": _features}
    return kinds.get(study.name, _comparison)(study, drawn)


def _comparison(everything: Study, drawn: Drawn) -> Page:
    study = chosen(everything)
    comparisons = compare(study)
    published = [f"The study is {SOURCE}; its values are from one seed each."] if references_for(study.recipe) else []
    return Page(
        prose.question(study),
        prose.introduction(study),
        [*prose.lead(study, comparisons), *(about_rates(everything)[:1] if varies_rates(everything) else [])],
        [
            Section("Results", figures=drawn("test_accuracy"), tables=[tables.results_table(study)]),
            learning_rates(everything, drawn),
            Section("Training", figures=drawn("accuracy", "loss")),
            Section("Sanity check", figures=drawn("sanity_check")),
            *_feature_sections(study, drawn),
            *controls(study, drawn),
            comparisons_section(study, comparisons),
            Section("Published study", published, tables=[tables.reference_table(study)]),
            *details(study, everything),
        ],
    )


def _batch_sizes(everything: Study, drawn: Drawn) -> Page:
    study = chosen(everything)
    comparisons = compare_cells(study)
    return Page(
        batch_prose.QUESTION,
        batch_prose.introduction(study),
        [*batch_prose.lead(study), batch_prose.noise(study)],
        [
            Section("Results", [f"For comparison: {group_norm_paper(study.image_side)}"], figures=drawn("batch_sizes")),
            Section("By batch size", tables=[batch_tables.batch_table(study)]),
            Section(
                "Training or averages",
                batch_prose.about_statistics(),
                tables=[
                    batch_tables.loss_table(study),
                    batch_tables.statistics_table(study),
                    batch_tables.statistics_table(study, "test"),
                ],
            ),
            Section("Ghost batches", figures=drawn("ghosts"), tables=[batch_tables.ghost_table(study)]),
            Section("Training", figures=drawn("batch_curves_fixed", "batch_curves_linear")),
            Section("Time by batch size", figures=drawn("batch_time"), tables=[batch_tables.batch_time_table(study)]),
            *controls(study, drawn),
            Section(
                "Comparisons",
                prose.about_statistics(tuple(one for _, one in comparisons)),
                tables=[tables.cell_comparison_table(study, comparisons)],
            ),
            *details(study, everything),
        ],
    )


def _features(everything: Study, drawn: Drawn) -> Page:
    study = chosen(everything)
    comparisons = compare(study)
    return Page(
        feature_prose.QUESTION,
        feature_prose.introduction(study),
        feature_prose.lead(study),
        [
            *_feature_sections(study, drawn),
            Section("Results", figures=drawn("test_accuracy"), tables=[tables.results_table(study)]),
            learning_rates(everything, drawn),
            Section("Training", figures=drawn("accuracy", "loss")),
            *controls(study, drawn),
            comparisons_section(study, comparisons),
            *details(study, everything),
        ],
    )


def _feature_sections(study: Study, drawn: Drawn) -> list[Section]:
    """Where features were recorded: pooled, the last convolution, all layers."""
    return [
        Section("Features", figures=drawn("feature_quantiles", "pooled_histograms")),
        Section("Before norm and ReLU", figures=drawn("last_convolution", "convolution_histograms")),
        Section("Growth", tables=[feature_prose.growth_table(study), feature_prose.level_table(study)]),
        Section("All layers", figures=drawn("layers")),
    ]
