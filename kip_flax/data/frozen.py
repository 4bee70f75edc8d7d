"""Pixels that hold noise and are never learned: KIP_rho of Nguyen et al., ICLR 2021, section 3.

If a share of every image is noise, a distilled set can show of the training images only what the
other pixels hold. The places and the values of the noise follow from the seed alone, so no state is
needed and a resumed run has the same noise.
"""

import jax
import jax.numpy as jnp
import optax

_FROZEN = 0xF2  # Folded into the key of the seed.


def corrupted(images: jax.Array, share: float, seed: int) -> jax.Array:
    """Images (S, H, W, C) with a `share` of each one's pixels replaced by standard normal noise."""
    if not share:
        return images
    place, noise = jax.random.split(_key(seed))
    frozen = frozen_pixels(place, images.shape, share)
    return jnp.where(frozen, jax.random.normal(noise, images.shape, images.dtype), images)


def frozen_pixels(key: jax.Array, shape: tuple[int, ...], share: float) -> jax.Array:
    """A mask (S, H, W, 1) for images of `shape`: True for `share` of each one's pixels, rounded."""
    size, height, width, _ = shape
    order = jnp.argsort(jax.random.uniform(key, (size, height * width)), axis=1)
    rank = jnp.argsort(order, axis=1)
    return (rank < round(share * height * width)).reshape(size, height, width, 1)


def held(tx: optax.GradientTransformation, share: float, seed: int) -> optax.GradientTransformation:
    """`tx` with zero gradients for the pixels that `corrupted` fills, so that they stay fixed.

    Its parameters are {'images': (S, H, W, C), ...}.
    """
    if not share:
        return tx
    place, _ = jax.random.split(_key(seed))

    def without_frozen(gradients: optax.Updates, _: optax.Params | None) -> optax.Updates:
        images = gradients["images"]
        frozen = frozen_pixels(place, images.shape, share)
        return gradients | {"images": jnp.where(frozen, 0, images)}

    return optax.chain(optax.stateless(without_frozen), tx)


def _key(seed: int) -> jax.Array:
    return jax.random.fold_in(jax.random.key(seed), _FROZEN)
