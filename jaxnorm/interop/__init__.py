"""Weights from PyTorch into layers and networks of Flax, and back. PyTorch itself is not imported.

    from_torch(module, torch_module.state_dict())    gives Flax variables
    to_torch(module, variables)                      gives arrays by PyTorch's names

`module` is a norm layer of jaxnorm or of flax.linen, or a network that knows the names of its layers in PyTorch (see
`TorchNetwork`), such as `jaxnorm.ResNet`. Variables of flax.linen's layers need no conversion: names, shapes and
meaning are the same.

PyTorch differs in these points:

- **Layout.** PyTorch's images are (N, C, H, W); here they are (N, H, W, C). Kernels (out, in, H, W) become
  (H, W, in, out), dense weights (out, in) become (in, out), and the parameters of a `LayerNorm` over (C, H, W) become
  (H, W, C).
- **Momentum** is the weight of the new value in PyTorch and of the old value here. PyTorch's 0.1 is ``momentum=0.9``.
- **Running variance.** PyTorch normalizes with the biased variance but averages the unbiased one, which is
  n / (n - 1) times as large for n values per channel in a training batch. `from_torch` keeps the number, so that
  evaluation gives the same outputs. `biased_variance` and `unbiased_variance` convert it exactly. Use them to continue
  a training as if it had started here or there.
- **Epsilon** is 1e-5 in all layers of PyTorch. Here it is 1e-5 in `BatchNorm` and 1e-6 in the other layers, as in
  Flax. It is no variable; give it to the layer.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import linen as nn

from jaxnorm.interop.networks import TorchLayer, TorchNetwork, network_from_torch, network_to_torch
from jaxnorm.interop.norm_layers import norm_from_torch, norm_to_torch
from jaxnorm.interop.running_variance import biased_variance, unbiased_variance
from jaxnorm.interop.tensors import array_of

__all__ = ["TorchLayer", "TorchNetwork", "biased_variance", "from_torch", "to_torch", "unbiased_variance"]


def from_torch(module: nn.Module, state_dict: Mapping[str, Any], *, channels_first: bool = True) -> dict[str, Any]:
    """Flax variables of `module` with the numbers of a PyTorch state dict.

    Args:
        module: A norm layer of jaxnorm or of flax.linen, or a `TorchNetwork`, constructed as it will be used.
        state_dict: Of BatchNorm2d, InstanceNorm2d, GroupNorm or LayerNorm (or the 1-D and 3-D forms), or of the
            network: tensors on any device, or arrays. Norm layers may have the names of PyTorch (``weight``,
            ``running_mean``) or those of the original paper's code (``gamma``, ``runningmean``, ``rho``).
        channels_first: Whether a `LayerNorm` over several axes has the channels first, as (C, H, W).

    Returns:
        ``{"params": ...}`` and, with running statistics, ``"batch_stats"``. The leaves are NumPy arrays, float32 for
        PyTorch's bfloat16. Evaluation with them gives PyTorch's outputs.

    Raises:
        UserError: Names the first key that is missing, unexpected or of another shape.

    Examples:
        >>> import numpy as np
        >>> from jaxnorm import BatchNorm
        >>> names = ("weight", "bias", "running_mean", "running_var")
        >>> variables = from_torch(BatchNorm(use_running_average=True), {name: np.ones(3) for name in names})
        >>> variables["batch_stats"]["var"]
        array([1., 1., 1.])
    """
    arrays = {name: array_of(value) for name, value in state_dict.items()}
    if isinstance(module, TorchNetwork):
        return network_from_torch(module, arrays)
    return norm_from_torch(module, arrays, channels_first, "")


def to_torch(
    module: nn.Module, variables: Mapping[str, Any], *, channels_first: bool = True, num_batches_tracked: int = 0
) -> dict[str, np.ndarray]:
    """The numbers of Flax variables by PyTorch's names; the inverse of `from_torch`.

    Args:
        module: The layer or network that the variables belong to.
        variables: ``{"params": ...}`` and, with running statistics, ``"batch_stats"``.
        channels_first: As for `from_torch`.
        num_batches_tracked: The value of this buffer of BatchNorm2d, which only its ``momentum=None`` reads.

    Returns:
        Arrays for ``module.load_state_dict({name: torch.from_numpy(array) ...})``. A network's norm layers have the
        names of PyTorch's layers. PyTorch has no `BatchInstanceNorm`, which has the names of the original paper's
        code.

    Raises:
        UserError: If the variables are not those of `module`.

    Examples:
        >>> import numpy as np
        >>> from jaxnorm import GroupNorm
        >>> variables = {"params": {"scale": np.ones(3), "bias": np.zeros(3)}}
        >>> sorted(to_torch(GroupNorm(num_groups=1), variables))
        ['bias', 'weight']
    """
    if isinstance(module, TorchNetwork):
        return network_to_torch(module, variables, num_batches_tracked)
    return norm_to_torch(module, variables, channels_first, num_batches_tracked)
