"""The weights and images of tests/fixtures/zoo.npz, the same for PyTorch and for our networks."""

import zlib

import numpy as np

CLASSES, SHAPE = 10, (32, 32, 3)


def weight(name: str, shape: tuple[int, ...], number: int) -> np.ndarray:
    """Weights in the layout of kip_flax: convolutions (row, column, in, out), dense (in, out)."""
    rng = np.random.default_rng(zlib.crc32(f"{name} {shape} {number}".encode()))
    drawn = rng.standard_normal(shape)
    if name == "kernel":
        return drawn * np.sqrt(2 / np.prod(shape[:-1]))
    return drawn * 0.2 + (name == "scale")


def images() -> np.ndarray:
    """Two images (2, 32, 32, 3)."""
    return np.random.default_rng(0).standard_normal((2, *SHAPE))
