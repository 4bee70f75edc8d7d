"""The layout of images and their variances for the planes: (rows, columns * lanes).

A tile has two sides. Gradients go to the fixed side, which has one image for all lanes or one per
lane. The moving side is shifted by the offset. It is surrounded by the band's zeros, so that every
offset is a slice.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kip_flax import architectures as arch
from kip_flax.kernels.head import PerRelu
from kip_flax.kernels.plan import KernelLevel, KernelPlan, LinearOp
from kip_flax.kernels.relu import deviation

Variances = tuple[tuple[PerRelu, ...], PerRelu]


class LevelSide(NamedTuple):
    """One side of a tile on one level.

    Attributes:
        image: (C, rows, columns * n) on the first level, None on the others; n is the number of
            lanes, or 1 on a GPU where all lanes have the same image.
        deviations: for each ReLU of the level (rows, columns * n): the standard deviation of every
            pixel's pre-activation; 0 outside the image.
    """

    image: jax.Array | None
    deviations: PerRelu


class LevelSides(NamedTuple):
    """Both sides of a tile on one level."""

    fixed: LevelSide
    moving: LevelSide


class Side(NamedTuple):
    """One side of a tile: its levels, and the deviations (lanes,) at the head's ReLUs."""

    levels: tuple[LevelSide, ...]
    head: PerRelu


def lay_out(
    plan: KernelPlan, images: jax.Array, variances: Variances, lanes: int, moving: bool
) -> Side:
    """The side of images (n, H, W, C); n is `lanes`, or 1 if all lanes share the image."""
    by_level, head = variances
    levels = tuple(
        level_side(level, images if i == 0 else None, maps, lanes, moving)
        for i, (level, maps) in enumerate(zip(plan.levels, by_level, strict=True))
    )
    return Side(levels, tuple(jnp.broadcast_to(deviation(v), lanes) for v in head))


def level_side(
    level: KernelLevel, images: jax.Array | None, variances: PerRelu, lanes: int, moving: bool
) -> LevelSide:
    """One level's part of a side, from images (n, H, W, C) and variance maps (n, H, W)."""
    band = level.band if moving else (0, 0)
    image = None
    if images is not None:
        image = _spread(jnp.moveaxis(images, -1, 1), level.margin, band, lanes)
    deviations = tuple(
        _spread(deviation(v), margin, band, lanes)
        for v, margin in zip(variances, relu_margins(level), strict=True)
    )
    return LevelSide(image, deviations)


def relu_margins(level: KernelLevel) -> list[int]:
    """The margin that is left at each ReLU of a level."""
    margin, margins = level.margin, []
    for op in level.ops:
        if isinstance(op, LinearOp):
            margin -= op.size // 2
        elif isinstance(op, arch.Relu):
            margins.append(margin)
    return margins


def repeats_lanes() -> bool:
    """Whether maps that all lanes share are stored once per lane: true on CPUs and TPUs.

    A CPU does not read in vectors what is broadcast as it is read. A TPU broadcasts it anew for
    every plane: 6 % more cycles, by its compiler.
    """
    return jax.default_backend() in ("cpu", "tpu")


def _spread(maps: jax.Array, margin: int, band: tuple[int, int], lanes: int) -> jax.Array:
    """Maps (n, ..., H, W) as (..., rows, columns * n), surrounded by margin + band zeros."""
    rows, columns = margin + band[0], margin + band[1]
    maps = jnp.moveaxis(maps, 0, -1)
    edges = [(0, 0)] * (maps.ndim - 3) + [(rows, rows), (columns, columns), (0, 0)]
    maps = jnp.pad(maps, edges)
    if repeats_lanes():
        maps = jnp.broadcast_to(maps, (*maps.shape[:-1], lanes))
    return maps.reshape(*maps.shape[:-2], -1)
