"""Noisy class means: a start for private runs that spends little of their budget.

The sums of all training images of a class change by one clipped image if a training image is added
or removed, so one release of the Gaussian mechanism publishes all of them (Dwork and Roth, The
Algorithmic Foundations of Differential Privacy, 2014, appendix A).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_CHUNK = 4096  # Images that are float64 at a time.


class GroupSums(NamedTuple):
    """Sums over the training images of each group. One image moves them by a norm of 1 at most.

    Attributes:
        images: (S, H, W, C) float64, in units of sqrt(2) clips.
        counts: (S,) float64, in units of sqrt(2).
    """

    images: np.ndarray
    counts: np.ndarray


def draw_groups(labels: np.ndarray, support: np.ndarray, key: jax.Array) -> np.ndarray:
    """The support image (n,) whose group each training image joins: one of its class.

    Every training image draws on its own, so that the others' groups do not depend on it.

    Args:
        labels: classes (n,) of the training images.
        support: classes (S,) of the support, the same number of each class, sorted.
        key: of the draw.
    """
    images_per_class = int(np.sum(support == support[0]))
    part = jax.random.randint(key, labels.shape, 0, images_per_class, jnp.int32)
    return np.searchsorted(support, labels) + np.asarray(part)


def group_sums(images: np.ndarray, groups: np.ndarray, count: int, clip: float) -> GroupSums:
    """The sums of `count` groups.

    Args:
        images: (n, H, W, C).
        groups: (n,), the group of each.
        count: number of groups S.
        clip: the root mean square of the pixels that a brighter image is scaled down to.
    """
    shape = images.shape[1:]
    limit = _norm(clip, shape)
    sums = np.zeros((count, math.prod(shape)))
    for start in range(0, len(images), _CHUNK):
        rows = np.asarray(images[start : start + _CHUNK], np.float64).reshape(-1, sums.shape[1])
        norms = np.linalg.norm(rows, axis=1)
        rows = rows / np.maximum(norms, limit)[:, None]
        members = groups[start : start + _CHUNK] == np.arange(count)[:, None]
        sums += members.astype(np.float64) @ rows
    counts = np.bincount(groups, minlength=count).astype(np.float64)
    root = math.sqrt(2)
    return GroupSums(sums.reshape(count, *shape) / root, counts / root)


def noisy_means(sums: GroupSums, clip: float, noise: float, key: jax.Array) -> np.ndarray:
    """The means (S, H, W, C) float32 of groups whose sums got noise.

    Args:
        sums: from `group_sums`.
        clip: as there.
        noise: noise multiplier: the standard deviation of what is added to each number of `sums`.
        key: of the noise.
    """
    keys = jax.random.split(key)
    shape = sums.images.shape
    images, counts = (
        part + noise * np.asarray(jax.random.normal(k, part.shape, jnp.float32), np.float64)
        for part, k in zip(sums, keys, strict=True)
    )
    # A count that noise made very small or negative would blow its mean up.
    counts = np.maximum(counts, noise + 1)
    means = _norm(clip, shape[1:]) * images / counts[:, None, None, None]
    return means.astype(np.float32)


def _norm(clip: float, shape: tuple[int, ...]) -> float:
    """The norm of an image whose pixels have the root mean square `clip`."""
    return clip * math.sqrt(math.prod(shape))
