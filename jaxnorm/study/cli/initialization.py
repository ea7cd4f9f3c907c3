"""The probe at initialization from its flags to its page. Imports no JAX before the flags are read."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jaxnorm.errors import UserError
from jaxnorm.study.cli.about import Imports
from jaxnorm.study.cli.flags import Command
from jaxnorm.study.cli.lists import check_distinct, check_seeds
from jaxnorm.study.cli.naming import naming_flags
from jaxnorm.study.config import DEFAULT_NORMS
from jaxnorm.study.data import load_dataset
from jaxnorm.study.invocation import command
from jaxnorm.study.runs.lock import STUDY
from jaxnorm.study.runs.progress import StudyConsole, say, say_page

if TYPE_CHECKING:
    from jaxnorm.study.report.frames import Study


@dataclasses.dataclass(frozen=True)
class Initialization(Imports, Command):
    """Flags of the probe."""

    summary = "Probes networks before their first step, layer by layer."
    details = """
    {program}                            # seven norms
    {program} --runs runs/compare_norms  # and speed

Expect gradients that vanish towards the input without normalization, and grow by 1.21 a layer with batch norm in a
plain network of 30 layers, as mean-field theory predicts. The workdir then contains tables, figures and report.html."""

    norms: tuple[str, ...] = DEFAULT_NORMS
    """Normalizations to probe, by id."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each decides initial weights and the batch, as in training."""
    dataset: str = "digits"
    """Data of the batch: digits, cifar10, cifar100, folder (images in --data-dir), or of --import."""
    image_size: int | None = None
    """With --dataset folder: the side to which images are cropped and resized."""
    batch_size: int = 32
    """Images in the batch."""
    init: Literal["torch", "he"] = "torch"
    """Initial weights, as of the other drivers."""
    runs: Path | None = None
    """Folder of trained runs, of the same data and initial weights, whose speed of learning is compared."""
    from_files: bool = False
    """Do not probe again: rebuild the page from the files in the workdir, with the speed of other --runs, if given."""
    workdir: Path = Path("runs/initialization")
    """Folder for tables, figures and the report. What an earlier probe wrote there is replaced."""
    data_dir: Path | None = None
    """Folder of the images; default $JAXNORM_DATA_DIR, then the cache folder."""

    def run(self) -> int:
        """Probes and reports.

        Returns:
            The exit code.

        Raises:
            UserError: before anything is written, if the flags are wrong or do not fit.
        """
        self.check()
        from jaxnorm.study.probes.initialization_page import write_probe  # late: loads matplotlib
        from jaxnorm.study.report.folders import read_study

        study = read_study(self.runs) if self.runs else None
        console = StudyConsole()
        if not self.from_files:
            _probe(self, study, console)
        for line in write_probe(self.workdir, study).lead:
            say(console, line)
        say_page(console, self.workdir / "report.html")
        return 0

    def check(self) -> None:
        """Checks every flag.

        Raises:
            UserError: naming the flag, its value and what it may be.
        """
        for flag, values in (("--norms", self.norms), ("--seeds", self.seeds)):
            if not values:
                raise UserError(f"{flag} must name at least one value, but names none; name one or drop {flag}")
        check_distinct("--norms", self.norms)
        check_seeds(self.seeds)
        if self.batch_size < 2:
            raise UserError(f"--batch-size must be at least 2, but is {self.batch_size}; give 2 or more")
        if (self.workdir / STUDY).exists():
            raise UserError(
                f"--workdir must not be that of trained runs, but {self.workdir} holds a {STUDY}; choose another, and "
                "name the runs by --runs"
            )


def _probe(options: Initialization, study: "Study | None", console: StudyConsole) -> None:
    """Probes and keeps the tables."""
    options.check_registered(options.norms)
    import pandas as pd

    from jaxnorm.study.probes.initialization import probe_initialization
    from jaxnorm.study.probes.initialization_page import check_same, write_files

    with naming_flags(["dataset", "data_dir", "image_size"]):
        dataset = load_dataset(options.dataset, data_dir=options.data_dir, image_size=options.image_size)
    settings = {
        "dataset": options.dataset,
        "data": dataset.description,
        "init": options.init,
        "batch_size": options.batch_size,
        "command": command(),
    }
    if study is not None:
        check_same(settings, study)  # before the work
    tables: list[tuple[pd.DataFrame, pd.DataFrame]] = []
    probed = probe_initialization(
        options.norms, options.seeds, dataset, init=options.init, batch_size=options.batch_size
    )
    for norm, layers, plain in probed:
        tables.append((layers, plain))
        say(console, f"{norm}: growth {plain.growth.mean():.3f} a layer in the plain network")
    write_files(options.workdir, settings, *map(pd.concat, zip(*tables, strict=True)))
