"""The page of a comparison of norms, from the question to the last section."""

from jaxnorm.study.config import completed, network_words
from jaxnorm.study.report import effective_rates, smoothness
from jaxnorm.study.report.comparisons import chosen
from jaxnorm.study.report.frames import Study
from jaxnorm.study.report.page import Page
from jaxnorm.study.report.sections import Sections
from jaxnorm.study.words import counted


def page(study: Study) -> Page:
    """The page of a `study`: the answer, results, differences, curves, features, gates, details."""
    chosen_study = chosen(study)
    parts, network = Sections(chosen_study, study), completed(study.recipe)["model"]
    question = f"What does normalization do to {'a small residual network' if network == 'resnet' else network}?"
    schedule = f" for {counted(planned, 'epoch')}" if (planned := study.recipe.get("num_epochs")) else ""
    rates = " and the learning rate chosen for each" * (chosen_study.runs.learning_rate.nunique() > 1)
    return Page(
        title=question if study.name == "compare_norms" else study.name,
        kicker=f"{study.name.replace('_', ' ')} · {study.data_description}",
        introduction=(
            f"{network_words(study.recipe)} is trained on "
            f"{study.data_description}{schedule} in "
            f"{counted(chosen_study.runs.variant.nunique(), 'variant')} that differ only in their normalization"
            f"{rates}, from {counted(study.runs.seed.nunique(), 'seed')} each. Within a seed, all share their initial "
            "weights, the order of the data and the augmentation."
        ),
        lead=parts.lead([*parts.accuracy_range(), *parts.against_baseline(), *parts.equality()]),
        cautions=parts.cautions(),
        sections=[
            parts.results(),
            parts.comparison(),
            parts.learning_rates(),
            parts.curves(),
            parts.features(),
            parts.gates(),
            effective_rates.section(parts),
            smoothness.section(parts),
            *parts.details(),
        ],
    )
