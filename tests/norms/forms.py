"""Every normalization in its three forms, called alike: a module of flax.linen, one of flax.nnx, a pure function."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx as flax_nnx

from jaxnorm import functional, nnx, norms

FORMS = ("linen", "nnx", "functional")


@dataclasses.dataclass(frozen=True)
class Norm:
    """A normalization with the fields that a test gives it, and what its oracle needs."""

    name: str  # of the classes
    function: Callable[..., Any]
    parameters: tuple[str, ...] = ("scale", "bias")
    running: tuple[str, ...] = ()
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)
    lengths: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)  # of what has no value per channel
    masked: bool = True

    def arrays(self, channels: int, dtype: Any = np.float32) -> dict[str, np.ndarray]:
        """Parameters, and running statistics if there are any, away from their initial values."""
        rng = np.random.default_rng(1)
        names = (*self.parameters, *self.running)
        return {name: rng.uniform(0.5, 1.5, self.lengths.get(name, (channels,))).astype(dtype) for name in names}

    def takes(self, fields: dict[str, Any]) -> bool:
        """Whether there are fields of these names."""
        return fields.keys() <= inspect.signature(self.function).parameters.keys()

    def form(self, form: str, **fields: Any) -> Callable[..., tuple[jax.Array, dict[str, jax.Array]]]:
        """`apply(arrays, x, mask, train, **call)`, which gives the output and the running statistics.

        `call` has parameters that are given at the call; `arrays` does not have them then.
        """
        fields = {**self.fields, **fields}
        if form == "functional":
            return self._function(fields)
        return self._linen(fields) if form == "linen" else self._nnx(fields)

    def _function(self, fields: dict[str, Any]) -> Callable[..., Any]:
        def apply(arrays: Any, x: Any, mask: Any = None, train: bool = True, **call: Any) -> Any:
            parameters = {name: arrays[name] for name in self.parameters if name in arrays} | call
            if not self.running:
                return self.function(x, **parameters, **self._mask(mask), **fields), {}
            running = {name: arrays[name] for name in self.running}
            return self.function(x, **parameters, running=running, train=train, mask=mask, **fields)

        return apply

    def _linen(self, fields: dict[str, Any]) -> Callable[..., Any]:
        layer = getattr(norms, self.name)(**fields)

        def apply(arrays: Any, x: Any, mask: Any = None, train: bool = True, **call: Any) -> Any:
            variables = {"params": {name: arrays[name] for name in self.parameters if name in arrays}}
            if not self.running:
                return layer.apply(variables, x, **self._mask(mask), **call), {}
            variables["batch_stats"] = {name: arrays[name] for name in self.running}
            y, updates = layer.apply(variables, x, not train, mask=mask, mutable=["batch_stats"], **call)
            return y, updates["batch_stats"]

        return apply

    def _nnx(self, fields: dict[str, Any]) -> Callable[..., Any]:
        def apply(arrays: Any, x: Any, mask: Any = None, train: bool = True, **call: Any) -> Any:
            layer = getattr(nnx, self.name)(
                arrays["scale"].size if "scale" in arrays else x.shape[-1], **fields, rngs=flax_nnx.Rngs(0)
            )
            for name, value in arrays.items():
                getattr(layer, name)[...] = value
            layer.set_attributes(use_running_average=not train, raise_if_not_found=False)
            y = layer(x, **self._mask(mask), **call)
            return y, {name: getattr(layer, name)[...] for name in self.running}

        return apply

    def _mask(self, mask: Any) -> dict[str, Any]:
        return {"mask": mask} if self.masked else {}


BOTH = ("mean", "var")
WEIGHTS = ("mean_weights", "var_weights")
THREE = dict.fromkeys(WEIGHTS, (3,))
SLOPED = ("scale", "bias", "slope")
NORMS = {
    "batch": Norm("BatchNorm", functional.batch_norm, running=BOTH),
    "mixed": Norm("BatchInstanceNorm", functional.batch_instance_norm, ("scale", "bias", "gate"), BOTH),
    "ghost": Norm("BatchNorm", functional.batch_norm, running=BOTH, fields={"ghost_batch_size": 2}),
    "instance": Norm("InstanceNorm", functional.instance_norm),
    "layer": Norm("LayerNorm", functional.layer_norm),
    "group": Norm("GroupNorm", functional.group_norm, fields={"num_groups": None, "group_size": 4}),
    "rms": Norm("RMSNorm", functional.rms_norm, ("scale",), fields={"scale_offset": 1.0}),
    "renorm": Norm("BatchRenorm", functional.batch_renorm, running=BOTH, fields={"r_max": 1.5, "d_max": 0.5}),
    "frn": Norm("FilterResponseNorm", functional.filter_response_norm, ("scale", "bias", "threshold")),
    "switchable": Norm("SwitchableNorm", functional.switchable_norm, ("scale", "bias", *WEIGHTS), BOTH, lengths=THREE),
    "evo_b0": Norm("EvoNormB0", functional.evo_norm_b0, SLOPED, ("var",)),
    "evo_s0": Norm("EvoNormS0", functional.evo_norm_s0, SLOPED, fields={"num_groups": 2}),
    "dyt": Norm(
        "DynamicTanh", functional.dynamic_tanh, ("scale", "bias", "alpha"), lengths={"alpha": ()}, masked=False
    ),
    "derf": Norm(
        "DynamicErf",
        functional.dynamic_erf,
        ("scale", "bias", "alpha", "shift"),
        lengths={"alpha": (), "shift": ()},
        masked=False,
    ),
    "bgn": Norm("BatchGroupNorm", functional.batch_group_norm, running=BOTH, fields={"group_size": 4}),
    "iter": Norm("IterNorm", functional.iter_norm, running=("mean", "cov"), lengths={"cov": (1, 8, 8)}),
    "grn": Norm("GlobalResponseNorm", functional.global_response_norm),
    "iln": Norm("InstanceLayerNorm", functional.instance_layer_norm, ("scale", "bias", "gate")),
}
