"""A batch in several passes through a network: on CPUs, what a core's cache holds at a time.

Convolutions of many images at once wait for memory there; the sums over the batch are the same.
Only a network that normalises over the batch must see it whole.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

PIXELS = 2048  # Of one pass on a CPU: the cache holds what some 100 channels make of them.

Tree = Any
# (parameters, images (n, H, W, C), labels (n, ...), weights (n,)) -> weighted sum over the images.
Loss = Callable[[Tree, jax.Array, jax.Array, jax.Array], jax.Array]


def images_of(shape: tuple[int, ...], most: int) -> int:
    """Images of `shape` (H, W, C) for one pass: `most`, or fewer on a CPU."""
    if jax.default_backend() != "cpu":
        return most
    return min(most, max(1, PIXELS // math.prod(shape[:2])))


def sum_of_gradients(
    loss: Loss, params: Tree, images: jax.Array, labels: jax.Array, weights: jax.Array
) -> Tree:
    """Gradient of `loss` of a batch in the parameters; all passes are equally long."""
    passes = math.ceil(len(images) / images_of(images.shape[1:], len(images)))
    parts = in_parts((images, labels, weights), math.ceil(len(images) / passes))

    def add(total: Tree, part: tuple[jax.Array, ...]) -> tuple[Tree, None]:
        return jax.tree.map(jnp.add, total, jax.grad(loss)(params, *part)), None

    return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), parts)[0]


def in_parts(tree: Tree, size: int) -> Tree:
    """Arrays (n, ...) as (parts, size, ...), padded with zeros."""

    def split(a: jax.Array) -> jax.Array:
        padding = -len(a) % size
        padded = jnp.pad(a, [(0, padding)] + [(0, 0)] * (a.ndim - 1))
        return padded.reshape(-1, size, *a.shape[1:])

    return jax.tree.map(split, tree)
