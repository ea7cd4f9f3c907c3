"""The commands that do not train: report, publish, plan, doctor."""

import dataclasses
import math
from pathlib import Path
from typing import Annotated, Literal

from rich import box
from rich.console import Console
from rich.table import Table as Lines
from rich.text import Text
from tyro.conf import Positional, arg

from jaxnorm.errors import UserError
from jaxnorm.study import planned
from jaxnorm.study.cli.flags import Command
from jaxnorm.study.cli.imports import load_jax
from jaxnorm.study.runs.progress import StudyConsole, say, say_page
from jaxnorm.study.words import counted


def show_report(workdir: Path, console: Console) -> None:
    """Writes a study's tables, figures and page, and prints the table and the page's path.

    Args:
        workdir: the study's folder.
        console: where to print.
    """
    from jaxnorm.study.report.write import print_table, write_report

    print_table(write_report(workdir), console)
    say_page(console, workdir / "report.html")


def power(plan: planned.Plan, seeds: int) -> str:
    """What differences a number of seeds can show.

    Args:
        plan: the comparisons, and the standard deviation that was assumed.
        seeds: how many are trained.

    Returns:
        A line.
    """
    from jaxnorm.study.report.statistics import detectable

    found = detectable(seeds, plan.deviation, max(plan.families.values(), default=1))
    shown = f"show {found:.2f} points with 80 % power"
    if math.isinf(found):
        shown = f"cannot show any: the smallest p of {seeds} is {2 / 2**seeds:.2g}" if seeds > 1 else "shows none"
    return (
        f"Comparisons: {counted(len(plan.comparisons), 'planned one')}; at a standard deviation of {plan.deviation:g} "
        f"points {counted(seeds, 'seed')} {shown}"
    )


@dataclasses.dataclass(frozen=True)
class Report(Command):
    """Rebuilds the report of a study's folder, or compares two."""

    summary = "Rebuilds a workdir's report, or compares two workdirs."
    details = "Of two, A and B, it prints what differs in their settings and in test accuracy."

    workdirs: Annotated[Positional[tuple[Path, ...]], arg(metavar="WORKDIR [WORKDIR]")]
    """The --workdir of a driver, or a folder that publish has made; two are compared, and nothing is written."""

    def run(self) -> int:
        """Writes the report, or prints the comparison.

        Returns:
            The exit code.

        Raises:
            UserError: if neither one nor two folders are given, or two have no finished variant in common.
        """
        if not 1 <= len(self.workdirs) <= 2:
            raise UserError(f"report must be given one workdir or two, but is given {len(self.workdirs)}; name 1 or 2")
        console = StudyConsole()
        if len(self.workdirs) == 1:
            show_report(self.workdirs[0], console)
        else:
            _show_between(self.workdirs[0], self.workdirs[1], console)
        return 0


def _show_between(first: Path, second: Path, console: Console) -> None:
    """Prints how two studies differ."""
    from jaxnorm.study.report import between
    from jaxnorm.study.report.folders import read_study

    studies = [read_study(folder) for folder in (first, second)]
    found = between.between(*studies)
    if found.empty:
        raise UserError(f"{first} and {second} must have a finished variant in common, but have none; compare others")
    for letter, study in zip("AB", studies, strict=True):
        finished = counted(len(study.finished), "finished run")
        say(console, f"{letter}: {study.folder}, {finished}, {study.data_description}")
    for change in between.changes(*studies) or ["nothing but norms and seeds"]:
        say(console, f"Differs: {change}")
    shown = between.table(found)
    lines = Lines(*shown, box=box.SIMPLE_HEAD)
    for row in shown.itertuples(index=False, name=None):
        lines.add_row(*map(Text, row))
    console.print(lines)
    say(console, between.note(found))


@dataclasses.dataclass(frozen=True)
class Publish(Command):
    """Copies the finished runs of a study to a folder, and rebuilds the report there."""

    summary = "Copies finished runs, without checkpoints, to a folder."
    details = "It only reads the workdir: a driver may train there at the same time."

    workdir: Annotated[Positional[Path], arg(metavar="WORKDIR")]
    """The --workdir of a driver."""
    folder: Annotated[Positional[Path], arg(metavar="FOLDER")]
    """Where to, such as results/NAME: a new folder, or an earlier publication of the same study."""

    def run(self) -> int:
        """Publishes.

        Returns:
            The exit code.
        """
        from jaxnorm.study.report.formats import NAMED, listed
        from jaxnorm.study.report.publish import OUTCOMES, publish
        from jaxnorm.study.report.write import print_table

        study, console = publish(self.workdir, self.folder), StudyConsole()
        print_table(study, console)
        finished = study.runs.status.isin(OUTCOMES)
        if not finished.all():
            say(console, f"Not finished, left out: {listed(study.runs.name[~finished].tolist(), NAMED)}")
        size = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        say(console, f"Published: {counted(finished.sum(), 'run')}, {size / 1e6:.1f} MB in all, {self.folder}")
        return 0


@dataclasses.dataclass(frozen=True)
class Plan(Command):
    """Shows the comparisons of a plan file."""

    summary = "Shows planned comparisons and what their seeds can show."
    details = "That is the smallest difference that they find with a power of 80 %."

    file: Annotated[Positional[Path], arg(metavar="FILE")] = Path("study")
    """A TOML file, or a preset's name for the plan that it comes with."""
    study: Literal["compare_norms", "batch_size_study", "feature_evolution"] = "compare_norms"
    """The driver whose part is shown."""
    seeds: int | None = None
    """How many seeds; by default as many as the plan names."""

    def run(self) -> int:
        """Prints the plan.

        Returns:
            The exit code.
        """
        found, console = planned.read_plan(self.file, self.study), StudyConsole()
        content = planned.parsed_plan(found.plan)
        say(console, f"Plan: {found.file}, SHA-256 {found.sha256}")
        for one in content.comparisons:
            only = f", seeds {' '.join(map(str, one.seeds))} only" if one.seeds else ""
            sides = f"{' + '.join(one.plus)} against {' + '.join(one.minus)}"
            say(console, f"{one.family}: {one.test} in {one.quantity}, {sides}{only}")
        say(console, power(content, len(content.seeds) if self.seeds is None else self.seeds))
        return 0


@dataclasses.dataclass(frozen=True)
class Doctor(Command):
    """Examines the environment."""

    summary = "Examines the environment: what is at risk, and what helps."
    details = "The exit code is 1 if results would be wrong."

    data_dir: Path | None = None
    """Folder of CIFAR-10; default $JAXNORM_DATA_DIR, then the cache folder."""

    def run(self) -> int:
        """Prints what was found.

        Returns:
            The exit code.
        """
        load_jax()
        from jaxnorm.study.runs.doctor import examine, print_findings

        return print_findings(examine(self.data_dir), StudyConsole())
