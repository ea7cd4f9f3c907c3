"""The flags that all drivers share, and their checks. Imports no JAX."""

import contextlib
import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from tyro.conf import FlagCreatePairsOff

from jaxnorm.errors import UserError
from jaxnorm.study.cli import naming
from jaxnorm.study.cli.about import About
from jaxnorm.study.cli.lists import check_distinct, check_seeds
from jaxnorm.study.config import DEFAULT_NORMS, Config, Recipe


@dataclasses.dataclass(frozen=True)
class Options(Recipe, About):
    """A grid of runs and where it is trained.

    Attributes:
        study: the driver's name in files; a workdir belongs to one driver.
    """

    study: ClassVar[str]

    preset: str = "quick"
    """Where the other flags' defaults come from: quick (digits, minutes), short (CIFAR-10, 10 epochs) or study
    (CIFAR-10, 100 epochs, 10 seeds)."""
    config: Path | None = None
    """Take the other flags' defaults from a study.json, or the folder that has it, instead of a preset."""
    norms: tuple[str, ...] = DEFAULT_NORMS
    """Normalizations to compare, by id: flax_bn none bn in bin ln gn bin_frozen rms brn frn gn_ws bn_ws sws sn evo_b0
    evo_s0 dyt derf grn iln bgn iter, and those of --import."""
    seeds: tuple[int, ...] = (0,)
    """One run per norm and seed. A seed decides initial weights, data order and augmentation."""
    workdir: Path = Path("runs/study")
    """Folder for the runs, tables, figures and the report. The same command there continues where it stopped."""
    plan: Path | None = None
    """A TOML file with the comparisons to test, recorded in the workdir before its first run; default: the preset's."""
    data_dir: Path | None = None
    """Folder of the images; CIFAR is downloaded to it. Default: $JAXNORM_DATA_DIR, then the cache folder."""
    dry_run: FlagCreatePairsOff[bool] = False
    """Check everything, print what would be trained, and end. Nothing is trained, downloaded or written."""
    quiet: FlagCreatePairsOff[bool] = False
    """Print errors, and at the end the path of the table of results."""
    tensorboard: FlagCreatePairsOff[bool] = False
    """Also write each epoch's numbers for TensorBoard, to WORKDIR/tensorboard; needs tensorboardX."""
    checkpoint_every_seconds: float | None = None
    """Time between a run's checkpoints; by default 50 times what one costs, so that they take at most 2 %."""
    jobs: int = 1
    """Runs that train at the same time, each in a process with a device of its own. On CPU they divide the cores."""
    data_parallel: int | Literal["auto"] = "auto"
    """Devices that share each batch; auto takes as many accelerators as divide it."""
    steps_per_call: int | None = None
    """Steps in one dispatch to the device; by default 1 on CPU, up to an epoch elsewhere."""
    coordinator: str | None = None
    """HOST:PORT of the first of several processes, or auto: ask the launcher. Under Slurm none of these is needed."""
    num_processes: int | None = None
    """How many processes train each run together; with --coordinator."""
    process_id: int | None = None
    """Which of them this one is, from 0; with --coordinator. Only the first writes."""
    allow_changes: bool = False
    """Continue in a workdir whose runs were made with another learning rate, other versions, compiler flags, data or
    imported norms, or on another platform; the differences are shown, recorded and reported."""

    @property
    def varied(self) -> tuple[str, ...]:
        """Fields of the recipe in which the runs of the grid differ."""
        return ()

    def points(self) -> list[dict[str, Any]]:
        """What is trained for every norm and seed.

        Returns:
            For each point: values of the `varied` fields, and the tags of its runs.
        """
        return [{}]

    def notes(self) -> list[str]:
        """What the driver says about its grid before it trains.

        Returns:
            Lines; none by default.
        """
        return []

    def configs(self) -> list[Config]:
        """All runs.

        Returns:
            The grid of norms, points and seeds.

        Raises:
            UserError: if the fields of a run cannot have their values, see `naming_flags`.
        """
        return self.grid(self.norms, self.points())

    def grid(self, norms: Sequence[str], points: Sequence[Mapping[str, Any]]) -> list[Config]:
        """A run for every seed, point and norm, in this order: every norm has its first run before any has a second.

        Args:
            norms: ids of normalizations.
            points: fields of the recipe that differ, and tags.

        Returns:
            The runs.
        """
        recipe = {field.name: getattr(self, field.name) for field in dataclasses.fields(Recipe)}
        return [
            Config(**{**recipe, **point, "norm": norm, "seed": seed})
            for seed in self.seeds
            for point in points
            for norm in norms
        ]

    def checked_configs(self) -> list[Config]:
        """Checks all flags and loads the user's modules.

        Returns:
            All runs.

        Raises:
            UserError: naming the flag, its value and what it may be.
        """
        self.check_flags()
        self.check_registered(self.norms)
        from jaxnorm.study.data import check_dataset
        from jaxnorm.study.models.registry import check_model

        check_dataset(self.dataset, data_dir=self.data_dir, image_size=self.image_size)
        configs = self.configs()
        for config in configs:
            check_model(config)
        return configs

    def check_flags(self) -> None:
        """Checks every flag that can be checked alone. Drivers add their own.

        Raises:
            UserError: naming the flag, its value and what it may be.
        """
        if self.checkpoint_every_seconds is not None and not 0 <= self.checkpoint_every_seconds < float("inf"):
            raise UserError(
                "--checkpoint-every-seconds must be zero or a positive finite number, but is "
                f"{self.checkpoint_every_seconds}; for example --checkpoint-every-seconds 60"
            )
        if self.data_parallel != "auto" and self.data_parallel < 1:
            raise UserError(
                f"--data-parallel must be auto or at least 1, but is {self.data_parallel}; give auto, or 1 or more"
            )
        if self.steps_per_call is not None and self.steps_per_call < 1:
            raise UserError(f"--steps-per-call must be at least 1, but is {self.steps_per_call}; give 1 or more")
        self._check_jobs()
        self._check_processes()
        check_distinct("--norms", self.norms)
        check_seeds(self.seeds)

    def naming_flags(self) -> contextlib.AbstractContextManager[None]:
        """Within it, a `UserError` about fields of a run, in backquotes, names the flags that set them.

        Returns:
            The context.
        """
        known = {field.name for field in (*dataclasses.fields(Config), *dataclasses.fields(self))}
        return naming.naming_flags(known, ("norm", "seed", *self.varied))

    @property
    def may_be_first(self) -> bool:
        """Whether this process may be the one that writes, as far as flags and launchers say so."""
        ranks = (os.environ.get(name, "0") for name in ("SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "TPU_WORKER_ID"))
        return not self.process_id and set(ranks) == {"0"}

    def _check_jobs(self) -> None:
        if self.jobs < 1:
            raise UserError(f"--jobs must be at least 1, but is {self.jobs}; give 1 or more")
        if self.jobs > 1 and self.data_parallel not in ("auto", 1):
            raise UserError(
                f"--jobs gives each run one device, but is {self.jobs} while --data-parallel is {self.data_parallel}; "
                "drop one of them"
            )
        if self.jobs > 1 and self.coordinator is not None:
            raise UserError(
                f"--jobs starts its processes itself, but is {self.jobs} while --coordinator is {self.coordinator}; "
                "drop one of them"
            )

    def _check_processes(self) -> None:
        together = (self.coordinator, self.num_processes, self.process_id)
        if together in ((None, None, None), ("auto", None, None)):
            return
        if self.coordinator is None or self.num_processes is None or self.process_id is None:
            raise UserError(
                f"--coordinator, --num-processes and --process-id go together, but are {together}; give all three or "
                "none"
            )
        host, _, port = self.coordinator.rpartition(":")
        if not (host and port.isdigit() and 0 < int(port) < 2**16):
            raise UserError(f"--coordinator must be HOST:PORT, but is {self.coordinator!r}; for example localhost:9876")
        if not 0 <= self.process_id < self.num_processes:
            raise UserError(
                f"--process-id must be within 0..{self.num_processes - 1}, but is {self.process_id}; count from 0"
            )
