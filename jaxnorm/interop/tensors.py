"""Tensors and arrays as NumPy arrays."""

from typing import Any

import numpy as np


def array_of(tensor: Any) -> np.ndarray:
    """A copy of a tensor or an array, because PyTorch may write to its own memory later.

    Args:
        tensor: A tensor on any device, or an array.

    Returns:
        The copy; float32 for bfloat16.
    """
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu()
        tensor = tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor  # NumPy has no bfloat16
    return np.asarray(tensor).copy()


def torch_ready(array: Any) -> np.ndarray:
    """A copy that `torch.from_numpy` accepts.

    Args:
        array: A JAX or NumPy array.

    Returns:
        The writable copy; float32 for bfloat16.
    """
    array = np.asarray(array)
    return np.array(array.astype(np.float32) if array.dtype.name == "bfloat16" else array)
