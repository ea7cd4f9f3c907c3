"""The folder of a study: its plan and its run directories."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxnorm import files
from jaxnorm.errors import UserError
from jaxnorm.study.config import REVISABLE, Config
from jaxnorm.study.planned import Recorded, recorded
from jaxnorm.study.registry import NORMS
from jaxnorm.study.runs.agreement import read_run
from jaxnorm.study.runs.directory import RunDirectory
from jaxnorm.study.runs.lock import STUDY
from jaxnorm.study.runs.manifest import Manifest, read_sealed, sealed
from jaxnorm.study.runs.provenance import config_differences, differences


@dataclasses.dataclass(frozen=True)
class Workdir:
    """The folder of a study: ``study.json`` and one `RunDirectory` per run.

    Attributes:
        path: the folder.
        study: name of the driver that fills it.
        varied: fields of the recipe in which its runs may differ.
    """

    path: Path
    study: str
    varied: tuple[str, ...] = ()

    def directory(self, config: Config, **options: Any) -> RunDirectory:
        """The directory of a run.

        Args:
            config: the run.
            options: keyword arguments of `RunDirectory`.

        Returns:
            The directory, which need not exist yet.
        """
        return RunDirectory(self.path / config.name, config, **options)

    def check(self, configs: Sequence[Config], *, allow_changes: bool = False) -> list[str]:
        """Checks, without changing anything, that this folder can take the runs or continue them.

        Args:
            configs: the runs.
            allow_changes: let unfinished runs continue with other values of the fields in `REVISABLE`.

        Returns:
            The differences that are allowed, such as ``learning_rate: 0.1 -> 0.05``.

        Raises:
            UserError: if the folder contains something else, another study, damaged results, or runs that differ from
                the wanted ones in more than norms, seeds and a later end; the differences are listed.
        """
        plan = read_sealed(self.path / STUDY)
        if plan is None:
            self._check_empty()
            return []
        with files.reading(self.path / STUDY):
            allowed = self._check_plan(plan, configs, allow_changes)
        for config in configs:
            self.directory(config).check()
        names = {config.name for config in configs}
        for run in plan["runs"]:  # the report needs the others, too
            if run["name"] not in names and (manifest := Manifest.read(self.path / run["name"])) is not None:
                read_run(manifest, {**plan["recipe"], **run})
        return allowed

    def check_surroundings(
        self, configs: Sequence[Config], surroundings: dict[str, Any], *, allow_changes: bool = False
    ) -> list[str]:
        """Checks that what decides the numbers of the runs is the same as it was for the runs that are here.

        Args:
            configs: the runs.
            surroundings: of this process, see `provenance.surroundings`.
            allow_changes: let runs continue all the same.

        Returns:
            The differences that are allowed.

        Raises:
            UserError: if a run is unfinished and something that decides its numbers has changed.
        """
        refused: dict[str, None] = {}
        noted: dict[str, None] = {}
        for run in (read_sealed(self.path / STUDY) or {"runs": []})["runs"]:
            manifest = Manifest.read(self.path / run["name"])
            recorded = manifest.json("provenance.json") if manifest else None
            if recorded is None:
                continue
            with files.reading(self.path / run["name"]):
                found = differences(recorded, surroundings)
            for texts, all_texts in zip(found, (refused, noted), strict=True):
                all_texts.update(dict.fromkeys(texts))
        if refused and not allow_changes and not all(self.directory(config).is_finished for config in configs):
            raise UserError(
                f"{self.path} holds runs made under other conditions ({'; '.join(refused)}); restore those, choose "
                "another --workdir, or accept with --allow-changes that the runs then differ in this, too"
            )
        return [*refused, *noted]

    def planned(self, given: Recorded | None, *, demanded: bool) -> Recorded | None:
        """The plan of the comparisons that holds here: the one recorded before the first run, and no later one.

        Args:
            given: a plan file's content; None for none.
            demanded: whether the user named that file.

        Returns:
            The plan; None where runs had begun without one.

        Raises:
            UserError: if the user named another file than that recorded, or named one after the first run had begun.
        """
        study = files.read_json(self.path / STUDY)
        before = recorded(study, self.path / STUDY) if study else None
        begun = any(self.path.glob("*/provenance.json"))
        if before is None and not begun:
            return given
        if demanded and given and (before is None or before.sha256 != given.sha256):
            found = f"was given {before.file} on {before.date}" if before else "has begun without one"
            raise UserError(
                f"a plan must be recorded before the first run, but {self.path} {found}; drop --plan, or choose "
                "another --workdir"
            )
        return before

    def describe(
        self, configs: Sequence[Config], *, preset: str, command: str, planned: Recorded | None = None
    ) -> None:
        """Writes ``study.json``. Norms and seeds that the folder already has remain in it, first.

        Args:
            configs: the runs.
            preset: name of the preset that the recipe comes from.
            command: the command line that trains the runs.
            planned: the plan of the comparisons, see `planned`.
        """
        before = read_sealed(self.path / STUDY) or {"norms": [], "seeds": [], "runs": []}
        kept = dataclasses.asdict(planned) if planned else before.get("planned")
        own = {"norm", "seed", "tags", *self.varied}
        runs = {run["name"]: run for run in before["runs"]}
        runs |= {config.name: {"name": config.name, **config.to_json()} for config in configs}
        plan = {
            "study": self.study,
            "preset": preset,
            "recipe": {name: value for name, value in configs[0].to_json().items() if name not in own},
            "varied": list(self.varied),
            "labels": {**before.get("labels", {}), **{c.norm: NORMS[c.norm].label for c in configs}},
            "norms": list(dict.fromkeys([*before["norms"], *(config.norm for config in configs)])),
            "seeds": list(dict.fromkeys([*before["seeds"], *(config.seed for config in configs)])),
            "grid": {f"{name}s": list(dict.fromkeys(run[name] for run in runs.values())) for name in self.varied},
            "runs": list(runs.values()),
            **({"planned": kept} if kept else {}),
            # All commands together make what the folder contains.
            "command": "\n".join(dict.fromkeys([*before.get("command", "").splitlines(), command])),
        }
        files.write_json(self.path / STUDY, sealed(plan))

    def _check_empty(self) -> None:
        others = sorted(child.name for child in self.path.glob("*") if not child.name.startswith("."))
        if others:
            raise UserError(
                f"the workdir must be new, empty or a study's, but {self.path} holds other files ({others[0]!r}) and "
                "no study.json; choose another --workdir"
            )

    def _check_plan(self, plan: dict[str, Any], configs: Sequence[Config], allow_changes: bool) -> list[str]:
        if plan.get("study") != self.study:
            raise UserError(
                f"the workdir must belong to {self.study}, but {self.path} holds {plan.get('study')!r}; choose another "
                "--workdir"
            )
        if plan.get("published") and not all(self.directory(config).is_finished for config in configs):
            raise UserError(
                f"a publication has no checkpoints to continue from, but {self.path} is one; continue in the workdir "
                "that it was made from, or choose another --workdir"
            )
        for name in ("norms", "seeds"):
            plan[name]  # `describe` needs them
        for run in plan["runs"]:
            run["name"]
        found = {text: name for config in configs for name, text in self._differences(config, plan)}
        revisable = set(found.values()) <= set(REVISABLE)
        if found and not (revisable and allow_changes):
            fields = configs[0].to_json()
            texts = [f"`{name}`{text.removeprefix(name)}" if name in fields else text for text, name in found.items()]
            accept = ", or accept with --allow-changes that runs continue with them" if revisable else ""
            raise UserError(
                f"{self.path} holds runs of another configuration ({'; '.join(texts)}); choose another --workdir or "
                f"the flags it was made with{accept}"
            )
        return list(found)

    def _differences(self, config: Config, plan: dict[str, Any]) -> list[tuple[str, str]]:
        """Names and texts of the fields in which `config` differs from the folder's recipe and from its own run."""
        # Except for what the study varies, the runs of a folder share one recipe, so that new runs must have it, too.
        found = [*config_differences(plan["recipe"], config).items()]
        directory = self.directory(config)
        begun = directory.provenance
        recorded = config_differences(begun["config"], config) if begun else {}
        # A finished run remains as it is, even if the others continue with a changed recipe.
        if not (directory.is_finished and set(recorded) <= set(REVISABLE)):
            found += recorded.items()
        if tuple(plan["varied"]) != self.varied:
            found.append(("varied", f"varied: {plan['varied']} -> {list(self.varied)}"))
        return found
