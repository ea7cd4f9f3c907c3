"""What all drivers share: flags from a dataclass, presets, imports of a user's norms, errors in one line."""

import collections
import dataclasses
import hashlib
import importlib
import importlib.machinery
import importlib.util
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar

import tyro

from jaxnorm import files
from jaxnorm.errors import ProcessLost, UserError
from jaxnorm.study.allocator import restart_with_large_pages
from jaxnorm.study.config import DEFAULT_NORMS, PRESETS, Config, Recipe, nearest
from jaxnorm.study.runs.lock import check_free, held


@dataclasses.dataclass(frozen=True)
class Options(Recipe):
    """A grid of runs and where it lives: what every driver takes as flags."""

    preset: str = "quick"
    """Where the other flags' defaults come from: quick (digits, minutes), short (CIFAR-10, 10 epochs) or study
    (CIFAR-10, 100 epochs, 5 seeds)."""
    norms: tuple[str, ...] = DEFAULT_NORMS
    """Normalizations to compare, by id."""
    seeds: tuple[int, ...] = (0,)
    """One run per norm and seed. A seed decides initial weights, data order and augmentation."""
    workdir: Path = Path("runs/study")
    """Folder for the runs, tables, figures and the report. The same command there goes on where it stopped."""
    data_dir: Path | None = None
    """Where CIFAR-10 lies or is to be downloaded to; default $JAXNORM_DATA_DIR, then the cache folder."""
    imports: Annotated[
        tuple[str, ...], tyro.conf.arg(name="import", metavar="FILE_OR_MODULE"), tyro.conf.UseAppendAction
    ] = ()
    """A Python file or module to load first, for the norms it registers. Repeatable."""
    checkpoint_every_seconds: float | None = None
    """Time between a run's checkpoints; by default 50 times what one costs, so that they take at most 2 %."""
    data_parallel: int | Literal["auto"] = "auto"
    """Devices that share each batch; auto takes as many accelerators as divide it."""
    parallel_seeds: int = 1
    """Seeds of a norm that train at once, spread over the devices; more than there are means all of them."""
    steps_per_call: int | None = None
    """Steps that the device does in one go; by default 1 on CPU, up to an epoch elsewhere."""
    coordinator: str | None = None
    """HOST:PORT of the first of several processes, or auto: ask the launcher. Under Slurm none of these is needed."""
    num_processes: int | None = None
    """How many processes share the work; with --coordinator."""
    process_id: int | None = None
    """Which of them this one is, from 0; with --coordinator. Only the first writes."""
    allow_changes: bool = False
    """Go on in a workdir whose runs were made with another learning rate, other versions, compiler flags, data or
    imported norms, or on another platform; the differences are shown, recorded and stand in the report."""

    @property
    def varied(self) -> tuple[str, ...]:
        """Fields of the recipe in which the runs of the grid differ."""
        return ()

    def points(self) -> list[dict[str, Any]]:
        """What is trained for every norm and seed: settings of the `varied` fields, with the tags of their runs."""
        return [{}]

    def configs(self) -> list[Config]:
        """The grid, seed by seed: every norm has a first run before any has a second."""
        recipe = {field.name: getattr(self, field.name) for field in dataclasses.fields(Recipe)}
        return [
            Config(**{**recipe, **point, "norm": norm, "seed": seed})
            for seed in self.seeds
            for point in self.points()
            for norm in self.norms
        ]

    def validate(self) -> None:
        """Checks the recipe, the norms (after loading `imports`) and the seeds.

        Raises:
            UserError: naming the flag, what it holds and what it may hold.
        """
        super().validate()
        if self.data_dir is not None and self.dataset == "digits":
            raise UserError(
                f"--data-dir goes with --dataset cifar10, but the dataset is digits; drop --data-dir {self.data_dir} "
                "or add --dataset cifar10 or --preset short"
            )
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
        self._check_processes()
        self._check_parallel_seeds()
        for name in self.imports:
            load(name)
        from jaxnorm.study.registry import NORMS

        if not self.norms:
            raise UserError(f"--norms must name at least one norm, but names none; valid: {', '.join(NORMS)}")
        if not self.seeds:
            raise UserError("--seeds must name at least one seed, but names none; for example --seeds 0")
        for norm in self.norms:
            if norm not in NORMS:
                raise UserError(f"--norms must name registered norms, but names {norm!r}; {nearest(norm, NORMS)}")
        check_distinct("--norms", self.norms)
        check_distinct("--seeds", self.seeds)
        for seed in self.seeds:
            if not 0 <= seed < 2**32:
                raise UserError(f"--seeds must lie in 0..{2**32 - 1}, but holds {seed}; for example --seeds 0 1 2")

    @property
    def seeds_at_once(self) -> int:
        """Seeds of a norm that train at once, not more than there are."""
        return min(self.parallel_seeds, len(self.seeds))

    @property
    def devices_per_batch(self) -> int | Literal["auto"]:
        """`data_parallel`; one where seeds train at once, each on a single device."""
        return self.data_parallel if self.seeds_at_once == 1 else 1

    def _check_parallel_seeds(self) -> None:
        if self.parallel_seeds < 1:
            raise UserError(f"--parallel-seeds must be at least 1, but is {self.parallel_seeds}; give 1 or more")
        if self.parallel_seeds > 1 and self.data_parallel not in ("auto", 1):
            raise UserError(
                f"--parallel-seeds keeps each seed on one device, but is {self.parallel_seeds} where --data-parallel "
                f"is {self.data_parallel}; drop one of them"
            )
        if self.parallel_seeds > 1 and self.coordinator is not None:
            raise UserError(
                f"--parallel-seeds goes with one process, but is {self.parallel_seeds} where --coordinator is "
                f"{self.coordinator}; drop one of them"
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
                f"--process-id must lie in 0..{self.num_processes - 1}, but is {self.process_id}; count from 0"
            )


