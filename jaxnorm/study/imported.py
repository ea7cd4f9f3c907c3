"""Python files of the user, hashed when they are loaded: what runs, not what is on disk later."""

import hashlib
import importlib.abc
import importlib.machinery
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType

from jaxnorm import files

_LOADED: dict[str, tuple[str, str]] = {}
"""By path: the file's name and its SHA-256."""
_OURS = str(Path(__file__).parents[1])
_INSTALLED = tuple({_OURS, *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))})
_PACKAGES = {"site-packages", "dist-packages"}


def hashes() -> dict[str, str]:
    """The files that were loaded since `watch`, and those given to `remember`.

    Returns:
        SHA-256 by name: that of the module, or of a file that was loaded by its path.
    """
    found: dict[str, str] = {}
    for path, (name, digest) in sorted(_LOADED.items()):
        found[path if name in found else name] = digest
    return found


def watch() -> None:
    """Hashes every Python file that is loaded from now on, also by a module of the user and in the middle of a run."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def remember(module: str) -> None:
    """Hashes the file of a module that was loaded before `watch`; does nothing for our own and those without a file.

    Args:
        module: its name.
    """
    path = getattr(sys.modules.get(module), "__file__", None)
    if path is not None and not _is_installed(path) and path not in _LOADED:
        _LOADED[path] = (module, files.sha256(Path(path)))


class Loader(importlib.machinery.SourceFileLoader):
    """Loads a file from its source, without a compiled copy, which may be of an older source, and hashes it.

    Args:
        fullname: the module's name.
        path: of the file.
        name: under which it is hashed; by default the module's.
    """

    def __init__(self, fullname: str, path: str, name: str | None = None) -> None:
        super().__init__(fullname, path)
        self._label = name or fullname

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002
        """Reads, hashes and compiles the file.

        Args:
            fullname: the module's name.

        Returns:
            The module's code.
        """
        content = self.get_data(self.path)
        _LOADED[self.path] = (self._label, hashlib.sha256(content).hexdigest())
        return self.source_to_code(content, self.path)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is not None and spec.has_location and spec.origin and not _is_installed(spec.origin):
            if type(spec.loader) is importlib.machinery.SourceFileLoader:
                spec.loader = Loader(fullname, spec.origin)
            else:  # compiled by the user
                _LOADED[spec.origin] = (fullname, files.sha256(Path(spec.origin)))
        return spec


def _is_installed(path: str) -> bool:
    return path.startswith(_INSTALLED) or not _PACKAGES.isdisjoint(Path(path).parts)
