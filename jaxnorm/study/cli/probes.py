"""The commands that measure trained networks: calibration, curvature, corruptions."""

import dataclasses
import functools
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from jaxnorm.errors import UserError
from jaxnorm.study.cli.about import Imports
from jaxnorm.study.cli.flags import Command
from jaxnorm.study.cli.lists import check_batch_sizes, check_seeds
from jaxnorm.study.invocation import command
from jaxnorm.study.runs.progress import StudyConsole, say, say_page
from jaxnorm.study.words import counted


@dataclasses.dataclass(frozen=True)
class Calibration(Command):
    """Says how far the probabilities of a study's networks can be believed."""

    summary = "Says how far the networks' probabilities can be believed."
    details = "NLL, Brier score and calibration error, from the test images of finished runs."

    folder: Annotated[Positional[Path], arg(metavar="FOLDER")]
    """A workdir with finished runs, or a publication."""
    workdir: Path = Path("runs/calibration")
    """Where the page, its figures and calibration.json are written."""

    def run(self) -> int:
        """Writes and prints the scores.

        Returns:
            The exit code.
        """
        from jaxnorm.study.probes.calibration_page import write_calibration
        from jaxnorm.study.report.folders import read_study

        console = StudyConsole()
        for one in write_calibration(read_study(self.folder), self.workdir).itertuples():
            scores = f"NLL {one.nll:.3f}, Brier {one.brier:.4f}, calibration error {100 * one.ece:.2f} %"
            say(console, f"{one.label}: {scores} ({100 * one.ece_calibrated:.2f} % if calibrated)")
        say_page(console, self.workdir / "report.html")
        return 0


@dataclasses.dataclass(frozen=True)
class Curvature(Imports, Command):
    """Computes the largest eigenvalue of the Hessian of the training loss under the final weights of finished runs."""

    summary = "Computes the largest Hessian eigenvalue of finished runs."
    details = "The loss is that of a training step, on the first training images without augmentation."

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN [RUN ...]")]
    """Folders of finished runs, such as runs/compare_norms/bn-seed0."""
    images: int = 256
    """How many training images."""
    products: int = 20
    """Hessian products of Lanczos' method; each takes about as long as two gradients."""
    data_dir: Path | None = None
    """Folder of the images; default $JAXNORM_DATA_DIR, then the cache folder."""

    def run(self) -> int:
        """Computes and prints.

        Returns:
            The exit code.

        Raises:
            UserError: if a flag is out of range, or a folder holds no finished run.
        """
        for flag, value in (("--images", self.images), ("--products", self.products)):
            if value < 1:
                raise UserError(f"{flag} must be at least 1, but is {value}; give 1 or more")
        if not self.runs:
            raise UserError("curvature must be given the folder of a finished run, but is given none; name one or more")
        self.load_modules()
        from jaxnorm.study.data import load_recorded
        from jaxnorm.study.probes.curvature import curvature_of_run
        from jaxnorm.study.runs.trained import load_run

        console, loaded = StudyConsole(), [load_run(folder) for folder in self.runs]
        load = functools.cache(
            lambda name, size: load_recorded({"dataset": name, "image_size": size}, self.data_dir)
        )  # once for all runs
        datasets = [load(run.config.dataset, run.config.image_size) for run in loaded]
        for folder, run, dataset in zip(self.runs, loaded, datasets, strict=True):
            found = curvature_of_run(run, dataset, images=self.images, products=self.products)
            ends = (
                f"largest eigenvalue {found.largest:.4g} (error up to {found.residual:.2g}), smallest "
                f"{found.smallest:.4g}"
            )
            say(console, f"{folder.name}: {ends}, {counted(found.products, 'product')}")
        return 0


@dataclasses.dataclass(frozen=True)
class Corruptions(Imports, Command):
    """Evaluates the finished runs of a study on corrupted images."""

    summary = "Evaluates finished runs on corrupted images."
    details = """
Noise, blur, contrast, brightness, JPEG, pixelation and fog, at five strengths. Networks with batch statistics are
evaluated with those of training, of all corrupted images, and of each batch."""

    folder: Annotated[Positional[Path], arg(metavar="WORKDIR")]
    """The --workdir of a driver, with finished runs."""
    images: int = 1000
    """How many test images, the first ones; all where these are fewer."""
    batch_sizes: tuple[int, ...] = (1, 8, 32, 128, 512)
    """Sizes of the batches that are normalized by their own statistics; larger ones than --images are left out."""
    seed: int = 0
    """Decides the corruptions, and which images share a batch."""
    workdir: Path = Path("runs/corruptions")
    """Where the page, its figures, corruptions.csv and corruptions.json are written."""
    data_dir: Path | None = None
    """Folder of the images; default $JAXNORM_DATA_DIR, then the cache folder."""

    def run(self) -> int:
        """Evaluates, prints and writes.

        Returns:
            The exit code.

        Raises:
            UserError: before anything is written, if a flag is out of range, or runs, their weights or their data are
                not there.
        """
        if self.images < 1:
            raise UserError(f"--images must be at least 1, but is {self.images}; give 1 or more")
        check_batch_sizes(self.batch_sizes, (), ())
        check_seeds((self.seed,), "--seed")
        self.load_modules()
        import pandas as pd

        from jaxnorm.study.probes.corruptions import evaluate_corruptions
        from jaxnorm.study.probes.corruptions_page import write_corruptions
        from jaxnorm.study.report.folders import read_study
        from jaxnorm.study.report.formats import percent

        console, study = StudyConsole(), read_study(self.folder)
        sizes, data_dir = self.batch_sizes, self.data_dir
        found = evaluate_corruptions(study, images=self.images, batch_sizes=sizes, seed=self.seed, data_dir=data_dir)
        rows = []
        for name, one in found:
            rows.append(one)
            running = one[(one.statistics == "running") & (one.strength > 0)]
            say(console, f"{name}: {percent(running.accuracy.mean())} % on corrupted images")
        settings = {"data": study.data_description, "images": int(rows[0].images.iloc[0]), "seed": self.seed}
        table = pd.concat(rows, ignore_index=True).drop(columns="images")
        write_corruptions(self.workdir, {**settings, "command": command()}, table)
        say_page(console, self.workdir / "report.html")
        return 0
