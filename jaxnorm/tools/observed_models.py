"""One view of linen and NNX models: the values of each layer, and what each layer is called with."""

import abc
import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from flax import linen as nn
from flax import nnx
from flax.core import unfreeze
from flax.traverse_util import flatten_dict, unflatten_dict
from flax.typing import Array

import jaxnorm.nnx as nnx_norms
from jaxnorm import norms
from jaxnorm.errors import UserError


def _ours(*names: str) -> tuple[Any, ...]:
    """The classes of these names, linen's and NNX's."""
    return tuple(getattr(module, name) for module in (norms, nnx_norms) for name in names)


BATCH_NORMS = (nn.BatchNorm, nnx.BatchNorm, *_ours("BatchNorm"))
"""Layers whose running `mean` and `var` are those of their input, and which BatchNorm can replace in evaluation."""
BATCH_GROUP_NORMS, ITER_NORMS = _ours("BatchGroupNorm"), _ours("IterNorm")
BATCH_INSTANCE_NORMS = _ours("BatchInstanceNorm")
"""Those of `BATCH_NORMS` whose output depends on the statistics of each sample, too."""
RUNNING_NORMS = (
    *(*BATCH_NORMS, *BATCH_GROUP_NORMS, *ITER_NORMS),
    *_ours("BatchRenorm", "SwitchableNorm", "EvoNormB0"),
)
"""Layers with running statistics, which are those of their input."""
NORMS = (
    *(nn.BatchNorm, nn.InstanceNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm),
    *(nnx.BatchNorm, nnx.InstanceNorm, nnx.LayerNorm, nnx.GroupNorm, nnx.RMSNorm),
    *_ours(*norms.__all__),
)
LINEAR = (
    *(nn.Conv, nn.ConvLocal, nn.ConvTranspose, nn.Dense, nn.DenseGeneral),
    *(nnx.Conv, nnx.ConvTranspose, nnx.Linear, nnx.LinearGeneral),
)
"""Layers with a `kernel` and perhaps a `bias`."""

Values = Mapping[str, Mapping[str, Any]]
"""Arrays by the path of their layer, such as "block1/norm", and by name, such as "scale"."""

_RECORD = "jaxnorm_record"
_COLLECTIONS = (
    "batch_stats",
    "intermediates",
)  # nn.scan and nn.vmap let the first out with running values
_TRAINING = {"train": True, "training": True, "is_training": True, "use_running_average": False}


class LayerCall(NamedTuple):
    """One call of a layer of `NORMS` or `LINEAR`, while a model runs.

    Attributes:
        path: Path of the layer.
        layer: The layer.
        x: Its input.
        mask: The argument `mask`, or None.
        running: Whether a layer with running statistics takes them.
        run: From the input to the layer's output.
    """

    path: str
    layer: Any
    x: Array
    mask: Array | None
    running: bool
    run: Callable[[Array], Array]


Visit = Callable[[LayerCall], tuple[Array, Any]]
"""From a call to the layer's output and to arrays to record, or None."""


