"""The two sides of a tile, laid out for compiled code: a vector of lanes for every pixel.

Images come as (n, pixels * channels), standard deviations as (n, maps).
"""

from typing import Any, NamedTuple

import numpy as np

from kip_flax.kernels.cpu.compiled import rare
from kip_flax.kernels.cpu.vectors import LANES

_LINE = 64  # Bytes of a cache line.


class Sides(NamedTuple):
    """The images, deviations s and inverses r of a tile, fixed side (1) and moving side (2).

    Flat arrays, (pixels * channels, LANES) or (maps, LANES). If the fixed side is one image for all
    lanes, its arrays have no last axis. The image and the deviations of the fixed side contain the
    program's factors.
    """

    image1: np.ndarray
    s1: np.ndarray
    r1: np.ndarray
    image2: np.ndarray
    s2: np.ndarray
    r2: np.ndarray


@rare
def aligned_numbers(like: Any, size: int) -> Any:
    """Zeros (size,) in the precision of `like`, aligned to a cache line."""
    item = like.itemsize
    raw = np.zeros(size + _LINE // item, like.dtype)
    skip = (-raw.ctypes.data // item) % (_LINE // item)
    return raw[skip : skip + size]


@rare
def aligned(like: Any, size: int) -> Any:
    """Zeros (size, LANES) in the precision of `like`, aligned to a cache line."""
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
    """Room for `LANES` pairs, each with its own images."""
    pixels, maps = like.shape[1], program.maps
    return Sides(
        aligned(like, pixels), aligned(like, maps), aligned(like, maps),
        aligned(like, pixels), aligned(like, maps), aligned(like, maps),
    )  # fmt: skip


@rare
def lay_out_fixed(program: Any, x1: Any, s1: Any, row: int, sides: Sides) -> None:
    """Lays out image `row` as the fixed side of all lanes."""
    for i in range(x1.shape[1]):
        sides.image1[i] = x1[row, i] * program.image_factor
    for i in range(s1.shape[1]):
        sides.s1[i] = s1[row, i] * program.deviation_factors[i]
        sides.r1[i] = inverse(s1[row, i])


@rare
def lay_out_moving(x2: Any, s2: Any, first: int, count: int, sides: Sides) -> None:
    """Lays out moving images `first` to `first + count - 1`; the other lanes are zero."""
    to_lanes(x2, first, count, sides.image2)
    to_lanes(s2, first, count, sides.s2)
    for i in range(s2.shape[1]):
        for lane in range(LANES):
            sides.r2[i, lane] = inverse(sides.s2[i, lane])


@rare
def lay_out_pairs(
    program: Any, x1: Any, s1: Any, x2: Any, s2: Any, first: int, count: int, sides: Sides
) -> None:
    """Lays out images `first` to `first + count - 1` of both sets, one pair per lane."""
    lay_out_moving(x2, s2, first, count, sides)
    to_lanes(x1, first, count, sides.image1)
    to_lanes(s1, first, count, sides.s1)
    sides.image1[:] *= program.image_factor
    for i in range(s1.shape[1]):
        for lane in range(LANES):
            s = sides.s1[i, lane]
            sides.s1[i, lane], sides.r1[i, lane] = s * program.deviation_factors[i], inverse(s)


@rare
def to_lanes(rows: Any, first: int, count: int, out: Any) -> None:
    """Writes rows `first` to `first + count - 1` as columns (size, LANES), and zeros after them.

    It works in blocks: rows often lie a power of two apart, and a cache holds few of those.
    """
    out[:, count:] = 0
    for begin in range(0, len(out), LANES):
        for lane in range(count):
            for i in range(begin, min(begin + LANES, len(out))):
                out[i, lane] = rows[first + lane, i]


@rare
def from_lanes(columns: Any, first: int, count: int, out: Any) -> None:
    """The reverse of `to_lanes`: columns (size, LANES) to rows `first` to `first + count - 1`."""
    for begin in range(0, len(columns), LANES):
        for lane in range(count):
            for i in range(begin, min(begin + LANES, len(columns))):
                out[first + lane, i] = columns[i, lane]


@rare
def inverse(s: float) -> float:
    """1 / s, and 0 where s is 0."""
    return 1 / s if s > 0 else 0.0
