"""Choices of images from a data set: balanced draws and even subsets."""

import jax
import numpy as np

from kip_flax.data.datasets import Dataset
from kip_flax.runtime.errors import UserError


def balanced_draw(labels: np.ndarray, size: int, num_classes: int, key: jax.Array) -> np.ndarray:
    """Draws `size` distinct indices into `labels`, as evenly over the classes as possible.

    If the number of classes does not divide `size`, the rest goes to distinct random classes. The
    other classes make up for one with too few images. The draw and its random order follow from
    `key` alone, on any number of devices.

    Args:
        labels: integers (n,), 0 to num_classes - 1.
        size: number of indices.
        num_classes: number of classes.
        key: a JAX random key.

    Returns:
        int64 (size,).

    Raises:
        UserError: `size` is not between 1 and n.
    """
    return _drawn(labels, slice(0, size), num_classes, key)


def balanced_batch(
    labels: np.ndarray, size: int, num_classes: int, key: jax.Array, number: int
) -> np.ndarray:
    """Batch `number` (from 1) of passes over the data; no image comes twice in a pass.

    Each batch is a balanced draw of the images that the pass has left. A pass ends when some class
    has too few images left for an even batch; the next pass has another order. The batch follows
    from `key` and `number` alone.

    Other arguments, the result and errors are those of `balanced_draw`.
    """
    fewest = int(np.bincount(labels, minlength=num_classes).min())
    batches = max(1, fewest * num_classes // size)
    passes, place = divmod(number - 1, batches)
    taken = slice(place * size, (place + 1) * size)
    return _drawn(labels, taken, num_classes, jax.random.fold_in(key, passes + 1))


def _drawn(labels: np.ndarray, taken: slice, num_classes: int, key: jax.Array) -> np.ndarray:
    """The part `taken` of an order that is even over the classes wherever it is cut."""
    size = taken.stop - taken.start
    if not 1 <= size <= len(labels):
        raise UserError(
            f"{size} images cannot be drawn from {len(labels)}: take between 1 and {len(labels)}."
        )
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    shuffled = rng.permutation(len(labels))
    # NumPy sorts 16 bits by radix.
    short_labels = labels.astype(np.int16) if num_classes < 2**15 else labels
    by_class = shuffled[np.argsort(short_labels[shuffled], kind="stable")]
    counts = np.bincount(labels, minlength=num_classes)
    rank_in_class = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    # First one image of every class, then a second of every class: any cut is even. Those of ranks
    # beyond the cut need no order.
    tie = rng.random(len(labels))
    last = np.searchsorted(np.cumsum(np.bincount(rank_in_class)), taken.stop)
    early = np.flatnonzero(rank_in_class <= last)
    in_turn = early[np.lexsort((tie[early], rank_in_class[early]))]
    return rng.permutation(by_class[in_turn[taken]])


def evenly(total: int, most: int) -> np.ndarray:
    """At most `most` of the numbers below `total`, evenly spread, with both ends (1: the first)."""
    if total <= most:
        return np.arange(total)
    return np.unique(np.linspace(0, total - 1, most).round().astype(int))


def test_subset(dataset: Dataset, num_test: int) -> tuple[np.ndarray, np.ndarray]:
    """`num_test` evenly spaced test images (uint8) and labels; all if it is 0 or too large."""
    total = len(dataset.test_images)
    if not 0 < num_test < total:
        return dataset.test_images, dataset.test_labels
    rows = np.linspace(0, total - 1, num_test).astype(int)  # Rounded down, unlike `evenly`.
    return dataset.test_images[rows], dataset.test_labels[rows]
