"""A finished run as what it trained: the network, its weights and its history."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxnorm import files
from jaxnorm.errors import UserError
from jaxnorm.study.config import Config, completed, nearest
from jaxnorm.study.data.dataset import Dataset
from jaxnorm.study.models.registry import MODELS
from jaxnorm.study.registry import NORMS
from jaxnorm.study.runs.agreement import read_run
from jaxnorm.study.runs.manifest import Manifest
from jaxnorm.study.training.evaluation import evaluate
from jaxnorm.study.training.features import capture
from jaxnorm.study.training.images import Images
from jaxnorm.study.training.state import build_network

if TYPE_CHECKING:
    import pandas as pd

MODEL = "model.safetensors"
"""The final variables of a run: arrays by path, such as ``params/stem_conv/kernel``."""
FEATURE_BATCH_SIZE = 200


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedRun:
    """A finished run, made by `load_run`.

    Attributes:
        config: the run's configuration.
        model: its network, a Flax module.
        variables: the final ones; `model` is called as ``model.apply(variables, images, train=False)`` with float32
            images (N, H, W, 3), that is image / 255 - `mean`.
        history: a row for each epoch, the columns as in ``metrics.jsonl``.
        result: the outcome, the entries as in ``result.json``.
        mean: red, green and blue of the training images.
        class_names: by label.
    """

    config: Config
    model: nn.Module
    variables: Mapping[str, Any] = dataclasses.field(repr=False)
    history: "pd.DataFrame" = dataclasses.field(repr=False)
    result: Mapping[str, Any] = dataclasses.field(repr=False)
    mean: tuple[float, float, float]
    class_names: tuple[str, ...]

    def logits(self, images: np.ndarray) -> np.ndarray:
        """The network's answers in evaluation mode.

        Args:
            images: uint8 (N, H, W, 3), as the data set has them.

        Returns:
            float32 (N, classes).

        Raises:
            UserError: if the images have another type or shape.
        """
        return evaluate(self.model, self.variables, self._on_device(images))[0]

    def predict(self, images: np.ndarray) -> np.ndarray:
        """The class of the largest logit.

        Args:
            images: as for `logits`.

        Returns:
            Labels, int64 (N,); `class_names` has their names.

        Raises:
            UserError: as for `logits`.
        """
        return self.logits(images).argmax(axis=-1)

    def features(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs of all convolutions and the pooled features, in evaluation mode.

        Args:
            images: as for `logits`. A network has about 0.6 MB of features for each image of CIFAR-10's size.

        Returns:
            float32 arrays (N, ...) by layer, in the order of the calls; see `jaxnorm.study.training.features.capture`.

        Raises:
            UserError: as for `logits`.
        """
        found, parts = self._on_device(images), []
        for start in range(0, len(images), FEATURE_BATCH_SIZE):
            size = min(FEATURE_BATCH_SIZE, len(images) - start)
            parts.append(capture(self.model, self.variables, found.batch(start, size)))
        return {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in parts[0]}

    def _on_device(self, images: np.ndarray) -> Images:
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or not len(images):
            raise UserError(
                f"images must be uint8 (N, H, W, 3) with N at least 1, but are {images.dtype} {images.shape}; give "
                "them as the data set has them, 0 to 255"
            )
        label = jnp.zeros(len(images), jnp.int32)
        return Images(image=jnp.asarray(images), label=label, mean=self.mean, pad=0, flip=False)


def model_bytes(variables: Mapping[str, Any], dataset: Dataset) -> bytes:
    """The content of ``model.safetensors``.

    Args:
        variables: the network's.
        dataset: gives what the network needs to know of its images: their mean and the classes.

    Returns:
        The content of the file.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in flatten_dict(variables, sep="/").items()}
    about = json.dumps({"mean": dataset.mean, "class_names": dataset.class_names})
    return safetensors.numpy.save(arrays, metadata={"images": about})  # of several entries the order would be random


def load_run(folder: str | Path, *, model: nn.Module | None = None) -> TrainedRun:
    """Loads a finished run from its folder in a workdir. Every file is checked against its hash.

    A norm or network of your own must be registered first, as when the run was trained. The weights alone need neither
    this function nor the study's packages: ``flax.traverse_util.unflatten_dict(
    safetensors.flax.load_file("runs/compare_norms/bn-seed0/model.safetensors"), sep="/")``.

    Args:
        folder: such as ``runs/compare_norms/bn-seed0``.
        model: the network of a run that was trained with one of your own.

    Returns:
        The run.

    Raises:
        UserError: if there is no finished run, if a file is damaged, or if the norm is not known.
    """
    import pandas as pd  # takes half a second, which no driver waits for

    path = Path(folder)
    if path.is_dir() and not (path / "manifest.json").exists() and (path / "study.json").exists():
        raise UserError(f"load_run must be given the folder of one run, but {path} is a whole study; add a run's name")
    if not path.is_dir() or (manifest := Manifest.read(path)) is None:
        raise UserError(f"{path} must be the folder of a run, but holds none; give one such as runs/NAME/bn-seed0")

    planned = manifest.json("config.json") or {}
    name = manifest.run.partition("/")[0]
    said = read_run(manifest, planned | {"name": name})
    if said is None or said.result is None or MODEL not in manifest.files:
        raise UserError(
            f"{path} must hold a finished run with {MODEL}, but it has none; run its driver's command again to the end"
        )
    with files.reading(path / "config.json"):
        fields = completed({name: tuple(v) if isinstance(v, list) else v for name, v in said.config.items()})
        config = Config(**fields)
    if model is None and config.norm not in NORMS:
        raise UserError(
            f"the norm of {path} must be registered, but {config.norm!r} is not ({nearest(config.norm, NORMS)}); "
            "import the module that registers it, or give its network as model"
        )
    if model is None and config.model not in MODELS:
        raise UserError(
            f"the network of {path} must be registered, but {config.model!r} is not ({nearest(config.model, MODELS)}); "
            "import the module that registers it, or give it as model"
        )
    content = manifest.content(MODEL)
    with files.reading(path / MODEL):
        variables = unflatten_dict(safetensors.numpy.load(content), sep="/")
        about = _metadata(content)
    class_names = tuple(about["class_names"])
    return TrainedRun(
        config=config,
        model=build_network(config, len(class_names)) if model is None else model,
        variables=variables,
        history=pd.DataFrame(said.rows),
        result=said.result,
        mean=tuple(about["mean"]),
        class_names=class_names,
    )


def _metadata(content: bytes) -> dict[str, Any]:
    """What `model_bytes` has written beside the arrays."""
    size = int.from_bytes(content[:8], "little")
    found: dict[str, Any] = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["images"])
    return found
