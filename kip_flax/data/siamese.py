"""One augmentation for a whole batch: differentiable Siamese augmentation, and how DSA trains.

Zhao and Bilen, *Dataset Condensation with Differentiable Siamese Augmentation* (ICML 2021, arXiv
2102.08259), section 3.2. Of the augmentations named one is drawn. Matched batches, real and
synthetic, get it with the same parameters for every image; in a training every image draws its own.
"""

from collections.abc import Callable

import jax

from kip_flax.data import augment

# Those of the published code; flipped digits are other digits, so digits do without 'flip'.
STRATEGIES = ("color", "crop", "cutout", "flip", "scale", "rotate")


def alike(names: tuple[str, ...], images: jax.Array, key: jax.Array) -> jax.Array:
    """One of `names`, drawn with its parameters from `key`, for all `images` (n, H, W, C) alike.

    Two batches given the same key are augmented in the same way, whatever their sizes.
    """
    return _drawn(names, images, key, lambda key: key, None)


def each(names: tuple[str, ...], images: jax.Array, key: jax.Array, rows: jax.Array) -> jax.Array:
    """One of `names`, drawn from `key`, with parameters of its own for each image.

    Args:
        names: as `augment.parse` gives them; () changes nothing.
        images: (n, H, W, C).
        key: of this batch.
        rows: (n,) integers, what makes an image's parameters its own: its place in the batch.
    """
    return _drawn(
        names, images, key, lambda key: jax.vmap(jax.random.fold_in, (None, 0))(key, rows), 0
    )


def _drawn(
    names: tuple[str, ...],
    images: jax.Array,
    key: jax.Array,
    spread: Callable[[jax.Array], jax.Array],
    axis: int | None,
) -> jax.Array:
    """`spread` makes the parameters' key one of every image, along `axis`, or leaves it."""
    if not names:
        return images
    choice_key, parameter_key = jax.random.split(key)
    branches = [jax.vmap(augment.function(name), (0, axis)) for name in names]
    number = jax.random.randint(choice_key, (), 0, len(names))
    return jax.lax.switch(number, branches, images, spread(parameter_key))
