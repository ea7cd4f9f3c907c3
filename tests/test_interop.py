"""PyTorch's weights in our layers give the same outputs, and the same state dict after the way back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxnorm import NORMS, BatchInstanceNorm, BatchNorm, GroupNorm, InstanceNorm, LayerNorm, ResNet, ResNet14, UserError
from jaxnorm.interop import TorchLayer, biased_variance, from_torch, to_torch, unbiased_variance

pytestmark = pytest.mark.peers
torch = pytest.importorskip("torch", reason="make test-peers installs it")
from benchmarks import torch_study  # noqa: E402  (which imports torch)

CHANNELS = 8
LAYERS = {
    "BatchNorm2d": (lambda: torch.nn.BatchNorm2d(CHANNELS), BatchNorm(use_running_average=True, momentum=0.9)),
    "flax's BatchNorm": (lambda: torch.nn.BatchNorm2d(CHANNELS), nn.BatchNorm(use_running_average=True)),
    "GroupNorm": (lambda: torch.nn.GroupNorm(4, CHANNELS), GroupNorm(num_groups=4, epsilon=1e-5)),
    "InstanceNorm2d": (lambda: torch.nn.InstanceNorm2d(CHANNELS, affine=True), InstanceNorm(epsilon=1e-5)),
    "InstanceNorm2d, bare": (
        lambda: torch.nn.InstanceNorm2d(CHANNELS),
        InstanceNorm(epsilon=1e-5, use_scale=False, use_bias=False),
    ),
    "LayerNorm": (
        lambda: torch.nn.LayerNorm((CHANNELS, 5, 6)),
        LayerNorm(epsilon=1e-5, reduction_axes=(1, 2, 3), feature_axes=(1, 2, 3)),
    ),
    "LayerNorm without bias": (
        lambda: torch.nn.LayerNorm((CHANNELS, 5, 6), bias=False),
        LayerNorm(epsilon=1e-5, reduction_axes=(1, 2, 3), feature_axes=(1, 2, 3), use_bias=False),
    ),
}


def randomized(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point() and (tensor.ndim == 1 or not name.endswith("weight")):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return module.eval()


def nchw(shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2 + 1


def as_torch(arrays):
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_gives_pytorch_s_outputs_and_goes_back_unchanged(name):
    make, layer = LAYERS[name]
    module = randomized(make())
    x = nchw((3, CHANNELS, 5, 6))
    variables = from_torch(layer, module.state_dict())
    y = layer.apply(variables, jnp.asarray(x.permute(0, 2, 3, 1).numpy()))
    np.testing.assert_allclose(y, module(x).detach().permute(0, 2, 3, 1), rtol=1e-5, atol=1e-5)
    back = make()
    back.load_state_dict(as_torch(to_torch(layer, variables)))
    for key, tensor in module.state_dict().items():
        assert torch.equal(back.state_dict()[key], tensor), key


def test_the_shapes_are_those_of_the_layer_itself():
    layer = LAYERS["LayerNorm"][1]
    variables = from_torch(layer, LAYERS["LayerNorm"][0]().state_dict())
    expected = layer.init(jax.random.key(0), jnp.zeros((1, 5, 6, CHANNELS)))
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, expected)


def test_a_sequence_s_layer_norm_keeps_the_order_of_its_axes():
    module = randomized(torch.nn.LayerNorm((5, CHANNELS)))
    layer = LayerNorm(epsilon=1e-5, reduction_axes=(1, 2), feature_axes=(1, 2))
    variables = from_torch(layer, module.state_dict(), channels_first=False)
    x = nchw((3, 5, CHANNELS))
    np.testing.assert_allclose(layer.apply(variables, jnp.asarray(x)), module(x).detach(), rtol=1e-5, atol=1e-5)
    back = to_torch(layer, variables, channels_first=False)
    assert torch.equal(torch.from_numpy(back["weight"]), module.weight)


def test_bfloat16_and_parameters_are_taken_too():
    module = torch.nn.GroupNorm(1, CHANNELS).bfloat16()
    assert from_torch(GroupNorm(num_groups=1), dict(module.named_parameters()))["params"]["scale"].dtype == np.float32


@pytest.mark.parametrize("updates", [1, 7, 200])
def test_the_running_variance_becomes_what_it_would_have_been_here(updates):
    """With the same batches, only momentum and the factor n / (n - 1) differ."""
    module = torch.nn.BatchNorm2d(CHANNELS, momentum=0.1).train()
    layer = BatchNorm(use_running_average=False, momentum=0.9)
    variables = layer.init(jax.random.key(0), jnp.zeros((2, 1, 2, CHANNELS)))
    train = jax.jit(lambda variables, x: layer.apply(variables, x, mutable=["batch_stats"])[1])
    for seed in range(updates):
        x = nchw((2, CHANNELS, 1, 2), seed)
        module(x)
        variables = {**variables, **train(variables, jnp.asarray(x.permute(0, 2, 3, 1).numpy()))}
    theirs = from_torch(layer, module.state_dict())["batch_stats"]
    ours = variables["batch_stats"]
    np.testing.assert_allclose(theirs["mean"], ours["mean"], rtol=1e-5, atol=1e-5)
    assert np.abs(theirs["var"] - ours["var"]).max() > 1e-2
    settings = dict(momentum=0.1, num_batches_tracked=updates)
    np.testing.assert_allclose(biased_variance(theirs["var"], 4, **settings), ours["var"], rtol=2e-5)
    np.testing.assert_allclose(unbiased_variance(ours["var"], 4, **settings), theirs["var"], rtol=2e-5)


def test_an_unbiased_variance_of_one_value_is_refused():
    with pytest.raises(UserError, match="at least 2 values per channel, but there is 1"):
        biased_variance(np.ones(2), 1, num_batches_tracked=1)


class PaperBatchNorm(torch.nn.Module):
    """The layer of the original paper's code, without its mistake in evaluation."""

    def __init__(self, channels, affine=True):
        super().__init__()
        if affine:
            self.gamma = torch.nn.Parameter(torch.ones(channels))
            self.beta = torch.nn.Parameter(torch.zeros(channels))
        self.register_buffer("runningmean", torch.zeros(channels))
        self.register_buffer("runningvar", torch.ones(channels))

    def forward(self, x):
        y = (x - self.runningmean[:, None, None]) / torch.sqrt(self.runningvar[:, None, None] + 1e-5)
        return y * self.gamma[:, None, None] + self.beta[:, None, None] if hasattr(self, "gamma") else y


