"""The flags that a study's folder records, for ``--config``: what it holds can be run again. Imports no JAX."""

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jaxnorm import files
from jaxnorm.errors import UserError
from jaxnorm.study import planned
from jaxnorm.study.config import completed
from jaxnorm.study.runs.lock import STUDY
from jaxnorm.study.runs.manifest import read_sealed

COMMANDS = {"compare_norms": "compare", "batch_size_study": "batch-sizes", "feature_evolution": "features"}
"""The command of each driver."""


def recorded_flags(path: Path, study: str, known: frozenset[str]) -> dict[str, Any]:
    """The values of a driver's flags by which the study in a folder can be trained again.

    Args:
        path: a ``study.json``, or its folder.
        study: the driver.
        known: names of its flags.

    Returns:
        Values by name: recipe, norms, seeds, preset, and what the study varies.

    Raises:
        UserError: if there is no such file, it is damaged, or another driver wrote it.
    """
    file, plan = _read(path)
    if plan.get("study") != study:
        command = COMMANDS.get(str(plan.get("study")), "another command")
        raise UserError(f"--config must be of {COMMANDS[study]}, but {file} is of {command}; use that")
    with files.reading(file):
        found = {"preset": plan["preset"], "norms": plan["norms"], "seeds": plan["seeds"], **completed(plan["recipe"])}
        for name, values in plan["grid"].items():  # such as batch_sizes; of a study with ghosts, most runs have none
            found[name] = [value for value in values if value is not None]
        found["num_replicas"] = found.get("num_replicas") if found.get("bn_statistics") == "replica" else None
        if unknown := sorted({*found} - known):
            raise ValueError(f"it has settings that are no flags: {', '.join(unknown)}")
        return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


def recorded_plan(path: Path) -> planned.Recorded | None:
    """The plan that a study's folder records, as the plan of a study that begins now.

    Args:
        path: a ``study.json``, or its folder.

    Returns:
        The plan; None where it records none.

    Raises:
        UserError: as `recorded_flags`.
    """
    found = planned.recorded(_read(path)[1], path)
    return found and dataclasses.replace(found, date=datetime.now(UTC).isoformat(timespec="seconds"))


def _read(path: Path) -> tuple[Path, dict[str, Any]]:
    file = path / STUDY if path.is_dir() else path
    found = read_sealed(file)
    if found is None:
        raise UserError(f"--config must name a {STUDY} or its folder, but there is no file {file}; check the path")
    return file, found
