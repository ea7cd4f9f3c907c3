"""Networks on corrupted images: whose statistics they take."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxnorm import BatchNorm, Config, LayerNorm
from jaxnorm.study.data.corruptions import CORRUPTIONS, corrupted
from jaxnorm.study.probes.corruptions import corruption_accuracy
from jaxnorm.study.probes.corruptions_page import means, write_corruptions
from jaxnorm.study.runs.trained import TrainedRun


class OfBrightness(nn.Module):
    """Says whether an image is brighter than the statistics that it takes: 1 where it is."""

    norm: type[nn.Module] = BatchNorm

    @nn.compact
    def __call__(self, x, *, train):
        mean = x.mean((1, 2, 3))[:, None]
        options = {"use_running_average": not train} if self.norm is BatchNorm else {}
        y = self.norm(**options)(mean)
        return jnp.concatenate([-y, y], axis=1)


def run_of(model):
    variables = model.init(jax.random.key(0), jnp.zeros((4, 8, 8, 3)), train=False)
    if "batch_stats" in variables:  # trained on images about 100 bright
        variables["batch_stats"]["BatchNorm_0"]["mean"] = jnp.full(1, 100 / 255)
    about = dict(history=None, result={}, mean=(0.0, 0.0, 0.0), class_names=("dark", "bright"))
    return TrainedRun(config=Config(), model=model, variables=variables, **about)


@pytest.fixture(scope="module")
def images():
    label = np.arange(12) % 2
    shade = np.where(label, 110, 90)[:, None, None, None] + np.arange(12).reshape(-1, 1, 1, 1) // 2
    return np.broadcast_to(shade, (12, 8, 8, 3)).astype(np.uint8).copy(), label


def accuracy(rows, kind, strength, statistics, size=None):
    mine = rows[(rows.corruption == kind) & (rows.strength == strength) & (rows.statistics == statistics)]
    (found,) = (mine if size is None else mine[mine.batch_size == size]).accuracy
    return found


def test_brighter_images_fool_running_statistics_and_not_those_of_the_images(images):
    rows = corruption_accuracy(run_of(OfBrightness()), *images, batch_sizes=(2, 6, 99))
    assert len(rows) == (1 + 5 * len(CORRUPTIONS)) * 4, "99 images are more than there are"
    assert accuracy(rows, "none", 0, "running") == 1
    assert accuracy(rows, "brightness", 3, "running") == 0.5, "all are taken for bright"
    assert accuracy(rows, "brightness", 3, "recomputed") == 1
    assert accuracy(rows, "brightness", 3, "batch", 6) >= accuracy(rows, "brightness", 3, "batch", 2) > 0.5


def test_running_and_recomputed_accuracies_are_those_of_direct_calls(images):
    run = run_of(OfBrightness())
    rows = corruption_accuracy(run, *images, batch_sizes=(12,), seed=5)
    changed = jnp.asarray(corrupted(images[0], "noise", 4, seed=5) / 255, jnp.float32)
    logits = run.model.apply(run.variables, changed, train=False)
    assert accuracy(rows, "noise", 4, "running") == (logits.argmax(1) == images[1]).mean()
    logits, _ = run.model.apply(run.variables, changed, train=True, mutable=["batch_stats"])
    assert accuracy(rows, "noise", 4, "recomputed") == (logits.argmax(1) == images[1]).mean()
    assert accuracy(rows, "noise", 4, "batch", 12) == accuracy(rows, "noise", 4, "recomputed")


def test_a_network_without_batch_statistics_has_one_kind(images):
    rows = corruption_accuracy(run_of(OfBrightness(LayerNorm)), *images, batch_sizes=(2, 4))
    assert set(rows.statistics) == {"running"}
    assert len(rows) == 1 + 5 * len(CORRUPTIONS)


def test_the_page_has_means_over_corruptions_and_a_dash_without_batch_statistics(images, tmp_path):
    both = {"bn": OfBrightness(), "ln": OfBrightness(LayerNorm)}
    tables = [
        corruption_accuracy(run_of(model), *images, batch_sizes=(2, 6)).assign(norm=norm, label=norm.upper(), seed=0)
        for norm, model in both.items()
    ]
    rows = pd.concat(tables, ignore_index=True)
    page = write_corruptions(tmp_path, {"data": "shades", "images": 12, "seed": 0, "command": "python"}, rows)
    table = page.sections[0].tables[0].frame
    running = rows[(rows.norm == "bn") & (rows.statistics == "running") & (rows.strength > 0)].accuracy.mean()
    assert float(table[("Corrupted images, %", "those of training")]["bn"]) == pytest.approx(100 * running, abs=0.051)
    assert table[("Corrupted images, %", "batches of 6")]["ln"] == "–"
    assert means(rows).groupby("norm").size().to_dict() == {"bn": 4, "ln": 1}
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "corruptions.csv"), rows, check_dtype=False, rtol=1e-5)
    kinds = json.loads((tmp_path / "corruptions.json").read_text())["settings"]["corruptions"]
    assert kinds["jpeg"]["amounts"] == [60, 40, 25, 15, 8]
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"strengths.png", "batches.png"}
