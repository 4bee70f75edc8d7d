"""A distilled set classifies pictures: kernel ridge regression with the kernel in its file.

from kip_flax.export import predictor

classifier = predictor.load("runs/digits/distilled/NAME.npz")
names, scores = classifier.predict(pictures)[:2]
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from kip_flax import architectures, kernels, krr, preprocess
from kip_flax.data import predictions
from kip_flax.data.predictions import Predictions
from kip_flax.export.sets import Distilled, load_distilled
from kip_flax.kernels import KernelOptions
from kip_flax.kernels.sharded import shard_kernel
from kip_flax.preprocess import Preprocess
from kip_flax.runtime import sharding
from kip_flax.runtime.batching import repeat_last_row
from kip_flax.runtime.errors import UserError

_BATCH = 500  # Pictures per call of the kernel.


@dataclass(frozen=True, eq=False)
class Predictor:
    """A distilled set with the kernel that it was made for.

    Attributes:
        images: (S, H, W, C) float32, in preprocessed space.
        labels: (S, classes) float32.
        class_names: one for each class.
        fitted: the preprocessing of the pictures.
        options: the kernel's.
        reg: the ridge, relative to the kernel's mean diagonal, as in `krr.solve`.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    fitted: Preprocess
    options: KernelOptions
    reg: float

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the pictures."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    @sharding.with_float64
    def predict(self, pictures: np.ndarray) -> Predictions:
        """The predictions for uint8 pictures (n, H, W, C), or (n, H, W) if they are grey.

        A score is near 1 - 1/classes where the class fits, and near -1/classes where it does not.

        Raises:
            UserError: they are not uint8, or of another shape than the set's images; or the set's
                regularised kernel is not positive definite.
        """
        pictures = predictions.checked(pictures, self.image_shape, "the set")
        scores = np.zeros((len(pictures), len(self.class_names)), np.float32)
        for start in range(0, len(pictures), _BATCH):
            part = pictures[start : start + _BATCH]
            images = preprocess.apply(self.fitted, part)
            if start:  # Of many parts, all have the size of the first.
                images = repeat_last_row(images, _BATCH)
            scores[start : start + len(part)] = np.asarray(self._scores(images))[: len(part)]
        return predictions.of_scores(scores, self.class_names)

    @functools.cached_property
    def _scores(self) -> Callable[[np.ndarray], jax.Array]:
        """A function from preprocessed images (n, H, W, C) to scores (n, classes)."""
        kernel = shard_kernel(kernels.make_kernel(self.options), sharding.make_mesh())
        k_ss = jax.jit(lambda x: kernel(x, x))(self.images)
        try:
            krr.check_positive_definite(k_ss, self.reg)
        except UserError:
            raise UserError(
                f"the kernel of the set is not positive definite here with the reg={self.reg:g} of "
                f"its file: make the set again with a larger reg."
            ) from None
        alpha = krr.solve(k_ss, self.labels, self.reg)
        scores = jax.jit(lambda x, support, alpha: krr.predict(kernel(x, support), alpha))
        return lambda images: scores(images, self.images, alpha)


def load(path: str | os.PathLike[str]) -> Predictor:
    """The distilled set in a file, with its kernel.

    Raises:
        UserError: the file is missing or broken, or as of `of`.
    """
    return of(load_distilled(path))


def of(found: Distilled) -> Predictor:
    """A distilled set, as `load_distilled` and `kip_flax.distill` return it, with its kernel.

    Raises:
        UserError: its file lacks the kernel, the ridge or the preprocessing, as published files of
            others do, or names an architecture that is not imported.
    """
    if found.preprocess is None or not found.kernel:
        lacks = "preprocessing" if found.preprocess is None else "kernel"
        raise UserError(
            f"{found.path} has no {lacks} to predict with: take a set that a run of this program "
            f"wrote, with the files beside it, or a network of --mode=transfer."
        )
    return Predictor(
        found.images,
        found.labels,
        found.class_names,
        preprocess.from_arrays(found.preprocess),
        _kernel_options(found),
        _reg(found),
    )


def _kernel_options(found: Distilled) -> KernelOptions:
    """The kernel that the file describes; no module is imported that the file names."""
    fields: dict[str, Any] = dict(found.kernel)
    name = fields.pop("architecture", None)
    if name not in architectures.ARCHITECTURES and name not in sys.modules:
        raise UserError(
            f"{found.path} was made for the architecture {name!r}, a module of its own: import it "
            f"before kip_flax.export.predictor.load, or train a network on the set "
            f"(--mode=transfer)."
        )
    try:
        return KernelOptions(architectures.build(name, fields.pop("depth")), **fields)
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{found.path} describes its kernel in a way that this version does not read "
            f"({error}): make the set again, or use the version that wrote it."
        ) from None


def _reg(found: Distilled) -> float:
    try:
        return float(found.provenance["config"]["reg"])
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f"{found.path} does not say its ridge, 'reg': take a set that a run of this program "
            f"wrote."
        ) from None