class ObservedModel(abc.ABC):
    """A model of either interface, which runs in one mode.

    Attributes:
        model: The model.
        variables: The values of all its layers, a pytree.
        train: Whether it runs in training mode.
        call: Keyword arguments of its call. Where the model takes `train`, `training`, `is_training` or
            `use_running_average`, it gets them, unless they are here.
    """

    model: Any
    variables: Any
    train: bool
    call: Mapping[str, Any]

    @property
    @abc.abstractmethod
    def result(self) -> Any:
        """What a user gets back: variables or an NNX model."""

    @abc.abstractmethod
    def values(self) -> Values:
        """The values of all layers.

        Returns:
            Arrays by path and name.
        """

    @abc.abstractmethod
    def running(self) -> set[str]:
        """The layers that have running values.

        Returns:
            Their paths.
        """

    @abc.abstractmethod
    def replace(self, values: Values) -> "ObservedModel":
        """The same model with other values.

        Args:
            values: The values that change.

        Returns:
            Another model.
        """

    @abc.abstractmethod
    def run(self, variables: Any, batch: Any, visit: Visit) -> tuple[Any, dict[str, tuple[Any, ...]]]:
        """Calls the model. Each call of a layer of `NORMS` and `LINEAR` goes through `visit`.

        Args:
            variables: Those of this model, or others of the same structure.
            batch: The model's input, or a tuple of its positional arguments.
            visit: Makes each such call.

        Returns:
            The model's output, and what `visit` recorded: by path, a tuple with one entry for each call.

        Raises:
            UserError: If a layer's values cannot leave `nn.scan` or `nn.vmap`.
        """

    def _arguments(self, batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a call. An argument that is None by default is left to the model's own fields."""
        given = batch if isinstance(batch, tuple) else (batch,)
        takes = list(inspect.signature(type(self.model).__call__).parameters.values())[1 + len(given) :]
        mode = {
            each.name: _TRAINING[each.name] == self.train
            for each in takes
            if each.name in _TRAINING and each.default is not None
        }
        return given, {**mode, **self.call}


@dataclasses.dataclass
class LinenModel(ObservedModel):
    """A linen model and its variables.

    Attributes:
        model: as in `ObservedModel`, like the others.
        variables: its variables.
        train: whether it runs in training mode.
        call: keyword arguments of its call.
    """

    model: nn.Module
    variables: Any
    train: bool
    call: Mapping[str, Any]

    @property
    def result(self) -> Any:
        return self.variables

    def values(self) -> Values:
        found: dict[str, dict[str, Any]] = {}
        for (_, *path, name), value in flatten_dict(nn.meta.unbox(self.variables)).items():
            found.setdefault("/".join(path), {})[name] = value
        return found

    def running(self) -> set[str]:
        return {"/".join(path[:-1]) for path in flatten_dict(self.variables.get("batch_stats", {}))}

    def replace(self, values: Values) -> "LinenModel":
        flat = flatten_dict(nn.meta.unbox(self.variables))
        flat = {key: values.get("/".join(key[1:-1]), {}).get(key[-1], value) for key, value in flat.items()}
        return dataclasses.replace(self, variables=nn.meta.replace_boxed(self.variables, unflatten_dict(flat)))

    def run(self, variables: Any, batch: Any, visit: Visit) -> tuple[Any, dict[str, tuple[Any, ...]]]:
        active: set[tuple[str, ...]] = set()  # a user's subclass may call the method that it overrides

        def intercept(run: Any, args: Any, kwargs: Any, context: Any) -> Any:
            layer = context.module
            visited = context.method_name == "__call__" and isinstance(layer, (*NORMS, *LINEAR))
            if not visited or layer.path in active:
                return run(*args, **kwargs)
            active.add(layer.path)
            path = "/".join(layer.path)
            y, record = visit(_layer_call(path, layer, run, args, kwargs))
            active.remove(layer.path)
            if record is not None and not any(layer.sow(name, _RECORD, record) for name in _COLLECTIONS):
                raise UserError(
                    f"what `{path}` computes must leave nn.scan or nn.vmap, but `variable_axes` does not let it; "
                    'add "intermediates": 0 there'
                )
            return y

        mutable = [*({*variables, *_COLLECTIONS} - {"params"})]
        arguments, keywords = self._arguments(batch)
        with nn.intercept_methods(intercept):
            y, updated = self.model.apply(variables, *arguments, mutable=mutable, **keywords)
        flat = {path: value for path, value in flatten_dict(updated).items() if path[-1] == _RECORD}
        return y, {"/".join(path[1:-1]): value for path, value in flat.items()}


@dataclasses.dataclass
class NnxModel(ObservedModel):
    """An NNX model.

    Attributes:
        model: as in `ObservedModel`, like the others.
        train: whether it runs in training mode.
        call: keyword arguments of its call.
        variables: its state.
    """

    model: Any
    train: bool
    call: Mapping[str, Any]
    variables: Any = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.variables = nnx.state(self.model)

    @property
    def result(self) -> Any:
        return self.model

    def values(self) -> Values:
        return {
            path: {name: value[...] for name, value in vars(layer).items() if isinstance(value, nnx.Variable)}
            for path, layer in nnx_layers(self.model)
        }

    def running(self) -> set[str]:
        layers = ((path, vars(layer).values()) for path, layer in nnx_layers(self.model))
        return {path for path, values in layers if any(isinstance(value, nnx.BatchStat) for value in values)}

    def replace(self, values: Values) -> "NnxModel":
        model = nnx.clone(self.model)
        for path, layer in nnx_layers(model):
            for name, value in values.get(path, {}).items():
                if getattr(layer, name) is None:  # the bias of a layer without one
                    layer.use_bias, layer.bias = True, nnx.Param(value)
                else:
                    getattr(layer, name).set_value(value)
        return dataclasses.replace(self, model=model)

    def run(self, variables: Any, batch: Any, visit: Visit) -> tuple[Any, dict[str, tuple[Any, ...]]]:
        model = nnx.merge(nnx.graphdef(self.model), variables)
        model.train() if self.train else model.eval()
        layers = [*nnx_layers(model)]
        for path, layer in layers:
            if isinstance(layer, (*NORMS, *LINEAR)):
                _watch(path, layer, visit)
        arguments, keywords = self._arguments(batch)
        y = model(*arguments, **keywords)
        return y, {path: getattr(layer, _RECORD).get_value() for path, layer in layers if hasattr(layer, _RECORD)}


def observed(
    model: Any, variables: Any, data: Any, *, train: bool, call: Mapping[str, Any]
) -> tuple[ObservedModel, Any]:
    """A user's model in either interface, and its data.

    Args:
        model: A linen or an NNX model.
        variables: Those of a linen model, or the data of an NNX model.
        data: The data of a linen model.
        train: Whether it runs in training mode.
        call: Keyword arguments of its call.

    Returns:
        The model and the data.

    Raises:
        UserError: If it is no such model, or if its variables or the data are missing.
    """
    if isinstance(model, nn.Module) and variables is not None and data is not None:
        return LinenModel(model, unfreeze(variables), train, call), data
    if isinstance(model, nnx.Module) and (variables is None) != (data is None):
        return NnxModel(nnx.clone(model), train, call), variables if data is None else data
    raise UserError(
        "a linen model is followed by its variables and the data, an NNX model by the data alone, but "
        f"{type(model).__name__} is followed by {(variables is not None) + (data is not None)} of these; give them so"
    )


def nnx_layers(model: nnx.Module) -> Iterator[tuple[str, Any]]:
    """All modules of an NNX model.

    Args:
        model: The model.

    Yields:
        Each module's path and the module.
    """
    return (("/".join(map(str, path)), module) for path, module in nnx.iter_modules(model))


def _layer_call(path: str, layer: Any, run: Callable[..., Any], args: Any, kwargs: Any) -> LayerCall:
    """The call of a layer whose class has this signature, except for `self`, whatever `run` says of itself."""
    bound = inspect.signature(type(layer).__call__).bind(layer, *args, **kwargs)
    name = [*bound.arguments][1]
    running = bound.arguments.get("use_running_average")

    def run_with(x: Array) -> Array:
        bound.arguments[name] = x
        return run(*bound.args[1:], **bound.kwargs)

    return LayerCall(
        path,
        layer,
        bound.arguments[name],
        bound.arguments.get("mask"),
        bool(getattr(layer, "use_running_average", False) if running is None else running),
        run_with,
    )


def _watch(path: str, layer: Any, visit: Visit) -> None:
    """Lets the calls of this one layer go through `visit`: its class becomes one of its own, with another call."""
    original = type(layer)

    @functools.wraps(original.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        y, record = visit(_layer_call(path, self, functools.partial(original.__call__, self), args, kwargs))
        if record is not None:
            earlier = getattr(self, _RECORD).get_value() if hasattr(self, _RECORD) else ()
            setattr(self, _RECORD, nnx.Intermediate((*earlier, record)))
        return y

    layer.__class__ = type(original.__name__, (original,), {"__call__": call})
