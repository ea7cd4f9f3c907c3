"""The page of a comparison of norms, from the question to the last section."""

from jaxnorm.study.report import sections, sentences
from jaxnorm.study.report.comparisons import chosen, paired
from jaxnorm.study.report.frames import Study
from jaxnorm.study.report.page import Page
from jaxnorm.study.words import counted


def page(everything: Study) -> Page:
    """The answer, results, paired differences, curves, features, gates, and details; each norm at its best rate."""
    study = chosen(everything)
    found = paired(study)
    question = "What does normalization do to a small residual network?"
    schedule = f" for {counted(planned, 'epoch')}" if (planned := study.recipe.get("num_epochs")) else ""
    # The result in three sentences: the range, what differs from batch norm, and the sanity check.
    answer = [*sentences.accuracy_range(study), *sentences.against_baseline(study, found)]
    answer += sentences.equality(study, found)
    return Page(
        title=question if study.name == "compare_norms" else study.name,
        kicker=f"{study.name.replace('_', ' ')} · {study.data_description}",
        introduction=(
            f"A 14-layer residual network is trained on {study.data_description}{schedule} in "
            f"{counted(study.runs.variant.nunique(), 'variant')} that differ in nothing but their normalization, from "
            f"{counted(study.runs.seed.nunique(), 'seed')} each. Within a seed, all share their initial weights, the "
            "order of the data and the augmentation."
        ),
        lead=[*(answer if len(study.finished) else [sentences.NO_RESULT]), *sentences.failed(study)],
        cautions=sentences.cautions(study),
        sections=[
            sections.results(study),
            sections.comparison(study, found),
            sections.learning_rates(everything),
            sections.curves(study),
            sections.features(study),
            sections.gates(study),
            *sections.details(study, everything),
        ],
    )