_entered = False  # by `run`: this process is a driver's and nobody else's
AnyOptions = TypeVar("AnyOptions", bound=Options)


def parse(
    options: type[AnyOptions], *, presets: Mapping[str, Mapping[str, Any]] = PRESETS, description: str | None
) -> AnyOptions:
    """The options on this process's command line, over the defaults of the preset that it names.

    Errors of syntax end the process with tyro's own message and exit code 2.

    Raises:
        UserError: if there is no such preset.
    """
    preset = _preset_in(sys.argv[1:]) or options().preset
    if preset not in presets:
        raise UserError(f"--preset must name a preset, but names {preset!r}; {nearest(preset, presets)}")
    defaults = options(**{**presets[preset], "preset": preset})
    return tyro.cli(options, default=defaults, description=description, prog=f"python {Path(sys.argv[0]).name}")


def carry_out(options: Options, *, study: str) -> int:
    """Trains what is missing of a grid in its workdir, writes the report and returns the exit code.

    Raises:
        UserError: before anything is written, if options, data or workdir do not fit.
    """
    if _entered:  # before any file of the user's runs; and what another program has done before must not run twice
        restart_with_large_pages()
    if _may_be_first(options):
        check_free(options.workdir)
    options.validate()

    # Late, so that --help and mistakes in flags load neither jax nor matplotlib.
    from jaxnorm.files import cache_folder
    from jaxnorm.study.report.write import print_table, write_report
    from jaxnorm.study.data import load_dataset
    from jaxnorm.study.runs import processes
    from jaxnorm.study.runs import study as runs
    from jaxnorm.study.runs.progress import StudyConsole, say
    from jaxnorm.study.runs.workdir import Workdir
    from jaxnorm.study.training import parallel
    from jaxnorm.study.training.team import team_for

    parallel.join(options.coordinator, options.num_processes, options.process_id)
    parallel.keep_programs(cache_folder() / "programs")
    configs = [parallel.with_replicas(config, options.devices_per_batch) for config in options.configs()]
    for config in configs:
        config.validate()
        parallel.devices_for(config, options.devices_per_batch)
    team_for(options.seeds_at_once)  # one of several processes can have no team
    if not parallel.is_first():
        dataset = load_dataset(options.dataset, data_dir=options.data_dir)
        with processes.noticing_losses():
            processes.check_same_data(dataset)
            return processes.follow(configs, dataset, options.devices_per_batch, options.steps_per_call)
    console = StudyConsole()
    workdir = Workdir(options.workdir, study=study, varied=options.varied)
    workdir.check(configs, allow_changes=options.allow_changes)  # before a download
    dataset = load_dataset(options.dataset, data_dir=options.data_dir)
    with processes.noticing_losses():
        processes.check_same_data(dataset)
    notes = runs.check(configs, dataset, workdir, allow_changes=options.allow_changes)
    runs.announce(configs, dataset, workdir, console, parallel_seeds=options.seeds_at_once)
    for note in notes:
        say(console, f"Note: {note}")
    with held(workdir.path):
        # Once more: another process may have come first.
        runs.check(configs, dataset, workdir, allow_changes=options.allow_changes)
        execution = runs.Execution(
            options.devices_per_batch,
            options.steps_per_call,
            options.checkpoint_every_seconds,
            parallel_seeds=options.seeds_at_once,
        )
        with processes.noticing_losses():
            code = runs.run_study(
                configs, dataset, workdir, preset=options.preset, console=console, execution=execution
            )
        if code < 128:  # not stopped by a signal
            report = write_report(workdir.path)
            print_table(workdir.path, console)
            say(console, f"Report: {report}")
    return code


