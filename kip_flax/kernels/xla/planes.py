"""One plane: the covariances of all pixel pairs at one offset, for many image pairs at once.

A plane is stored as (rows, columns * lanes): lanes are image pairs, so every shift is a whole row
or a whole stretch of lanes away, and every loop is long and contiguous. Planes carry a margin of
zeros that the convolutions eat: no padding in between. Positions where one of the two pixels is
outside its image are kept at zero by the standard deviations (zero there) and a mask.
"""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from kip_flax.kernels import relu
from kip_flax.kernels.plan import KernelLevel, LinearOp


class Pixels(NamedTuple):
    """What a ReLU and the mask need to know of the pixel pairs of a plane.

    Attributes:
        q: (rows, columns * lanes) product of standard deviations, 0 outside the images.
        r: the same, inverse; 0 outside.
        rows: (rows, 1) 1 inside both images, else 0.
        columns: (1, columns * lanes) likewise.
    """

    q: jax.Array
    r: jax.Array
    rows: jax.Array
    columns: jax.Array


def box(plane: jax.Array, size: int, lanes: int) -> jax.Array:
    """Sum over `size` x `size` windows; the result is smaller by size - 1 both ways."""
    rows = plane.shape[0] - size + 1
    columns = plane.shape[1] - (size - 1) * lanes
    summed = sum(plane[i : i + rows] for i in range(1, size)) + plane[:rows]
    shifted = (summed[:, i * lanes : i * lanes + columns] for i in range(1, size))
    return sum(shifted) + summed[:, :columns]


def as_one_block(always_true: jax.Array, fn: Callable, *args: Any) -> Any:
    """`fn(*args)`, kept by the compiler as one block with its results written to memory once.

    XLA on CPUs otherwise fuses each stage into every element that reads it, and computes it nine
    times over (it drops `optimization_barrier` before fusing). A branch on a run-time value is a
    wall it does not fuse across. `always_true` must be such a value; the other branch answers NaN.
    """
    if jax.default_backend() != "cpu":
        return lax.optimization_barrier(fn(*args))
    shapes = jax.eval_shape(fn, *args)
    dead = lambda *_: jax.tree.map(lambda s: jnp.full(s.shape, jnp.nan, s.dtype), shapes)  # noqa: E731
    return lax.cond(always_true, fn, dead, *args)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def conv_relu(
    op: LinearOp,
    lanes: int,
    always_true: jax.Array,
    k: jax.Array,
    t: jax.Array | None,
    pixels: Pixels,
) -> tuple[jax.Array, jax.Array]:
    """Convolution, then ReLU, of planes K and T (rows, columns * lanes); they lose size - 1 a side.

    `t` is None where the tangent kernel is still zero (the input images).
    """
    return _conv_relu_forward(op, lanes, always_true, k, t, pixels, keep=False)[0]


def _conv_relu_forward(
    op: LinearOp,
    lanes: int,
    always_true: jax.Array,
    k: jax.Array,
    t: jax.Array | None,
    pixels: Pixels,
    keep: bool,
) -> tuple:
    """The planes after the ReLU, and what the backward pass keeps: c, D and u."""
    scale = op.weight / op.size**2

    def correlate(k: jax.Array, pixels: Pixels) -> tuple[jax.Array, jax.Array]:
        c = relu.correlation(scale * box(k, op.size, lanes) + op.bias, pixels.r)
        return c, relu.derivative_kernel(c) * (pixels.rows * pixels.columns)

    def rectify(
        t: jax.Array | None, c: jax.Array, d: jax.Array, q: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array | None]:
        u = op.alpha * (c * q) + op.beta
        if t is not None:
            u = u + scale * box(t, op.size, lanes)
        return q * (c * d + relu.half_sine(c)), u * d, u if keep else None

    c, d = as_one_block(always_true, correlate, k, pixels)
    k_out, t_out, u = as_one_block(always_true, rectify, t, c, d, pixels.q)
    return (k_out, t_out), (c, d, u)


def _conv_relu_fwd(
    op: LinearOp,
    lanes: int,
    always_true: jax.Array,
    k: jax.Array,
    t: jax.Array | None,
    pixels: Pixels,
) -> tuple:
    out, saved = _conv_relu_forward(op, lanes, always_true, k, t, pixels, keep=True)
    return out, (always_true, *saved, pixels, None if t is None else ())


