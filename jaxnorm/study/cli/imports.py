"""Modules of the user, which register norms, data sets and models."""

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path

from jaxnorm.errors import UserError, one_line
from jaxnorm.study import imported


def load_jax() -> None:
    """Imports JAX, so that its own faults are not mistaken for those of what needs it.

    Raises:
        UserError: if a variable of the environment has a value that JAX refuses, or its packages do not fit together.
    """
    try:
        importlib.import_module("jax")
    except ModuleNotFoundError:  # `entry.run` says what to install
        raise
    except Exception as error:
        raise UserError(
            f"JAX must load, but fails with {type(error).__name__}: {one_line(error)}; check the variables of the "
            "environment that begin with JAX_, and the versions of jax and jaxlib"
        ) from error


def load(name: str) -> None:
    """Imports a Python file or module for what it registers. The same file is run once.

    It is hashed, and so is all that it imports from outside of installed packages; see `jaxnorm.study.imported`.

    Args:
        name: path of a file, or a module's name.

    Raises:
        UserError: if it is not found or fails.
    """
    path = Path(name)
    is_file = path.suffix == ".py" or path.is_file()
    if is_file and not path.is_file():
        raise UserError(f"--import must name a Python file or module, but there is no file {name!r}; check the path")
    imported.watch()
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
            f"{type(error).__name__}: {one_line(error)}; fix it or check the name"
        ) from error


def _load_file(path: Path) -> None:
    # The module gets a name of our own: a file called json.py must not replace the standard module.
    name = f"_jaxnorm_import_{hashlib.sha256(bytes(path)).hexdigest()[:16]}"
    if name in sys.modules:
        return
    loader = imported.Loader(name, str(path), path.name)
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
