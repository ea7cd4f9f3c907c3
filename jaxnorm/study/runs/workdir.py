"""A study's folder: what it holds, what is left to do."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxnorm import files
from jaxnorm.errors import UserError
from jaxnorm.study import home
from jaxnorm.study.config import REVISABLE, Config
from jaxnorm.study.registry import NORMS
from jaxnorm.study.runs.checkpoints import Checkpoints
from jaxnorm.study.runs.directory import RunDirectory, config_differences, read_json
from jaxnorm.study.runs.provenance import differences


@dataclasses.dataclass(frozen=True)
class Workdir:
    """The folder of a study: ``study.json`` and one `RunDirectory` per run.

    Attributes:
        path: the folder.
        study: name of the driver whose runs it holds.
        varied: fields of the recipe in which its runs may differ.
    """

    path: Path
    study: str
    varied: tuple[str, ...] = ()

    def directory(self, config: Config) -> RunDirectory:
        """Where a run lives."""
        return RunDirectory(self.path / config.name)

    def checkpoints(self, config: Config) -> Checkpoints:
        """A run's checkpoints."""
        return Checkpoints(self.path / config.name / "checkpoints")

    def check(self, configs: Sequence[Config], *, allow_changes: bool = False) -> list[str]:
        """Checks, without touching anything, that the runs may be added to or continued in this folder.

        Args:
            configs: the runs.
            allow_changes: let runs go on with another learning rate, see `REVISABLE`.

        Returns:
            The differences that were allowed, as ``learning_rate: 0.1 -> 0.05``.

        Raises:
            UserError: if the path is no folder, holds something else, another study, damaged results, or runs that
                differ from what is wanted in more than norms, seeds and a later stop; the differences are listed.
        """
        if not self._is_folder():
            return []
        study = read_json(self.path / "study.json")
        with files.reading(self.path / "study.json"):
            allowed = self._check_study(study, configs, allow_changes)
        for config in configs:
            directory = self.directory(config)
            with files.reading(directory.path):
                directory.check_whole()
                epoch = max((row["epoch"] for row in directory.rows), default=0)
                if epoch > config.last_epoch:
                    raise UserError(
                        f"{config.name} in {self.path} is trained to epoch {epoch}, but --stop-after-epoch "
                        f"{config.stop_after_epoch} asks for less; raise it or choose another --workdir"
                    )
        return allowed

    def _check_study(self, study: dict[str, Any] | None, configs: Sequence[Config], allow_changes: bool) -> list[str]:
        if study is None:
            others = sorted(child.name for child in self.path.iterdir() if not child.name.startswith("."))
            if others:
                raise UserError(
                    f"the workdir must be new, empty or a study's, but {self.path} holds other files ({others[0]!r}) "
                    "and no study.json; choose another --workdir"
                )
            return []
        if study.get("study") != self.study:
            raise UserError(
                f"the workdir must belong to {self.study}, but {self.path} holds {study.get('study')!r}; "
                "choose another --workdir"
            )
        if study.get("published") and not all(map(self.is_finished, configs)):
            raise UserError(
                f"a publication has no checkpoints to go on from, but {self.path} is one; go on in the workdir that it "
                "was made from, or choose another --workdir"
            )
        for name in ("norms", "seeds", "runs", "recipe"):
            study[name]  # what `describe` goes on from
        for run in study["runs"]:
            run["name"]
        differences = {text: name for config in configs for name, text in self._differences(config, study)}
        revisable = set(differences.values()) <= set(REVISABLE)
        if differences and not (revisable and allow_changes):
            accept = ", or accept with --allow-changes that runs go on with them" if revisable else ""
            raise UserError(
                f"{self.path} holds runs of another configuration ({'; '.join(differences)}); "
                f"choose another --workdir or the flags it was made with{accept}"
            )
        return list(differences)

    def changes(self, surroundings: dict[str, Any]) -> tuple[list[str], list[str]]:
        """What the runs in the folder were made under that is different now, each once: grave, and slight.

        See `provenance.differences`.
        """
        grave: dict[str, None] = {}
        slight: dict[str, None] = {}
        for path in sorted(self.path.glob("*/provenance.json")):
            with files.reading(path):
                found = differences(read_json(path) or {}, surroundings)
            for texts, kind in zip(found, (grave, slight), strict=True):
                kind.update(dict.fromkeys(texts))
        return list(grave), list(slight)

    def _is_folder(self) -> bool:
        try:
            if self.path.is_dir():
                return True
            if self.path.is_symlink() and not self.path.exists():
                raise UserError(f"the workdir must be a folder, but {self.path} links to nothing; mend the link")
            if self.path.exists():
                raise UserError(f"the workdir must be a folder, but {self.path} is a file; choose another --workdir")
            for parent in self.path.absolute().parents:
                if parent.exists() and not parent.is_dir():
                    raise UserError(
                        f"the workdir must lie in a folder, but {parent} is a file; choose another --workdir"
                    )
        except OSError as error:
            raise UserError(
                f"the workdir must be a usable path, but {str(self.path)[:80]!r} is not ({error.strerror}); choose "
                "another --workdir"
            ) from None
        return False

    def _differences(self, config: Config, study: dict[str, Any]) -> list[tuple[str, str]]:
        """Names and words."""
        # Runs of a folder share one recipe but for what the study varies, so a new run is held against that, too.
        recipe, own = study.get("recipe", {}), self.directory(config).config or {}
        differences = [*config_differences(recipe, config).items()]
        # A finished run stands as it is, where the others were allowed to change.
        if not self.is_finished(config) or not set(config_differences(own, config)) <= set(REVISABLE):
            differences += config_differences(own, config).items()
        if tuple(study.get("varied", ())) != self.varied:
            differences.append(("varied", f"varied: {study.get('varied', [])} -> {list(self.varied)}"))
        return differences

    def is_finished(self, config: Config) -> bool:
        """Whether a run needs nothing more: trained as far as asked and evaluated, or diverged."""
        result = self.directory(config).result
        if result is None or result["status"] == "crashed":
            return False
        return result["status"] == "diverged" or result["epoch"] >= config.last_epoch

    def twin(self, config: Config, configs: Sequence[Config]) -> Config | None:
        """The first run of a grid that computes what this one does, whose outcome is this one's, too.

        None for the first itself, and for a run that must train on its own: it has begun to, or the other went on with
        a changed learning rate.
        """
        first = next((other for other in configs if other.computation == config.computation), config)
        if first == config or self.checkpoints(config).steps():
            return None
        trained = self.directory(first).config
        return None if trained and config_differences(trained, first) else first

    def describe(self, configs: Sequence[Config], *, preset: str, command: str) -> None:
        """Writes ``study.json``; norms and seeds that the folder already had stay in it, first."""
        before = read_json(self.path / "study.json") or {"norms": [], "seeds": [], "runs": []}
        own = {"norm", "seed", "tags", *self.varied}
        runs = {run["name"]: run for run in before["runs"]}
        runs |= {config.name: {"name": config.name, **config.to_json()} for config in configs}
        files.write_json(
            self.path / "study.json",
            {
                "study": self.study,
                "preset": preset,
                "recipe": {name: value for name, value in configs[0].to_json().items() if name not in own},
                "varied": list(self.varied),
                "labels": {**before.get("labels", {}), **{c.norm: NORMS[c.norm].label for c in configs}},
                "norms": list(dict.fromkeys([*before["norms"], *(config.norm for config in configs)])),
                "seeds": list(dict.fromkeys([*before["seeds"], *(config.seed for config in configs)])),
                "grid": {f"{name}s": list(dict.fromkeys(run[name] for run in runs.values())) for name in self.varied},
                "runs": list(runs.values()),
                **({"published": True} if before.get("published") else {}),
                # Together they give all that the folder holds.
                "command": "\n".join(dict.fromkeys([*home.retyped(before.get("command", "")).splitlines(), command])),
            },
        )
