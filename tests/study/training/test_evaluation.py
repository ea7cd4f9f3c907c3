import jax
import numpy as np
import pytest

from jaxnorm import Config
from jaxnorm.study.data.dataset import Split
from jaxnorm.study.training.evaluation import EVAL_BATCH_SIZE, eval_steps, evaluate
from jaxnorm.study.training.images import on_device
from jaxnorm.study.training.state import initial_state


@pytest.mark.parametrize("num_images", [1, EVAL_BATCH_SIZE, EVAL_BATCH_SIZE + 3])
def test_evaluation_counts_every_image_once_in_order(tiny, num_images):
    state = initial_state(Config(norm="bn"), tiny)
    image = np.random.default_rng(0).integers(0, 256, (num_images, 8, 8, 3), np.uint8)
    images = on_device(Split(image=image, label=np.zeros(num_images, np.int32)), tiny)
    logits, pooled = evaluate(state.model, state.variables, images)
    assert (logits.shape, pooled.shape) == ((num_images, 3), (num_images, 64))
    apply = jax.jit(lambda image: state.model.apply(state.variables, images.normalized(image), train=False))
    np.testing.assert_allclose(logits, apply(images.image), atol=1e-5)


def test_several_batches_in_one_dispatch_give_what_they_give_one_by_one(tiny):
    state, images = initial_state(Config(norm="gn"), tiny), on_device(tiny.validation, tiny)
    at_once = eval_steps(state.model, state.variables, images, 0, batch_size=4, num_steps=3)
    for found, expected in zip(at_once, evaluate(state.model, state.variables, images), strict=True):
        np.testing.assert_allclose(found[: len(tiny.validation)], expected, atol=1e-5)
