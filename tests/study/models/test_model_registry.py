"""Networks of the user, by their id."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from jaxnorm import NORMS, Config, ResNet, register_model
from jaxnorm.errors import UserError
from jaxnorm.study.models.registry import check_model
from jaxnorm.study.training.state import build_network

pytestmark = pytest.mark.usefixtures("registry")


class Small(nn.Module):
    """One convolution, one norm."""

    norm: object
    num_classes: int
    width: int = 4

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Conv(self.width, (3, 3))(x)
        x = nn.relu(self.norm(train=train, axis_name=None, dtype=None, name="norm")(x)).mean((1, 2))
        return nn.Dense(self.num_classes)(x)


def with_blocks(*, norm, num_classes, num_blocks, dtype=None):
    return ResNet(num_blocks, norm, num_classes=num_classes, num_filters=2, dtype=dtype)


def test_the_built_in_network_is_the_published_one():
    model = build_network(Config(norm="gn", num_blocks=3, num_filters=8, init="he", compute_dtype="bfloat16"), 7)
    expected = ResNet(3, NORMS["gn"], num_classes=7, num_filters=8, weights="he", dtype="bfloat16")
    assert model == expected


@pytest.mark.parametrize("norm", ["bn", "none", "gn_ws"])
def test_a_registered_network_is_built_with_each_norm(norm):
    register_model("small", Small)
    model = build_network(Config(norm=norm, model="small"), 5)
    variables = model.init(jax.random.key(0), jnp.zeros((2, 8, 8, 3)), train=False)
    assert ("norm" in variables["params"]) == (norm != "none")
    assert model.apply(variables, jnp.zeros((2, 8, 8, 3)), train=False).shape == (2, 5)


def test_a_network_gets_the_fields_that_it_has():
    register_model("blocks", with_blocks)
    model = build_network(Config(model="blocks", num_blocks=4, compute_dtype="bfloat16"), 3)
    assert (model.num_blocks, model.dtype) == (4, "bfloat16")
    for field, value in (("num_filters", 8), ("init", "he")):
        with pytest.raises(UserError, match=f"`{field}` needs a network with a parameter {field}, but is {value}"):
            check_model(Config(model="blocks", **{field: value}))
    register_model("small", Small)
    with pytest.raises(UserError, match="`compute_dtype` needs a network with a parameter dtype"):
        check_model(Config(model="small", compute_dtype="bfloat16"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("Small", Small), "lower-case"),
        (("small", Small(None, 3)), "has a Small that is built"),
        (("small", lambda num_classes: None), "does not take norm"),
        (("small", lambda norm, num_classes, width: None), "missing a required argument: 'width'"),
        (("resnet", Small), "must be new"),
    ],
)
def test_what_cannot_be_registered_is_named(arguments, words):
    with pytest.raises(UserError, match=words) as error:
        register_model(*arguments)
    assert "\n" not in str(error.value)


def test_a_cell_that_runs_again_registers_again():
    for width in (2, 3):

        def build(*, norm, num_classes, width=width):
            return Small(norm, num_classes, width)

        register_model("again", build)
        assert build_network(Config(model="again"), 3).width == width


def test_a_function_must_return_a_module():
    register_model("none", lambda norm, num_classes: "network")
    with pytest.raises(UserError, match="must return a Flax module, but returns str"):
        build_network(Config(model="none"), 3)
    with pytest.raises(UserError, match="names 'smal'.*valid: resnet"):
        check_model(Config(model="smal"))
