"""Batch norms folded into the layers before them."""

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import Literal

from jaxnorm.errors import UserError
from jaxnorm.tools.observed_models import (
    BATCH_INSTANCE_NORMS,
    BATCH_NORMS,
    LINEAR,
    LayerCall,
    NnxModel,
    ObservedModel,
    nnx_layers,
    observed,
)

_OUTPUT, _INPUT = "jaxnorm output of ", "jaxnorm input of "  # marks in a trace; a layer's path follows


def fold_batch_norm(
    model: Any, variables: Any = None, batch: Any = None, *, skip: Collection[str] = (), **call: Any
) -> Any:
    """The same function in evaluation, with each batch norm in the kernel and bias of the layer before it.

    With f = scale / sqrt(var + epsilon) of the batch norm, the kernel becomes f * kernel and the bias
    f * (bias of the layer - mean) + bias of the batch norm.

    Which layer comes before a batch norm is found in a trace of the model, not in names: its output is the batch
    norm's input and is used nowhere else. At the end, both models are run on the given data and compared.

    Args:
        model: A linen or an NNX model.
        variables: The variables of a linen model. An NNX model has none: the batch follows it.
        batch: An input of the model, or a tuple of its positional arguments.
        skip: Paths of batch norms that remain as they are, such as "block1/norm".
        call: Keyword arguments of the model's call; for linen also `rngs`. ``train=False`` is passed to a model that
            takes `train`, and so are `training`, `is_training` and ``use_running_average=True``.

    Returns:
        For linen the variables. A folded batch norm has the mean 0, the variance 1 - epsilon, the scale 1 and the
        bias 0, except that it adds the new bias where the layer before it has none. For NNX a copy of the model: the
        layer before it has a bias, and the batch norm does nothing at all.

    Raises:
        UserError: If the input of a batch norm is not the output of a convolution or dense layer, or if that is used
            elsewhere too; if a layer normalizes by the batch, by other axes than the last one, or by instances; if the
            folded model gives another output.

    Examples:
        >>> import jax
        >>> import flax.linen as nn
        >>> from jaxnorm import BatchNorm, fold_batch_norm
        >>> net = nn.Sequential([nn.Conv(4, (3, 3)), BatchNorm(use_running_average=True), nn.relu])
        >>> x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
        >>> variables = net.init(jax.random.key(1), x)
        >>> variables["batch_stats"]["layers_1"]["var"] += 3  # as if trained
        >>> folded = fold_batch_norm(net, variables, x)
        >>> ratio = folded["params"]["layers_0"]["kernel"] / variables["params"]["layers_0"]["kernel"]
        >>> error = net.apply(folded, x) - net.apply(variables, x)
        >>> print(f"{ratio.min():.4f} {ratio.max():.4f} {abs(error).max():.4f}")
        0.5000 0.5000 0.0000

        In NNX:

        >>> from flax import nnx
        >>> rngs = nnx.Rngs(0)
        >>> net = nnx.Sequential(nnx.Linear(3, 4, use_bias=False, rngs=rngs), nnx.BatchNorm(4, rngs=rngs))
        >>> folded = fold_batch_norm(net, x)
        >>> print(*(type(layer).__name__ for layer in folded.layers), folded.layers[0].bias.shape)
        Linear Identity (4,)
    """
    given, batch = observed(model, variables, batch, train=False, call=call)
    layers, before = _trace(given, batch, skip)
    values, new = given.values(), {}
    removes = isinstance(given, NnxModel)
    for path, preceding in before.items():
        transposed = getattr(layers[preceding], "transpose_kernel", False)
        new[preceding], new[path] = _fold(layers[path], values[path], values[preceding], transposed, removes)
    folded = given.replace(new)
    if isinstance(folded, NnxModel):
        folded = _remove(folded, before)
    _compare(*(_output(each, batch) for each in (given, folded)))
    return folded.result


def _output(model: ObservedModel, batch: Any) -> Any:
    return jax.jit(lambda variables: model.run(variables, batch, lambda call: (call.run(call.x), None))[0])(
        model.variables
    )


def _compare(expected: Any, found: Any) -> None:
    for one, other in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        if jnp.issubdtype(one.dtype, jnp.inexact):
            error, largest = (float(jnp.abs(each).max(initial=0)) for each in (other - one, one))
            if not error <= jnp.finfo(one.dtype).eps ** 0.5 * largest:
                raise UserError(
                    f"a folded model must give the same output, but differs by {error:.1e} of {largest:.1e}; "
                    "name in `skip` the batch norms after layers that compute their kernel, such as weight norm"
                )


