"""Random crop and flip of a whole batch, on the device, as uint8."""

import jax
import jax.numpy as jnp


def augment(key: jax.Array, image: jax.Array, *, pad: int, flip: bool) -> jax.Array:
    """Random crops of the batch padded by `pad` black pixels; where `flip`, mirrored left to right with chance 1/2.

    Every image draws its own offsets, uniform in 0..2*pad, and its own mirroring.

    Args:
        key: decides all random numbers.
        image: (N, H, W, C), uint8 or any other dtype; padding is 0, so subtract means afterwards.
        pad: pixels added on every side before an (H, W) window is cut out.
        flip: whether mirroring keeps the label (objects: yes; digits: no).

    Returns:
        An array of the shape and dtype of `image`.

    Examples:
        >>> augment(jax.random.key(0), jnp.zeros((8, 32, 32, 3), jnp.uint8), pad=4, flip=True).shape
        (8, 32, 32, 3)
    """
    num, height, width, _ = image.shape
    crop_key, flip_key = jax.random.split(key)
    offset = jax.random.randint(crop_key, (2 * num,), 0, 2 * pad + 1).reshape(num, 2)
    rows = offset[:, :1] + jnp.arange(height)
    columns = offset[:, 1:] + jnp.arange(width)
    if flip:
        mirrored = jax.random.bernoulli(flip_key, shape=(num,))
        columns = jnp.where(mirrored[:, None], columns[:, ::-1], columns)
    padded = jnp.pad(image, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    # One gather of whole pixels crops and flips. vmap tells XLA that images are independent: devices exchange none.
    return jax.vmap(lambda one, row, column: one[row[:, None], column])(padded, rows, columns)
