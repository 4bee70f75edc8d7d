"""One plane: the covariances of all pixel pairs at one offset, for many image pairs at once.

A plane is stored as (rows, columns * lanes), where lanes are image pairs. Shifts therefore go by
whole rows or whole groups of lanes, and every loop is long and contiguous. Planes have a margin of
zeros that the convolutions use up, so nothing is padded in between. Where one of the two pixels is
outside its image, the standard deviations (zero there) and a mask keep the plane at zero.
"""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kip_flax.kernels import relu
from kip_flax.kernels.plan import KernelLevel, LinearOp


class Fixed(NamedTuple):
    """A map of the fixed side, (..., rows, columns * lanes), or (..., rows, columns) for all lanes.

    The latter, on GPUs, is broadcast where it is used and never stored per lane.
    """

    map: jax.Array

    def over(self, lanes: int, columns: int) -> jax.Array:
        """The map (..., rows, columns) with a value for every lane; `columns` counts lanes too."""
        if self.map.shape[-1] == columns:
            return self.map
        repeated = jnp.broadcast_to(self.map[..., None], (*self.map.shape, lanes))
        return repeated.reshape(*self.map.shape[:-1], columns)

    def gather(self, lanes: int, cotangent: jax.Array) -> jax.Array:
        """The transpose of `over`."""
        if self.map.shape == cotangent.shape:
            return cotangent
        return cotangent.reshape(*self.map.shape, lanes).sum(axis=-1)


class Moving(NamedTuple):
    """A map of the moving side, (..., rows, columns * lanes), and the corner of a plane's part."""

    map: jax.Array
    corner: tuple[jax.Array, jax.Array]

    def part(self, shape: tuple[int, ...]) -> jax.Array:
        """The part of `shape`. It is sliced where it is used and never stored."""
        return lax.dynamic_slice(self.map, self._start(), shape, allow_negative_indices=False)

    def put(self, part: jax.Array) -> jax.Array:
        """The transpose of `part`."""
        zeros = jnp.zeros(self.map.shape, part.dtype)
        return lax.dynamic_update_slice(zeros, part, self._start(), allow_negative_indices=False)

    def _start(self) -> list[Any]:
        return [*[np.int32(0)] * (self.map.ndim - 2), *self.corner]


class Pixels(NamedTuple):
    """Standard deviations and masks for the pixel pairs of a plane.

    Attributes:
        s1: standard deviations of the fixed side, 0 outside the images.
        s2: standard deviations of the moving side.
        rows: (rows, 1), 1 inside both images, else 0.
        columns: (1, columns * lanes) likewise.
    """

    s1: Fixed
    s2: Moving
    rows: jax.Array
    columns: jax.Array

    def deviations(self, lanes: int) -> tuple[jax.Array, jax.Array]:
        """Both sides' deviations (rows, columns * lanes)."""
        shape = (len(self.rows), self.columns.shape[1])
        return self.s1.over(lanes, shape[1]), self.s2.part(shape)


def box(plane: jax.Array, size: int, lanes: int) -> jax.Array:
    """Sums over `size` x `size` windows; the result has size - 1 fewer rows and columns."""
    rows = plane.shape[0] - size + 1
    columns = plane.shape[1] - (size - 1) * lanes
    summed = sum(plane[i : i + rows] for i in range(1, size)) + plane[:rows]
    shifted = (summed[:, i * lanes : i * lanes + columns] for i in range(1, size))
    return sum(shifted) + summed[:, :columns]


def as_one_block(always_true: jax.Array, fn: Callable, *args: Any) -> Any:
    """`fn(*args)`, compiled as one block that writes its results to memory once.

    XLA on CPUs otherwise fuses each stage into every element that reads it and computes it nine
    times (it drops `optimization_barrier` before fusing). It does not fuse across a branch on a
    run-time value. `always_true` must be such a value; the other branch returns NaN.
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
    """Planes K and T (rows, columns * lanes) after a convolution and a ReLU.

    The result has size - 1 fewer rows and columns. `t` is None where the tangent kernel is still
    zero (the input images).
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
    """The planes after the ReLU, and c, D and u (if `keep`) for the backward pass."""
    scale = op.weight / op.size**2

    def correlate(k: jax.Array, pixels: Pixels) -> tuple[jax.Array, jax.Array]:
        b = scale * box(k, op.size, lanes) + op.bias
        s1, s2 = pixels.deviations(lanes)
        c = relu.correlation(b, s1 * s2)
        return c, relu.derivative_kernel(c) * (pixels.rows * pixels.columns)

    def rectify(
        t: jax.Array | None, c: jax.Array, d: jax.Array, pixels: Pixels
    ) -> tuple[jax.Array, jax.Array, jax.Array | None]:
        s1, s2 = pixels.deviations(lanes)
        q = s1 * s2
        u = op.alpha * (c * q) + op.beta
        if t is not None:
            u = u + scale * box(t, op.size, lanes)
        return q * (c * d + relu.half_sine(c)), u * d, u if keep else None

    c, d = as_one_block(always_true, correlate, k, pixels)
    k_out, t_out, u = as_one_block(always_true, rectify, t, c, d, pixels)
    return (k_out, t_out), (c, d, u)


