"""Tables as a probe at initialization makes them."""

import pandas as pd

NAMES = ("stem_conv", "stage1/conv", "head")


def layer_rows(stem_gradients):
    """Two seeds of three layers: gradients are half and twice their geometric mean, and double with each layer."""
    return pd.DataFrame(
        [
            dict(norm=norm, label=norm.upper(), seed=seed, layer=layer, gradient=1.0, weight=1.0)
            | dict(weight_gradient=mean * 2**depth * 4.0**seed / 2, cosine=0.5, stable_rank=2.0 + seed)
            for norm, mean in stem_gradients.items()
            for seed in (0, 1)
            for depth, layer in enumerate(NAMES)
        ]
    )


def plain_rows(growths):
    """One seed; theory says something of batch norm alone."""
    rows = [dict(norm=norm, label=norm.upper(), seed=0, growth=growth, cosine=0.3) for norm, growth in growths.items()]
    return pd.DataFrame(rows).assign(predicted=[1.211 if norm == "bn" else float("nan") for norm in growths])
