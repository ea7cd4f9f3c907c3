import jax
import jax.numpy as jnp
import numpy as np

from jaxnorm.study.data.augment import augment


def all_crops(image, pad, flip):
    """Every outcome that the definition allows for one image."""
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    height, width = image.shape[:2]
    crops = [padded[i : i + height, j : j + width] for i in range(2 * pad + 1) for j in range(2 * pad + 1)]
    return crops + [crop[:, ::-1] for crop in crops] if flip else crops


def test_every_outcome_is_a_crop_of_the_padded_image_and_all_of_them_occur():
    image = np.arange(1, 4 * 4 * 3 + 1, dtype=np.uint8).reshape(4, 4, 3)
    for flip in (False, True):
        allowed = [crop.tobytes() for crop in all_crops(image, 1, flip)]
        batch = jnp.broadcast_to(image, (1000, *image.shape))
        found = [np.asarray(each).tobytes() for each in augment(jax.random.key(0), batch, pad=1, flip=flip)]
        counts = [found.count(crop) for crop in allowed]
        assert sum(counts) == 1000
        expected = 1000 / len(allowed)
        assert all(abs(count - expected) < 5 * expected**0.5 for count in counts)


def test_images_of_a_batch_draw_for_themselves_and_the_key_decides():
    batch = jnp.broadcast_to(jax.random.bits(jax.random.key(1), (8, 8, 3), jnp.uint8), (64, 8, 8, 3))
    one = np.asarray(augment(jax.random.key(0), batch, pad=4, flip=True))
    again = np.asarray(augment(jax.random.key(0), batch, pad=4, flip=True))
    other = np.asarray(augment(jax.random.key(5), batch, pad=4, flip=True))
    assert one.dtype == np.uint8
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    assert len({each.tobytes() for each in one}) > 32


def test_without_padding_and_flip_nothing_changes():
    batch = jax.random.bits(jax.random.key(1), (5, 6, 6, 3), jnp.uint8)
    np.testing.assert_array_equal(augment(jax.random.key(0), batch, pad=0, flip=False), batch)
