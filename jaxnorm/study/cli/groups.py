"""The flags of a driver in groups, as ``--help`` shows them."""

import ast
import dataclasses
import inspect
import itertools
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from tyro.conf import OmitArgPrefixes, arg

FIRST = ("norms", "seeds", "preset", "workdir", "config")
LAST = ("plan", "dry_run", "quiet", "imports", "show", "version")
GROUPS: Mapping[str, str] = {
    "training": "dataset image_size batch_size num_epochs stop_after_epoch learning_rate lr_rule gate_lr_multiplier "
    "optimizer momentum weight_decay schedule",
    "network": "model num_blocks num_filters init compute_dtype ghost_batch_size bn_statistics num_replicas",
    "recording": "record_features quantiles evaluate_statistics probe_learning_rate probe_smoothness tensorboard",
    "execution": "data_dir jobs data_parallel steps_per_call checkpoint_every_seconds allow_changes",
    "process": "coordinator num_processes process_id",
}
"""Fields by the title of their box, less the word "options". Others are in the first box between `FIRST` and `LAST`."""
CONFIG = (OmitArgPrefixes,)
"""How tyro has to read the dataclass that `grouped` makes."""
METAVARS: Mapping[Any, str] = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH"}


def grouped(defaults: Any) -> tuple[type, Callable[[Any], dict[str, Any]]]:
    """A dataclass with the fields of another one in groups: tyro's help has a box for each dataclass.

    Args:
        defaults: an instance of the flat dataclass. Its values are the defaults, the docstrings of its fields the help.

    Returns:
        The dataclass, and the function from an instance of it to the fields of the flat one, by name.

    Examples:
        >>> from jaxnorm.study.cli.compare import Compare
        >>> kind, flat = grouped(Compare(seeds=(0, 1)))
        >>> [field.name for field in dataclasses.fields(kind)][:3], flat(kind())["seeds"]
        (['norms', 'seeds', 'preset'], (0, 1))
    """
    texts, hints = _texts(type(defaults)), get_type_hints(type(defaults), include_extras=True)
    names = [field.name for field in dataclasses.fields(defaults)]
    groups = {title: [name for name in text.split() if name in names] for title, text in GROUPS.items()}
    elsewhere = {*FIRST, *LAST, *itertools.chain(*groups.values())}
    top = [*FIRST, *(name for name in names if name not in elsewhere), *LAST]

    def field(name: str) -> tuple[str, Any, Any]:
        default = getattr(defaults, name)
        return name, Annotated[hints[name], _argument(hints[name], texts.get(name, ""))], default

    parts = {
        title: dataclasses.make_dataclass(title, map(field, members), frozen=True) for title, members in groups.items()
    }
    boxes = [(title, part, part()) for title, part in parts.items()]
    whole = dataclasses.make_dataclass(type(defaults).__name__, [*map(field, top), *boxes], frozen=True)

    def flat(found: Any) -> dict[str, Any]:
        values = {name: getattr(found, name) for name in top}
        return values | {name: getattr(getattr(found, title), name) for title in groups for name in groups[title]}

    return whole, flat


def _argument(hint: Any, text: str) -> Any:
    """What tyro shows of a flag; its type without None, which is there for the default alone."""
    kinds = [kind for kind in get_args(hint) if kind is not type(None)] if get_origin(hint) is UnionType else []
    return arg(help=text, metavar=METAVARS.get(kinds[0]) if len(kinds) == 1 else None)


def _texts(kind: type) -> dict[str, str]:
    """The docstrings of a dataclass's fields, also of inherited ones, from its source."""
    found = {}
    for base in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        for field, text in itertools.pairwise(getattr(tree, "body", [])):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[ast.unparse(field.target)] = " ".join(str(text.value.value).split())
    return found