class PaperInstanceNorm(PaperBatchNorm):
    """Its running statistics are never used."""

    def forward(self, x):
        y = torch.nn.functional.instance_norm(x, eps=1e-5)
        return y * self.gamma[:, None, None] + self.beta[:, None, None] if hasattr(self, "gamma") else y


class PaperBatchInstanceNorm(torch.nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.batchnorm = PaperBatchNorm(channels, affine=False)
        self.instancenorm = PaperInstanceNorm(channels, affine=False)
        self.rho = torch.nn.Parameter(torch.ones(channels))
        self.gamma = torch.nn.Parameter(torch.ones(channels))
        self.beta = torch.nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        rho = self.rho[:, None, None]
        y = rho * self.batchnorm(x) + (1 - rho) * self.instancenorm(x)
        return y * self.gamma[:, None, None] + self.beta[:, None, None]


# PyTorch's own layers, and those of the original paper's code.
TORCH_NORMS = {**torch_study.NORMS, "bn": PaperBatchNorm, "in": PaperInstanceNorm, "bin": PaperBatchInstanceNorm}


@pytest.mark.parametrize("id", TORCH_NORMS)
def test_the_original_network_gives_the_same_logits_here(id):
    module = randomized(torch_study.ResNet(TORCH_NORMS[id]))
    model = ResNet14(norm=NORMS[id])
    variables = from_torch(model, module.state_dict())
    expected = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False))
    assert jax.tree.map(jnp.shape, variables["params"]) == jax.tree.map(jnp.shape, expected["params"])
    x = nchw((4, 3, 32, 32))
    logits = jax.jit(lambda variables, x: model.apply(variables, x, train=False))(
        variables, jnp.asarray(x.permute(0, 2, 3, 1).numpy())
    )
    wanted = module(x).detach().numpy()
    np.testing.assert_allclose(logits, wanted, atol=1e-4 * max(1, np.abs(wanted).max()))
    back = to_torch(model, variables)
    if id in ("bn", "in"):  # written with the names of PyTorch's own layers
        other = torch_study.ResNet(torch_study.NORMS[id]).eval()
        other.load_state_dict(as_torch(back))
        np.testing.assert_allclose(other(x).detach(), wanted, rtol=1e-4, atol=1e-3)
    else:
        assert set(back) == set(module.state_dict())
        for key, tensor in module.state_dict().items():
            # The original paper's instance norm never uses its running statistics.
            assert ".instancenorm." in key or torch.equal(torch.from_numpy(back[key]), tensor), key


def test_torchvision_s_names_and_another_depth_are_understood():
    module = randomized(torch_study.ResNet(torch.nn.BatchNorm2d, num_blocks=1))
    model = ResNet(num_blocks=1, norm=NORMS["bn"])
    renamed = {
        key.replace("blocks_A", "layer1")
        .replace("blocks_B", "layer2")
        .replace("blocks_C", "layer3")
        .replace("shortcut", "downsample"): value
        for key, value in module.state_dict().items()
    }
    jax.tree.map(np.testing.assert_array_equal, from_torch(model, renamed), from_torch(model, module.state_dict()))


