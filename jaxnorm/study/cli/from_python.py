"""The comparison of norms as a Python function: a user's own data, network and norms in a study's folder."""

import collections
import dataclasses
import re
import signal
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import flax.linen as nn

from jaxnorm.errors import UserError
from jaxnorm.study.cli.compare import Compare
from jaxnorm.study.cli.grid import train_and_report
from jaxnorm.study.config import Config
from jaxnorm.study.data.dataset import Dataset
from jaxnorm.study.exit_codes import is_of_signal, of_signal
from jaxnorm.study.models.registry import check_model, register_model
from jaxnorm.study.registry import norm_of
from jaxnorm.study.runs.lock import check_free

if TYPE_CHECKING:
    from jaxnorm.study.report.frames import Study

FREE = ("norm", "seed", "tags", "learning_rate")
"""Fields in which the runs may differ."""


def compare(
    configs: Sequence[Config],
    dataset: Dataset,
    *,
    workdir: str | Path,
    model: Callable[..., nn.Module] | None = None,
    plan: str | Path | None = None,
    quiet: bool = False,
    allow_changes: bool = False,
) -> "Study":
    """Trains runs in a folder and writes their report, as ``jaxnorm compare`` does. The same call there continues.

    Call it in the main thread: Ctrl-C saves, and raises `KeyboardInterrupt`. Files of your own
    modules are recorded, and a change in one is refused later. The code of a notebook is not: after a change there
    choose another folder.

    Args:
        configs: the runs. They may differ in norm, seed and learning rate; runs of one norm and seed need `tags`. Their
            `dataset` becomes the name of `dataset`.
        dataset: what they train on, for example by `dataset_from_arrays`.
        workdir: folder for the runs, tables, figures and the report.
        model: builds the network, as for `register_model`; None for the network that the runs name.
        plan: a TOML file with the comparisons to test, as for ``--plan``.
        quiet: print only the path of the table of results, as ``--quiet``.
        allow_changes: as ``--allow-changes``.

    Returns:
        The study as tables, as by `read_study`.

    Raises:
        UserError: before anything is written, if the runs, the data and the folder do not fit.

    Examples:
        >>> import numpy as np, tempfile
        >>> from jaxnorm import Config, compare, dataset_from_arrays
        >>> image, label = np.random.default_rng(0).integers(0, 256, (60, 8, 8), np.uint8), np.arange(60) % 3
        >>> configs = [Config(norm=norm, num_epochs=1, num_blocks=1, num_filters=4) for norm in ("bn", "gn")]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     study = compare(configs, dataset_from_arrays("noise", (image, label)), workdir=folder, quiet=True)
        /.../summary.csv
        >>> study.final("test").norm.tolist()
        ['bn', 'gn']
    """
    from jaxnorm.study.report.folders import read_study  # late: loads pandas

    configs = _listed(configs)
    if not isinstance(dataset, Dataset):
        raise UserError(
            f"the data must be a Dataset, but is a {type(dataset).__name__}; make one by dataset_from_arrays"
        )
    if not isinstance(workdir, (str, Path)):
        raise UserError(f"the workdir must be a path, but is {workdir!r}; give one such as 'runs/mine'")
    if model is not None:
        id = re.sub("[^a-z0-9_]+", "", getattr(model, "__name__", "").lower())[:40] or "model"
        register_model(id, model)
        configs = [dataclasses.replace(config, model=id) for config in configs]
    configs = [dataclasses.replace(config, dataset=dataset.name) for config in configs]
    _check(configs)
    rates = tuple(dict.fromkeys(config.learning_rate for config in configs))
    options = Compare(
        dataset=dataset.name,
        norms=tuple(dict.fromkeys(config.norm for config in configs)),
        seeds=tuple(dict.fromkeys(config.seed for config in configs)),
        learning_rates=rates if len(rates) > 1 else (),
        workdir=Path(workdir).expanduser(),
        plan=None if plan is None else Path(plan).expanduser(),
        quiet=quiet,
        allow_changes=allow_changes,
    )
    options.check_flags()
    check_free(options.workdir)
    code = train_and_report(options, configs, study=Compare.study, load_data=lambda: dataset)
    if is_of_signal(code):
        raise KeyboardInterrupt if code == of_signal(signal.SIGINT) else SystemExit(code)
    return read_study(options.workdir)


def _listed(configs: Iterable[Config]) -> list[Config]:
    found = [*configs] if isinstance(configs, Iterable) else [configs]
    if not found or not all(isinstance(config, Config) for config in found):
        kinds = sorted({type(one).__name__ for one in found}) or ["none"]
        raise UserError(
            f"compare must be given at least one Config, but is given {', '.join(kinds)}; give one for each norm and "
            "seed"
        )
    return found


def _check(configs: Sequence[Config]) -> None:
    """Checks that the runs are a comparison, and that what they name is registered."""
    for name, count in collections.Counter(config.name for config in configs).items():
        if count > 1:
            raise UserError(f"each run must have a name of its own, but {count} are called {name}; give them `tags`")
    first = configs[0].to_json()
    for config in configs:
        norm_of(config.norm)
        check_model(config)
        for field, value in config.to_json().items():
            if field not in FREE and value != first[field]:
                raise UserError(
                    f"compared runs may differ in {', '.join(FREE)} only, but `{field}` is {first[field]} in "
                    f"{configs[0].name} and {value} in {config.name}; make them equal, or compare in another workdir"
                )