def _conv_relu_bwd(op: LinearOp, lanes: int, residuals: tuple, cotangents: tuple) -> tuple:
    always_true, c, d, u, pixels, had_t = residuals
    scale = op.weight / op.size**2

    def rectify(
        gk: jax.Array, gt: jax.Array, c: jax.Array, d: jax.Array, u: jax.Array, r: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        gu = gt * d
        slope = gt * u * relu.derivative_slope(c) * r
        gb = gk * d + slope + op.alpha * gu
        gq = gk * relu.half_sine(c) - slope * c
        return _surround(gb, op.size, lanes), _surround(gu, op.size, lanes), gq

    def correlate(gb: jax.Array, gu: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        return scale * box(gb, op.size, lanes), None if had_t is None else scale * box(
            gu, op.size, lanes
        )

    gb, gu, gq = as_one_block(always_true, rectify, *cotangents, c, d, u, pixels.r)
    gk, gt = as_one_block(always_true, correlate, gb, gu)
    zeros = [jnp.zeros_like(x) for x in (pixels.r, pixels.rows, pixels.columns)]
    return None, gk, gt, Pixels(gq, *zeros)


conv_relu.defvjp(_conv_relu_fwd, _conv_relu_bwd)


def _surround(plane: jax.Array, size: int, lanes: int) -> jax.Array:
    """The plane with size - 1 zeros on each side, so that a box of it is the transpose of `box`."""
    edge = size - 1
    return jnp.pad(plane, ((edge, edge), (edge * lanes, edge * lanes)))


def windows(plane: jax.Array, level: KernelLevel, lanes: int) -> jax.Array:
    """The windows that end a level: (rows, size, columns, size, lanes) of (height, width * lanes).

    A stride keeps one pixel a step (size 1); pooling windows lie side by side.
    """
    size, step = level.pool, level.step
    grid = plane.reshape(-1, level.width, lanes)[level.start[0] :, level.start[1] :]
    if size < step:
        return grid[::step, ::step][:, None, :, None]
    rows, columns = level.height // size, level.width // size
    cells = grid[: rows * size, : columns * size]
    return cells.reshape(rows, size, columns, size, lanes)


def from_windows(cells: jax.Array, level: KernelLevel) -> jax.Array:
    """The transpose of `windows`: (height, width * lanes), 0 outside the windows."""
    rows, size, columns, _, lanes = cells.shape
    if size < level.step:
        grid = jnp.zeros((level.height, level.width, lanes), cells.dtype)
        grid = grid.at[level.start[0] :: level.step, level.start[1] :: level.step].set(
            cells[:, 0, :, 0]
        )
        return grid.reshape(level.height, -1)
    plane = cells.reshape(rows * size, columns * size * lanes)
    edges = (level.height - rows * size, (level.width - columns * size) * lanes)
    return jnp.pad(plane, ((0, edges[0]), (0, edges[1])))


@jax.custom_vjp
def mean_product(always_true: jax.Array, image1: jax.Array, image2: jax.Array) -> jax.Array:
    """Mean over channels of image1 * image2, both (C, rows, columns * lanes)."""

    def mean(x: jax.Array, y: jax.Array) -> jax.Array:
        # A sum written out: XLA on CPUs does not vectorise a reduction over the first axis.
        return functools.reduce(jnp.add, [a * b for a, b in zip(x, y, strict=True)]) / len(x)

    return as_one_block(always_true, mean, image1, image2)


def _mean_product_fwd(always_true: jax.Array, image1: jax.Array, image2: jax.Array) -> tuple:
    return mean_product(always_true, image1, image2), (image1, image2)


def _mean_product_bwd(images: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple:
    share = g / len(images[0])
    return None, share * images[1], share * images[0]


mean_product.defvjp(_mean_product_fwd, _mean_product_bwd)


def conv(
    op: LinearOp, lanes: int, k: jax.Array, t: jax.Array | None, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """A convolution that no ReLU follows."""
    scale = op.weight / op.size**2
    b = scale * box(k, op.size, lanes) + op.bias
    u = op.alpha * b + op.beta
    if t is not None:
        u = u + scale * box(t, op.size, lanes)
    return b * mask, u * mask