def without(state_dict, key):
    return {name: value for name, value in state_dict.items() if name != key}


BATCH_NORM = {name: np.ones(3) for name in ("weight", "bias", "running_mean", "running_var")}


@pytest.mark.parametrize(
    "module, state_dict, words",
    [
        (BatchNorm(), without(BATCH_NORM, "running_var"), "must hold running_mean|must hold running_var"),
        (GroupNorm(num_groups=1), {}, "must hold weight for GroupNorm, but holds nothing"),
        (InstanceNorm(), BATCH_NORM, "but holds running_mean; a layer with track_running_stats"),
        (InstanceNorm(use_bias=False), {"weight": np.ones(3), "bias": np.ones(3)}, "but holds bias"),
        (BatchNorm(), {**BATCH_NORM, "bias": np.ones(4)}, r"must have one shape, but have \(3,\), \(4,\)"),
        (nn.Dense(3), BATCH_NORM, "not for Dense"),
        (
            ResNet14(norm=NORMS["bn"]),
            {"features.0.weight": np.ones(3)},
            "such as conv1 and fc, but holds 'features.0",
        ),
    ],
)
def test_a_state_dict_that_does_not_fit_is_refused_by_name(module, state_dict, words):
    with pytest.raises(UserError, match=words):
        from_torch(module, state_dict)


def test_a_network_that_does_not_fit_is_refused_by_name():
    model = ResNet14(norm=NORMS["bn"])
    state_dict = torch_study.ResNet(torch.nn.BatchNorm2d).state_dict()
    with pytest.raises(UserError, match=r"must hold blocks_A.1.conv1, here stage1_block2/conv1, but"):
        from_torch(model, {name: value for name, value in state_dict.items() if "blocks_A.1.conv1" not in name})
    with pytest.raises(UserError, match=r"must hold nothing but layers such as conv1 and fc, but holds 'blocks_A.2"):
        from_torch(model, torch_study.ResNet(torch.nn.BatchNorm2d, num_blocks=3).state_dict())
    with pytest.raises(UserError, match="must hold nothing but layers .* but holds 'bn1.weight'"):
        from_torch(ResNet14(), state_dict)
    with pytest.raises(UserError, match=r"stem_conv/kernel must have shape \(3, 3, any, 8\), but has \(3, 3, 3, 16\)"):
        from_torch(ResNet14(norm=NORMS["bn"], num_filters=8), state_dict)


def test_a_network_of_a_user_s_own_names_its_layers():
    class Network(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2, name="out")(GroupNorm(num_groups=1, epsilon=1e-5, name="norm")(x))

        @nn.nowrap
        def torch_layers(self):
            return [
                TorchLayer(("norm",), ("0",), (3,), GroupNorm(num_groups=1)),
                TorchLayer(("out",), ("1",), (None, 2)),
            ]

    module = randomized(torch.nn.Sequential(torch.nn.GroupNorm(1, 3), torch.nn.Linear(3, 2)))
    variables = from_torch(Network(), module.state_dict())
    x = nchw((4, 3))
    np.testing.assert_allclose(Network().apply(variables, jnp.asarray(x)), module(x).detach(), rtol=1e-5, atol=1e-5)
    back = to_torch(Network(), variables)
    assert all(torch.equal(torch.from_numpy(back[key]), value) for key, value in module.state_dict().items())


def test_what_pytorch_trains_on_later_changes_nothing_here():
    module = torch.nn.BatchNorm2d(3)
    variables = from_torch(BatchNorm(), module.state_dict())
    with torch.no_grad():
        module.weight.fill_(7)
    assert (variables["params"]["scale"] == 1).all()


def test_variables_of_another_network_are_refused():
    model = ResNet14(norm=NORMS["gn"])
    variables = from_torch(model, torch_study.ResNet(torch_study.NORMS["gn"]).state_dict())
    head = variables["params"].pop("head")
    with pytest.raises(UserError, match="but lack params/head/bias"):
        to_torch(model, variables)
    variables["params"] |= {"head": head, "foo": head}
    with pytest.raises(UserError, match="but hold params/foo/bias"):
        to_torch(model, variables)


def test_variables_of_another_layer_are_refused():
    with pytest.raises(UserError, match="must be those of BatchNorm, .*, but are params/bias, params/scale"):
        to_torch(BatchNorm(), {"params": {"scale": np.ones(3), "bias": np.ones(3)}})
    gated = from_torch(BatchInstanceNorm(), {**BATCH_NORM, "rho": np.ones(3)})
    assert sorted(to_torch(BatchInstanceNorm(), gated))[-1] == "rho"
