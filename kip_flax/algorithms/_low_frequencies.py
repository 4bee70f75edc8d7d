"""Images in their lowest frequencies alone: fewer numbers to learn, and to add noise to."""

import jax
import numpy as np
from scipy.fft import dct

from kip_flax.runtime.precision import product


def low_frequencies(image_shape: tuple[int, int, int], count: int) -> np.ndarray:
    """An orthonormal basis (K, H W C): each channel's lowest `count` frequencies along each side.

    The frequencies are those of the discrete cosine transform.
    """
    height, width, channels = image_shape
    rows, columns = (dct(np.eye(side), axis=0, norm="ortho")[:count] for side in (height, width))
    waves = np.einsum("ah,bw,cd->abchwd", rows, columns, np.eye(channels))
    return waves.reshape(-1, height * width * channels).astype(np.float32)


def smooth(images: jax.Array, basis: jax.Array | None) -> jax.Array:
    """The part of images (S, H, W, C) in the space of `basis`; None: all."""
    if basis is None:
        return images
    rows = images.reshape(len(images), -1)
    return product(product(rows, basis.T), basis).reshape(images.shape)
