"""Batches: padding, and computation in several passes.

On a CPU a pass takes as many images as fit in a core's cache, because convolutions of more images
wait for memory. Sums over the batch stay the same. Networks without convolutions take all images at
once. A network that normalises over the batch must get it whole.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

PIXELS = 2048  # Per pass on a CPU: activations of some 100 channels still fit in the cache.

Tree = Any
Rows = TypeVar("Rows", np.ndarray, jax.Array)
# (parameters, images (n, H, W, C), labels (n, ...), weights (n,)) -> weighted sum over the images.
Loss = Callable[[Tree, jax.Array, jax.Array, jax.Array], jax.Array]


def pad_rows(array: Rows, multiple: int, value: float = 0) -> Rows:
    """`array` (n, ...) with rows of `value` added up to the next multiple of `multiple`."""
    padding = -len(array) % multiple
    if not padding:
        return array
    edges = [(0, padding)] + [(0, 0)] * (array.ndim - 1)
    if isinstance(array, np.ndarray):
        return np.pad(array, edges, constant_values=value)
    return jnp.pad(array, edges, constant_values=value)


def repeat_last_row(array: np.ndarray, multiple: int) -> np.ndarray:
    """Like `pad_rows`, but with copies of the last row."""
    padding = -len(array) % multiple
    return np.concatenate([array, np.repeat(array[-1:], padding, axis=0)])


def split_rows(tree: Tree, size: int) -> Tree:
    """Arrays (n, ...) as (parts, size, ...), the last part padded with zeros."""

    def split(array: jax.Array) -> jax.Array:
        return pad_rows(array, size).reshape(-1, size, *array.shape[1:])

    return jax.tree.map(split, tree)


def images_per_pass(shape: tuple[int, ...], most: int, params: Tree = None) -> int:
    """Images of `shape` (H, W, C) for one pass: `most`, or fewer for convolutions on a CPU.

    A network without convolutions, as `params` tell, takes all at once: every pass reads all of
    its weights.
    """
    leaves = jax.tree.leaves(params)
    if jax.default_backend() != "cpu" or (leaves and all(leaf.ndim < 4 for leaf in leaves)):
        return most
    return min(most, max(1, PIXELS // math.prod(shape[:2])))


def gradient_in_passes(
    loss: Loss, params: Tree, images: jax.Array, labels: jax.Array, weights: jax.Array
) -> Tree:
    """Gradient of a batch's `loss` in the parameters, summed over passes of equal size."""
    passes = math.ceil(len(images) / images_per_pass(images.shape[1:], len(images), params))
    parts = split_rows((images, labels, weights), math.ceil(len(images) / passes))

    return summed(lambda part: jax.grad(loss)(params, *part), parts)


def summed(function: Callable[[Tree], Tree], parts: Tree) -> Tree:
    """The sum of `function` over the parts, one after the other.

    Args:
        function: arrays of a part -> arrays.
        parts: arrays (parts, ...), as `split_rows` gives them.
    """

    def add(total: Tree, part: Tree) -> tuple[Tree, None]:
        return jax.tree.map(jnp.add, total, function(part)), None

    like = jax.eval_shape(function, jax.tree.map(lambda array: array[0], parts))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
    return jax.lax.scan(add, zeros, parts)[0]