def _conv_relu_fwd(op: LinearOp, lanes: int, *args: Any) -> tuple:
    always_true, k, t, pixels = jax.tree.map(lambda a: a.value, args, is_leaf=is_primal)
    out, saved = _conv_relu_forward(op, lanes, always_true, k, t, pixels, keep=True)
    # The tree structure encodes whether s2 needs a gradient: () for yes, None for no.
    asked = () if args[3].s2.map.perturbed else None
    return out, (always_true, *saved, pixels, None if t is None else (), asked)


def _conv_relu_bwd(op: LinearOp, lanes: int, residuals: tuple, cotangents: tuple) -> tuple:
    always_true, c, d, u, pixels, had_t, asked = residuals
    scale = op.weight / op.size**2

    def rectify(
        gk: jax.Array, gt: jax.Array, c: jax.Array, d: jax.Array, u: jax.Array, pixels: Pixels
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | None]:
        s1, s2 = pixels.deviations(lanes)
        gu = gt * d
        slope = gt * u * relu.derivative_slope(c, s1 * s2)
        gb = gk * d + slope + op.alpha * gu
        gq = gk * relu.half_sine(c) - slope * c
        of_s1 = pixels.s1.gather(lanes, gq * s2)
        of_s2 = None if asked is None else gq * s1
        return _surround(gb, op.size, lanes), _surround(gu, op.size, lanes), of_s1, of_s2

    def correlate(gb: jax.Array, gu: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        return scale * box(gb, op.size, lanes), None if had_t is None else scale * box(
            gu, op.size, lanes
        )

    gk, gt = (instantiated(g) for g in cotangents)
    gb, gu, gs1, gs2 = as_one_block(always_true, rectify, gk, gt, c, d, u, pixels)
    gk, gt = as_one_block(always_true, correlate, gb, gu)
    of_s2: Any = None if gs2 is None else pixels.s2.put(gs2)
    none: Any = None
    return none, gk, gt, Pixels(Fixed(gs1), Moving(of_s2, none), none, none)


conv_relu.defvjp(_conv_relu_fwd, _conv_relu_bwd, symbolic_zeros=True)


def is_primal(x: Any) -> bool:
    """Whether `x` is an argument of a custom gradient's forward pass."""
    return isinstance(x, jax.custom_derivatives.CustomVJPPrimal)


def instantiated(g: Any) -> jax.Array:
    """A cotangent as an array, even if it is a symbolic zero."""
    if isinstance(g, jax.custom_derivatives.SymbolicZero):
        return jnp.zeros(g.shape, g.dtype)
    return g


def _surround(plane: jax.Array, size: int, lanes: int) -> jax.Array:
    """The plane with size - 1 zeros on each side, so that `box` of it is the transpose of `box`."""
    edge = size - 1
    return jnp.pad(plane, ((edge, edge), (edge * lanes, edge * lanes)))


def windows(plane: jax.Array, level: KernelLevel, lanes: int) -> jax.Array:
    """The windows that end a level: (height, width * lanes) as (rows, size, columns, size, lanes).

    A stride keeps one pixel per step (size 1); pooling windows lie side by side.
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


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def mean_product(
    lanes: int, shape: tuple[int, ...], always_true: jax.Array, image1: Fixed, image2: Moving
) -> jax.Array:
    """Mean over channels of image1 times the part `shape` (C, rows, columns * lanes) of image2."""

    def mean(image1: Fixed, image2: Moving) -> jax.Array:
        # Written out, since XLA on CPUs does not vectorise a reduction over the first axis.
        x, y = image1.over(lanes, shape[-1]), image2.part(shape)
        return functools.reduce(jnp.add, [a * b for a, b in zip(x, y, strict=True)]) / len(x)

    return as_one_block(always_true, mean, image1, image2)


def _mean_product_fwd(lanes: int, shape: tuple[int, ...], *args: Any) -> tuple:
    always_true, image1, image2 = jax.tree.map(lambda a: a.value, args, is_leaf=is_primal)
    asked = () if args[2].map.perturbed else None
    return mean_product(lanes, shape, always_true, image1, image2), (image1, image2, asked)


def _mean_product_bwd(lanes: int, shape: tuple[int, ...], residuals: tuple, g: Any) -> tuple:
    image1, image2, asked = residuals
    share = instantiated(g) / shape[0]
    of_image1 = image1.gather(lanes, share * image2.part(shape))
    none: Any = None
    of_image2 = none if asked is None else image2.put(share * image1.over(lanes, shape[-1]))
    return none, Fixed(of_image1), Moving(of_image2, none)


mean_product.defvjp(_mean_product_fwd, _mean_product_bwd, symbolic_zeros=True)


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