def _may_be_first(options: Options) -> bool:
    """Whether this process may be the one that writes, as far as can be told without jax."""
    ranks = (os.environ.get(name, "0") for name in ("SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "TPU_WORKER_ID"))
    return not options.process_id and set(ranks) == {"0"}


def run(main: Callable[[], int]) -> None:
    """Runs `main` and leaves with its exit code.

    A `UserError`, and a disk that is full, read-only or forbidden, become one line and exit code 2.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminated)
    global _entered
    _entered = True
    try:
        _check_text(sys.argv)
        code = main()
        sys.stdout.flush()
        sys.exit(code)
    except UserError as error:
        _leave(str(error), 2)
    except ProcessLost as error:
        _leave(f"{error}; start all of them again with the same commands: training goes on from the last checkpoint", 1)
    except BrokenPipeError:  # such as --help in a pager that was left: nobody reads on
        with open(os.devnull, "w") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), 1)  # nor must what it still holds fail once more at the end
        _end(141)  # as a shell counts SIGPIPE, which Windows lacks
    except OSError as error:
        if not files.is_of_storage(error):
            raise
        with open(os.devnull, "w") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), 1)  # what standard output still holds must not fail once more at the end
        _leave(files.storage_message(error), 2)
    except KeyboardInterrupt:  # before training began, or while the report is written: nothing to save
        print("interrupted", file=sys.stderr)
        _end(130)
    except _Terminated as terminated:
        _end(terminated.code)
    except Exception:
        if not _is_one_of_several():
            raise
        traceback.print_exc()
        _end(1)


def _leave(message: str, code: int) -> NoReturn:
    print("error:", " ".join(message.split()), file=sys.stderr)
    _end(code)


def _end(code: int) -> NoReturn:
    """Leaves before the end of the work, at once: jax would wait for the other processes, which wait for this one."""
    if _is_one_of_several():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _is_one_of_several() -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and bool(jax.distributed.is_initialized())


class _Terminated(SystemExit):
    """SIGTERM outside of training."""

    code: int


def _terminated(number: int, _: object) -> NoReturn:
    """SIGTERM outside of training: nothing to save, but neither silence."""
    print("terminated", file=sys.stderr)
    raise _Terminated(128 + number)


def _check_text(arguments: Sequence[str]) -> None:
    for argument in arguments:
        if not argument.isascii() and any("\ud800" <= character <= "\udfff" for character in argument):
            raise UserError(
                f"arguments must be UTF-8 text, since the runs' files record them, but {argument!a} is not; "
                "rename the path"
            )


def check_distinct(flag: str, values: Sequence[Any]) -> None:
    """Checks that a flag names each value once.

    Raises:
        UserError: naming the value that comes twice.
    """
    for value, count in collections.Counter(values).items():
        if count > 1:
            raise UserError(f"{flag} must name each value once, but names {value} {count} times; drop the others")


def load(name: str) -> None:
    """Imports a Python file or module for what it registers; the same one twice counts once.

    Raises:
        UserError: if it is not found or fails.
    """
    path = Path(name)
    is_file = path.suffix == ".py" or path.is_file()
    if is_file and not path.is_file():
        raise UserError(f"--import must name a Python file or module, but there is no file {name!r}; check the path")
    try:
        if is_file:
            _load_file(path.resolve())
        else:
            if "" not in sys.path:
                sys.path.insert(0, "")
            importlib.import_module(name)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(
            f"--import must name a Python file or module that loads, but {name!r} fails with "
            f"{type(error).__name__}: {error}; mend it or check the name"
        ) from error


def _load_file(path: Path) -> None:
    # Under a name of our own: a file called json.py must not take the place of the module.
    name = f"_jaxnorm_import_{hashlib.sha256(bytes(path)).hexdigest()[:16]}"
    if name in sys.modules:
        return
    loader = importlib.machinery.SourceFileLoader(name, str(path))
    spec = importlib.util.spec_from_loader(name, loader)
    if spec is None:
        raise ImportError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _preset_in(arguments: Sequence[str]) -> str | None:
    found = None
    for index, argument in enumerate(arguments):
        if argument.startswith("--preset="):
            found = argument.removeprefix("--preset=")
        elif argument == "--preset" and index + 1 < len(arguments):
            found = arguments[index + 1]
    return found
