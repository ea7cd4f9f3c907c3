"""What a training step of the original paper's network needs at least, and what this machine gives, measured."""

import dataclasses
from collections.abc import Callable

from benchmarks import timing

FLOAT32 = 4  # bytes


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution and the norm behind it, for one image: input and output numbers, multiply-adds."""

    inputs: int
    outputs: int
    products: int


def layers(side: int = 32) -> list[Layer]:
    """The network's convolutions, in order, for images of `side` by `side` pixels."""

    def conv(side: int, features: int, out_features: int, kernel: int, stride: int) -> Layer:
        outputs = (side // stride) ** 2 * out_features
        return Layer(side**2 * features, outputs, outputs * kernel**2 * features)

    found = [conv(side, 3, 16, 3, 1)]
    features = 16
    for stage in range(3):
        for block in range(2):
            out_features, stride = 16 * 2**stage, 2 if stage > 0 and block == 0 else 1
            found += [
                conv(side, features, out_features, 3, stride),
                conv(side // stride, out_features, out_features, 3, 1),
            ]
            if stride == 2:
                found.append(conv(side, features, out_features, 1, stride))
            side, features = side // stride, out_features
    return found


def step_flops(side: int = 32) -> int:
    """Operations of one image's training step: two a multiply-add, once forward, twice backward."""
    every = layers(side)
    return 2 * (3 * sum(layer.products for layer in every) - every[0].products)


def step_bytes(side: int = 32, normalized: bool = True) -> int:
    """Memory traffic of one image's training step in float32, every operation a pass of its own.

    A convolution reads its input and writes its output; backward it reads the output's gradient twice, the input once
    and writes the input's gradient. A norm with its ReLU reads its input twice, for the statistics and to apply them,
    and writes once; backward it reads both twice and writes once.
    """
    every = layers(side)
    convs = sum(3 * layer.inputs + 3 * layer.outputs for layer in every)
    norms = sum((8 if normalized else 5) * layer.outputs for layer in every)
    return FLOAT32 * (convs + norms)


def _fastest(call: Callable[[], object]) -> float:
    return min(timing.in_turn({"call": timing.clock(call)}, rounds=5)["call"])


def peak_flops() -> float:
    """Operations per second of a large float32 matrix product."""
    import jax
    import jax.numpy as jnp

    a = jnp.ones((2048, 2048))
    product = jax.jit(lambda a: jnp.matmul(a, a, precision="highest"))
    return 2 * 2048**3 / _fastest(lambda: product(a))


def peak_bytes() -> float:
    """Bytes per second of reading and writing an array of 256 MB."""
    import jax
    import jax.numpy as jnp

    add = jax.jit(lambda a: a + 1, donate_argnums=0)  # in its place: new pages would be measured otherwise
    a = jnp.ones(2**26)

    def call() -> jax.Array:
        nonlocal a
        a = add(a)
        return a

    return 2 * a.nbytes / _fastest(call)
