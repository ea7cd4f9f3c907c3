import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnorm import DEFAULT_NORMS, NORMS, Conv, ResNet, ResNet14

IMAGE = jnp.zeros((1, 32, 32, 3))


def variables_of(model, seed=0, image=IMAGE):
    return model.lazy_init(jax.random.key(seed), jax.ShapeDtypeStruct(image.shape, image.dtype), train=False)


def num_params(model):
    return sum(leaf.size for leaf in jax.tree.leaves(variables_of(model)["params"]))


@pytest.mark.parametrize("norm", [*DEFAULT_NORMS, "bin_frozen"])
def test_parameter_counts_are_those_of_the_original_paper(norm):
    expected = {"none": 174_698, "bin": 176_378, "bin_frozen": 176_378}.get(norm, 175_818)
    assert num_params(ResNet14(norm=NORMS[norm])) == expected


def test_no_norm_at_all_is_the_variant_none():
    assert num_params(ResNet14()) == 174_698


def test_there_are_15_norm_layers_with_560_channels():
    batch_stats = variables_of(ResNet14(norm=NORMS["bn"]))["batch_stats"]
    means = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(batch_stats) if path[-1].key == "mean"]
    assert len(means) == 15
    assert sum(mean.size for mean in means) == 560


@pytest.mark.parametrize("num_blocks, layers", [(1, 8), (2, 14), (3, 20)])
def test_depth_is_6n_plus_2(num_blocks, layers):
    params = variables_of(ResNet(num_blocks=num_blocks))["params"]
    kernels = [path for path, _ in jax.tree_util.tree_leaves_with_path(params) if path[-1].key == "kernel"]
    projections = [path for path in kernels if path[-2].key == "conv_proj"]
    assert len(kernels) - len(projections) == layers


def test_all_variants_of_a_seed_start_with_the_same_weights():
    def weights(norm):
        params = variables_of(ResNet(num_blocks=1, num_filters=4, norm=NORMS[norm]))["params"]
        return {
            jax.tree_util.keystr(path): np.asarray(leaf)
            for path, leaf in jax.tree_util.tree_leaves_with_path(params)
            if "norm" not in jax.tree_util.keystr(path)
        }

    reference = weights("none")
    for norm in NORMS:
        found = weights(norm)
        assert found.keys() == reference.keys()
        for name, value in found.items():
            np.testing.assert_array_equal(value, reference[name], err_msg=f"{norm}{name}")


def test_initial_weights_and_biases_are_uniform_within_the_inverse_root_of_the_fan_in():
    params = variables_of(ResNet14())["params"]
    for layer, fan_in in (("stem_conv", 27), ("head", 64)):
        bound = fan_in**-0.5
        for leaf in jax.tree.leaves(params[layer]):
            assert np.abs(leaf).max() <= bound
    kernel = np.asarray(params["stage3_block2"]["conv2"]["kernel"])
    bound = (9 * 64) ** -0.5
    assert 0.99 * bound < np.abs(kernel).max() <= bound
    assert kernel.std() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert kernel.mean() == pytest.approx(0, abs=0.01 * bound)
    bias = np.asarray(params["stage3_block2"]["conv2"]["bias"])
    assert bias.std() == pytest.approx(bound / 3**0.5, rel=0.25)


def numpy_conv(x, kernel, bias, stride):
    """3x3 with a pixel of padding on every side, or 1x1 without, in float64, written as the definition says."""
    size = kernel.shape[0]
    pad = size // 2
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    height = (x.shape[1] - size) // stride + 1
    out = np.zeros((x.shape[0], height, height, kernel.shape[3]))
    for i in range(size):
        for j in range(size):
            window = x[:, i : i + stride * height : stride, j : j + stride * height : stride]
            out += window @ kernel[i, j]
    return out + bias


def numpy_resnet(params, x):
    def conv(layer, x, stride=1):
        return numpy_conv(x, *(np.asarray(layer[name], np.float64) for name in ("kernel", "bias")), stride)

    x = np.maximum(conv(params["stem_conv"], x), 0)
    for stage in (1, 2, 3):
        for block in (1, 2):
            layers = params[f"stage{stage}_block{block}"]
            stride = 2 if stage > 1 and block == 1 else 1
            y = conv(layers["conv2"], np.maximum(conv(layers["conv1"], x, stride), 0))
            shortcut = conv(layers["conv_proj"], x, stride) if stride == 2 else x
            x = np.maximum(y + shortcut, 0)
    head = params["head"]
    return x.mean(axis=(1, 2)) @ np.asarray(head["kernel"], np.float64) + np.asarray(head["bias"], np.float64)


def test_logits_without_norms_equal_the_definition_in_float64():
    model = ResNet14()
    x = jax.random.normal(jax.random.key(1), (2, 16, 16, 3))
    variables = variables_of(model)
    got = model.apply(variables, x, train=False)
    want = numpy_resnet(variables["params"], np.asarray(x, np.float64))
    np.testing.assert_allclose(got, want, atol=2e-6)


@pytest.mark.parametrize("norm", ["flax_bn", "bin", "gn_ws", "evo_b0"])  # the contract tests ask it of each layer
def test_in_evaluation_batch_mates_change_no_logits(norm):
    model = ResNet(num_blocks=1, num_filters=4, norm=NORMS[norm], conv=NORMS[norm].conv)
    image = jax.random.normal(jax.random.key(2), (6, 16, 16, 3))
    variables = variables_of(model, image=image)
    apply = jax.jit(lambda image: model.apply(variables, image, train=False))
    together = apply(image)
    others = apply(jnp.concatenate([image[:2], 50 * image[2:] - 7]))
    np.testing.assert_allclose(together[:2], others[:2], atol=1e-5)


def test_pooled_features_are_sown():
    model = ResNet14(norm=NORMS["gn"])
    x = jnp.ones((2, 16, 16, 3))
    _, captured = model.apply(variables_of(model, image=x), x, train=False, mutable=["intermediates"])
    (pooled,) = captured["intermediates"]["pooled"]
    assert pooled.shape == (2, 64)
    assert (pooled >= 0).all()


def test_the_network_takes_its_convolution_and_any_of_them_computes_the_same():
    built = []

    def conv(*args, **kwargs):
        built.append(kwargs["name"])
        return nn.Conv(*args, **kwargs)

    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    models = [ResNet(num_blocks=1, norm=NORMS["gn"], conv=builder) for builder in (Conv, nn.Conv, conv)]
    variables = variables_of(models[0], image=x)
    ours, flaxs, functions = (model.apply(variables, x, train=False) for model in models)
    np.testing.assert_allclose(ours, flaxs, atol=1e-5)
    np.testing.assert_array_equal(functions, flaxs)
    blocks = [["conv1", "conv2"], *[["conv1", "conv2", "conv_proj"]] * 2]
    assert built == ["stem_conv", *(name for block in blocks for name in block)]