def _trace(given: ObservedModel, batch: Any, skip: Collection[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """All layers by path; and by the path of each batch norm, that of the layer before it."""
    layers: dict[str, Any] = {}

    def visit(call: LayerCall) -> tuple[jax.Array, None]:
        layers[call.path] = call.layer
        if isinstance(call.layer, LINEAR):
            return checkpoint_name(call.run(call.x), _OUTPUT + call.path), None
        if not isinstance(call.layer, BATCH_NORMS) or call.path in skip:
            return call.run(call.x), None
        if not call.running:
            raise _refusal(call.path, "normalizes by the batch")
        if isinstance(call.layer, BATCH_INSTANCE_NORMS) or call.layer.axis not in (-1, call.x.ndim - 1):
            raise _refusal(call.path, "does not multiply each channel of the last axis by a constant")
        return call.run(checkpoint_name(call.x, _INPUT + call.path)), None

    traced = jax.make_jaxpr(lambda variables, batch: given.run(variables, batch, visit)[0])(given.variables, batch)
    if missing := sorted({*skip} - {path for path, layer in layers.items() if isinstance(layer, BATCH_NORMS)}):
        raise UserError(f"`skip` names batch norms that the model calls, but `{missing[0]}` is none; correct the path")
    edges = sorted({*_edges(traced.jaxpr)})
    before = {}
    for path in (target.removeprefix(_INPUT) for _, target in edges if target.startswith(_INPUT)):
        sources = sorted(source for source, target in edges if target == _INPUT + path)
        if len(sources) > 1 or not sources[0].startswith(_OUTPUT):
            found = " and ".join(f"`{source.removeprefix(_OUTPUT)}`" for source in sources)
            raise _refusal(path, f"reads the output of {found}, not of one convolution or dense layer alone")
        before[path] = sources[0].removeprefix(_OUTPUT)
        if others := sorted({target for source, target in edges if source == sources[0]} - {_INPUT + path}):
            other = others[0].removeprefix(_INPUT)
            raise _refusal(path, f"reads the output of `{before[path]}`, which `{other}` reads, too")
    if not before and not skip:
        raise UserError("`fold_batch_norm` needs a BatchNorm of jaxnorm or flax, but the model calls none; add one")
    return layers, before


def _refusal(path: str, found: str) -> UserError:
    return UserError(
        f"a batch norm can be folded only with its running values and only into the layer whose output it alone reads, "
        f'but `{path}` {found}; give skip=["{path}"] to leave it as it is'
    )


def _edges(jaxpr: Any) -> Iterator[tuple[str, str]]:
    """Each array of a trace as the operation or mark that makes it and one that reads it."""
    made: dict[Any, str] = {}
    for equation in jaxpr.eqns:
        name = _name(equation)
        if equation.primitive.name == "name" and not name.startswith((_OUTPUT, _INPUT)):
            made[equation.outvars[0]] = made.get(equation.invars[0], "an argument")  # a user's mark changes nothing
            continue
        yield from ((made.get(each, "an argument"), name) for each in equation.invars if not isinstance(each, Literal))
        made.update(dict.fromkeys(equation.outvars, name))
        for value in jax.tree.leaves(equation.params):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _edges(inner)
    yield from ((made[each], "the result") for each in jaxpr.outvars if not isinstance(each, Literal) and each in made)


def _name(equation: Any) -> str:
    """The name of an operation; that of a function with its own derivative, such as ReLU, is inside."""
    inner = getattr(equation.params.get("call_jaxpr"), "eqns", None)
    return _name(inner[-1]) if inner else str(equation.params.get("name", equation.primitive.name))


def _fold(
    norm: Any, values: Mapping[str, Any], before: Mapping[str, Any], transposed: bool, removes: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The new values of the layer before a batch norm and of the batch norm, which NNX removes."""
    kernel, mean, var, scale = before["kernel"], values["mean"], values["var"], values.get("scale", 1)
    dtype = jnp.promote_types(kernel.dtype, var.dtype)
    if isinstance(norm, nnx.BatchNorm):  # takes the root in the dtype of its input, other layers in that of `var`
        var = var.astype(dtype)
    factor = lax.rsqrt(var + norm.epsilon).astype(dtype) * scale
    shift = values.get("bias", 0) - mean * factor

    def along(vector: jax.Array, array: jax.Array, after: int = 0) -> jax.Array:
        """The vector as a factor of an array that may have one leading axis, for the layers in nn.scan, as it has."""
        shape = (*vector.shape[:-1], *(1,) * (array.ndim - vector.ndim - after), vector.shape[-1], *(1,) * after)
        return vector.reshape(shape)

    folded = {"kernel": (kernel * along(factor, kernel, int(transposed))).astype(kernel.dtype)}
    if "bias" in before or removes:
        bias = before.get("bias", jnp.zeros(shift.shape, kernel.dtype))
        folded["bias"] = (bias * along(factor, bias) + along(shift, bias)).astype(bias.dtype)
        shift = jnp.zeros_like(shift)
    if removes:
        return folded, {}
    new = {"mean": jnp.zeros_like(mean, dtype), "var": jnp.full_like(var, 1 - norm.epsilon, dtype)}
    new |= {"scale": jnp.ones_like(scale)} if "scale" in values else {}
    new |= {"bias": shift.astype(values["bias"].dtype)} if "bias" in values else {"mean": -shift}
    return folded, new


def _remove(folded: NnxModel, paths: Collection[str]) -> NnxModel:
    """Makes these layers identities."""
    for layer in [layer for path, layer in nnx_layers(folded.model) if path in paths]:
        for name in [name for name, value in vars(layer).items() if isinstance(value, nnx.Variable)]:
            delattr(layer, name)
        layer.__class__ = Identity  # in place, because it may have several parents
    return dataclasses.replace(folded)


class Identity(nnx.Module):
    """y = x: in place of a batch norm that `fold_batch_norm` has folded."""

    def __call__(self, x: jax.Array, *_args: Any, **_kwargs: Any) -> jax.Array:
        """The input.

        Args:
            x: Any array.

        Returns:
            The same array.
        """
        return x
