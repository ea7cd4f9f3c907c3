"""The user's modules, and flags that only ask: the version, and the ids that other flags take."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Literal

from tyro.conf import FlagCreatePairsOff, UseAppendAction, arg

import jaxnorm
from jaxnorm.errors import UserError
from jaxnorm.study.cli.imports import load, load_jax
from jaxnorm.study.config import nearest


@dataclasses.dataclass(frozen=True, kw_only=True)
class Imports:
    """The user's modules."""

    imports: Annotated[tuple[str, ...], arg(name="import", metavar="MODULE"), UseAppendAction] = ()
    """A Python file or module to load first, for the norms, data sets and models it registers. Repeatable."""

    def load_modules(self) -> None:
        """Loads JAX and the user's modules.

        Raises:
            UserError: if one cannot be loaded.
        """
        load_jax()
        for name in self.imports:
            load(name)

    def check_registered(self, norms: Sequence[str]) -> None:
        """Loads the modules, and checks that norms are registered then.

        Args:
            norms: what --norms names.

        Raises:
            UserError: if a module cannot be loaded, or naming the norm and what it may be.
        """
        self.load_modules()
        from jaxnorm.study.registry import NORMS

        for norm in norms:
            if norm not in NORMS:
                raise UserError(f"--norms must name registered norms, but names {norm!r}; {nearest(norm, NORMS)}")


@dataclasses.dataclass(frozen=True)
class About(Imports):
    """What the program and every driver can tell without training."""

    show: Annotated[Literal["norms", "datasets", "models"] | None, arg(name="list", metavar="WHAT")] = None
    """Print the norms, datasets or models that can be named, those of --import included, and end."""
    version: FlagCreatePairsOff[bool] = False
    """Print the version and end."""

    def answer(self) -> str | None:
        """What is asked for.

        Returns:
            Lines; None if nothing is.

        Raises:
            UserError: if a module of the user cannot be loaded.
        """
        if self.version:
            return f"jaxnorm {jaxnorm.__version__}"
        if self.show is None:
            return None
        self.load_modules()
        from jaxnorm.study.data import DATASETS
        from jaxnorm.study.models.registry import MODELS
        from jaxnorm.study.registry import NORMS

        found = {
            "norms": {id: norm.label for id, norm in NORMS.items()},
            "datasets": {id: one.description for id, one in DATASETS.items()},
            "models": {id: one.description for id, one in MODELS.items()},
        }[self.show]
        return "\n".join(f"{name:<{max(map(len, found))}}  {words}" for name, words in found.items())
