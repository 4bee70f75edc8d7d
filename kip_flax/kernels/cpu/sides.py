"""The two sides of a tile, laid out for compiled code: a vector of lanes for every pixel.

Images come as (n, pixels * channels), standard deviations as (n, maps).
"""

import math
from typing import Any, NamedTuple

import numpy as np

from kip_flax.kernels.cpu.compiled import rare
from kip_flax.kernels.cpu.vectors import LANES

_HALF_OVER_PI = 0.5 / math.pi
_LINE = 64  # Bytes of a cache line.


class Sides(NamedTuple):
    """The images, deviations and inverses of a tile, fixed side (1) and moving side (2).

    Flat arrays, (pixels * channels, LANES) or (pixels, LANES); those of a fixed side that is one
    image for all lanes are without the last axis.
    """

    image1: np.ndarray
    s1: np.ndarray
    r1: np.ndarray
    image2: np.ndarray
    s2: np.ndarray
    r2: np.ndarray


@rare
def aligned_numbers(like: Any, size: int) -> Any:
    """(size,) zeros in the precision of `like`, on a cache line."""
    item = like.itemsize
    raw = np.zeros(size + _LINE // item, like.dtype)
    skip = (-raw.ctypes.data // item) % (_LINE // item)
    return raw[skip : skip + size]


@rare
def aligned(like: Any, size: int) -> Any:
    """(size, LANES) zeros in the precision of `like`, on a cache line."""
    return aligned_numbers(like, size * LANES).reshape(size, LANES)


@rare
def tile_sides(program: Any, like: Any) -> Sides:
    """Room for one fixed image against `LANES` moving ones."""
    pixels, maps = like.shape[1], program.maps
    return Sides(
        aligned_numbers(like, pixels), aligned_numbers(like, maps), aligned_numbers(like, maps),
        aligned(like, pixels), aligned(like, maps), aligned(like, maps),
    )  # fmt: skip


@rare
def pair_sides(program: Any, like: Any) -> Sides:
    """Room for `LANES` pairs, image by image."""
    pixels, maps = like.shape[1], program.maps
    return Sides(
        aligned(like, pixels), aligned(like, maps), aligned(like, maps),
        aligned(like, pixels), aligned(like, maps), aligned(like, maps),
    )  # fmt: skip


@rare
def lay_out_fixed(program: Any, x1: Any, s1: Any, row: int, sides: Sides) -> None:
    """One fixed image for all lanes."""
    for i in range(x1.shape[1]):
        sides.image1[i] = x1[row, i] / program.channels
    for i in range(s1.shape[1]):
        sides.s1[i] = s1[row, i] * _HALF_OVER_PI
        sides.r1[i] = inverse(s1[row, i])


@rare
def lay_out_moving(x2: Any, s2: Any, first: int, count: int, sides: Sides) -> None:
    """Moving images `first` to `first + count - 1`, and zeros in the lanes that are left."""
    for i in range(x2.shape[1]):
        for lane in range(LANES):
            sides.image2[i, lane] = x2[first + lane, i] if lane < count else 0
    for i in range(s2.shape[1]):
        for lane in range(LANES):
            s = s2[first + lane, i] if lane < count else 0
            sides.s2[i, lane], sides.r2[i, lane] = s, inverse(s)


@rare
def lay_out_pairs(
    program: Any, x1: Any, s1: Any, x2: Any, s2: Any, first: int, count: int, sides: Sides
) -> None:
    """Images `first` to `first + count - 1` of both sets, one pair a lane."""
    lay_out_moving(x2, s2, first, count, sides)
    for i in range(x1.shape[1]):
        for lane in range(LANES):
            x = x1[first + lane, i] if lane < count else 0
            sides.image1[i, lane] = x / program.channels
    for i in range(s1.shape[1]):
        for lane in range(LANES):
            s = s1[first + lane, i] if lane < count else 0
            sides.s1[i, lane], sides.r1[i, lane] = s * _HALF_OVER_PI, inverse(s)


@rare
def inverse(s: float) -> float:
    """1 / s, and 0 where s is 0."""
    return 1 / s if s > 0 else 0.0
