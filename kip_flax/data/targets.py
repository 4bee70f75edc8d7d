"""The training set as an algorithm sees it: preprocessed images and centred labels."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


def centered_one_hot(labels: ArrayLike, num_classes: int) -> jax.Array:
    """Integer labels (n,) as centred regression targets: one-hot minus 1/C, float32 (n, C)."""
    return jax.nn.one_hot(labels, num_classes, dtype=jnp.float32) - 1 / num_classes


@dataclass(frozen=True, eq=False)
class Targets:
    """Training targets in memory: images (n, H, W, C) preprocessed, class numbers (n,)."""

    images: np.ndarray
    labels: np.ndarray
    num_classes: int

    def take(self, rows: np.ndarray | slice) -> tuple[np.ndarray, np.ndarray]:
        """The images of `rows`, and their labels (n, C), one-hot minus 1/C."""
        return self.images[rows], self._one_hot[self.labels[rows]]

    @functools.cached_property
    def _one_hot(self) -> np.ndarray:
        return np.asarray(centered_one_hot(np.arange(self.num_classes), self.num_classes))
