"""A split of a data set on the device."""

import functools

import jax
import jax.numpy as jnp
from flax import struct

from jaxnorm.study.data.dataset import Dataset, Split
from jaxnorm.study.training.devices import Devices


class Images(struct.PyTreeNode):
    """A split on the device, with the constants of its preprocessing.

    Attributes:
        image: (N, H, W, 3) uint8.
        label: (N,) int32.
        mean: red, green and blue; subtracted from image/255 (static).
        pad: black pixels around an image before it is cropped in training (static).
        flip: whether training mirrors images (static).
        devices: the devices that hold the arrays and share each batch (static).
    """

    image: jax.Array
    label: jax.Array
    mean: tuple[float, float, float] = struct.field(pytree_node=False)
    pad: int = struct.field(pytree_node=False)
    flip: bool = struct.field(pytree_node=False)
    devices: Devices = struct.field(pytree_node=False, default=Devices())

    def normalized(self, image: jax.Array) -> jax.Array:
        """Subtracts the mean: image/255 - mean.

        Args:
            image: (..., 3) uint8.

        Returns:
            float32 of the same shape.
        """
        return image.astype(jnp.float32) / 255 - jnp.asarray(self.mean, jnp.float32)

    @functools.partial(jax.jit, static_argnames="size")
    def batch(self, start: jax.Array | int, size: int) -> jax.Array:
        """Normalized images, one after the other. The last image fills the places beyond the split.

        Args:
            start: place of the first image.
            size: number of images (static).

        Returns:
            (size, H, W, 3) float32.
        """
        index = jnp.minimum(start + jnp.arange(size), self.label.shape[0] - 1)
        return self.normalized(self.image[self.devices.shard(index)])

    def on_one_device(self) -> "Images":
        """The same images on this process's first device, for work that is not shared.

        Returns:
            The images.
        """
        return self.devices.local(self).replace(devices=Devices())


def on_device(split: Split, dataset: Dataset, devices: Devices = Devices()) -> Images:  # noqa: B008  (a frozen value)
    """Moves a split to every device, once for the whole run.

    Args:
        split: one of the data set's.
        dataset: gives mean, padding and mirroring.
        devices: where to; by default the default device.

    Returns:
        The split on the devices.

    Examples:
        >>> from jaxnorm.study.data import load_dataset
        >>> digits = load_dataset("digits")
        >>> on_device(digits.test, digits).batch(0, size=4).shape
        (4, 16, 16, 3)
    """
    image, label = devices.replicate(jax.device_put((split.image, split.label)))
    return Images(image, label, mean=dataset.mean, pad=dataset.pad, flip=dataset.flip, devices=devices)
