"""The kernel of pairs of images by the distance of their features, for nearly equal images.

The program carries D = (a + b) / 2 - k12 in the place of the covariance k12; a and b are the
variances of the two pixels. D keeps its digits where k12 is nearly equal to a and b. Convolutions
and dense layers are linear in it. A pool is not: its D is again a difference of means, so that
pairs of float32 (`runtime.pair_program`) have to carry it where there is no float64.

A pixel pair is a pixel (h, w) and the offset to the other one, as in `kernels.plan`. The program is
kept small, for it grows thirty times in pairs: all offsets are one axis, and the pairs within
either image, which pools need, are pairs of images like the others.
"""

from functools import partial, reduce
from operator import add
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from kip_flax.kernels.options import Kernel
from kip_flax.kernels.plan import KernelLevel, KernelPlan, LinearOp

_HALF_OVER_PI = 0.5 / jnp.pi


class Pairs(NamedTuple):
    """Pairs of images at one layer: m pairs, or three times as many where their own are needed.

    The order is then: of each first image with itself, of both, of each second image with itself.

    Attributes:
        v1, v2: variances of the pixels, (m, H, W); in the head (m,).
        d: distance of pixel pairs, (m, H, W, offsets); in the head (m,). Where the second pixel is
            outside its image, it has no meaning.
        t: tangent kernel, like `d`.
    """

    v1: Array
    v2: Array
    d: Array
    t: Array


def make_carried(plan: KernelPlan, get: str) -> Kernel:
    """`paired(x1, x2)` -> (m,): the entry of each of m pairs of images, 'ntk' or 'nngp'."""

    def paired(x1: Array, x2: Array) -> Array:
        pairs = _planes(plan, x1, x2) if plan.convolutional else _vectors(x1, x2)
        for op in plan.head:
            if isinstance(op, LinearOp):
                v1, v2 = (op.weight * v + op.bias for v in (pairs.v1, pairs.v2))
                d = op.weight * pairs.d
                t = op.alpha * ((v1 + v2) / 2 - d) + op.beta + op.weight * pairs.t
            else:
                d, t = relu(pairs.d, pairs.t, pairs.v1, pairs.v2)
                v1, v2 = pairs.v1 / 2, pairs.v2 / 2
            pairs = _written_once(Pairs(v1, v2, d, t))
        return pairs.t if get == "ntk" else (pairs.v1 + pairs.v2) / 2 - pairs.d

    return paired


def pixel_pairs(plan: KernelPlan) -> int:
    """Pixel pairs of the first level, which has most, that a pair of images takes."""
    level = plan.levels[0]
    offsets = (2 * level.band[0] + 1) * (2 * level.band[1] + 1)
    return (3 if _needs_own(plan) else 1) * level.height * level.width * offsets


def _needs_own(plan: KernelPlan) -> bool:
    """Whether a pool needs the pixel pairs within either image."""
    return len(plan.levels) > 1 or plan.global_pool


def _written_once(pairs: Pairs) -> Pairs:
    """Keeps XLA from computing it anew wherever it is read."""
    return lax.optimization_barrier(pairs)


def _vectors(x1: Array, x2: Array) -> Pairs:
    """Images that a network flattens before anything else."""
    a, b = (x.reshape(len(x), -1) for x in (x1, x2))
    v1, v2, d = (jnp.mean(x * x, axis=-1) for x in (a, b, a - b))
    return Pairs(v1, v2, d / 2, jnp.zeros_like(d))


def _planes(plan: KernelPlan, x1: Array, x2: Array) -> Pairs:
    """The vectors that enter the head, from images."""
    if own := _needs_own(plan):
        x1, x2 = jnp.concatenate([x1, x1, x2]), jnp.concatenate([x1, x2, x2])
    v1, v2 = (jnp.mean(x * x, axis=-1) for x in (x1, x2))
    d = _distances(x1, x2, plan.levels[0].band)
    pairs = Pairs(v1, v2, d, jnp.zeros_like(d))
    for level, after in zip(plan.levels, (*plan.levels[1:], None), strict=True):
        for op in level.ops:
            if isinstance(op, LinearOp):
                pairs = _conv(op, level.band, pairs)
            else:
                d, t = relu(pairs.d, pairs.t, *_of_both(pairs.v1, pairs.v2, level.band))
                pairs = Pairs(pairs.v1 / 2, pairs.v2 / 2, d, t)
            pairs = _written_once(pairs)
        if after is not None:
            pairs = _pooled(level, after, pairs)
    pairs = _averaged(pairs, level.band) if plan.global_pool else _flattened(pairs)
    return Pairs(*(jnp.split(x, 3)[1] for x in pairs)) if own else pairs


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _at_offsets(maps: Array, band: tuple[int, int]) -> Array:
    """Maps (m, H, W) at the second pixel of every pair, (m, H, W, offsets); 0 outside.

    The column offset goes through the row offsets first.
    """
    height, width = maps.shape[1:]
    rows, columns = band
    once = lax.optimization_barrier
    maps = once(jnp.pad(maps, ((0, 0), (rows, rows), (columns, columns))))
    maps = once(jnp.stack([maps[:, i : i + height] for i in range(2 * rows + 1)], axis=-1))
    parts = [maps[:, :, i : i + width] for i in range(2 * columns + 1)]
    return once(jnp.concatenate(parts, axis=-1))


def _at_offsets_bwd(band: tuple[int, int], _: None, cotangent: Array) -> tuple[Array]:
    """As sums over an axis: in pairs they are a smaller program than as many adds."""
    rows, columns = band
    for axis, reach in ((2, columns), (1, rows)):
        size = cotangent.shape[axis]
        parts = jnp.split(cotangent, 2 * reach + 1, axis=3)
        padded = []
        for i, part in enumerate(parts):
            edges = [(0, 0)] * 4
            edges[axis] = (i, 2 * reach - i)
            padded.append(jnp.pad(part, edges))
        total = lax.optimization_barrier(jnp.sum(jnp.stack(padded), axis=0))
        cotangent = lax.slice_in_dim(total, reach, reach + size, axis=axis)
    return (cotangent[..., 0],)


_at_offsets.defvjp(lambda maps, band: (_at_offsets(maps, band), None), _at_offsets_bwd)


def _of_both(v1: Array, v2: Array, band: tuple[int, int]) -> tuple[Array, Array]:
    """Maps (m, H, W) of first and second images, for every pixel pair."""
    second = _at_offsets(v2, band)
    return jnp.broadcast_to(v1[..., None], second.shape), second


def _distances(x1: Array, x2: Array, band: tuple[int, int]) -> Array:
    """Half the mean square of the difference of pixels, from images (m, H, W, C)."""
    channels = x1.shape[-1]
    one, two = (jnp.moveaxis(x, -1, 0).reshape(-1, *x.shape[1:3]) for x in (x1, x2))
    difference = one[..., None] - _at_offsets(two, band)
    squares = (difference * difference).reshape(channels, len(x1), *difference.shape[1:])
    return jnp.sum(squares, axis=0) / (2 * channels)


def _conv(op: LinearOp, band: tuple[int, int], pairs: Pairs) -> Pairs:
    edge = op.size // 2
    one, two = (_pad(v, edge) for v in (pairs.v1, pairs.v2))
    first, second = _of_both(one, two, band)
    inside = _pad(jnp.ones(pairs.v1.shape, bool), edge)
    inside = inside[..., None] & _at_offsets(inside, band)
    # A pixel that zeros replace is half of the other pixel's variance away from it.
    d = jnp.where(inside, _pad(pairs.d, edge), (first + second) / 2)
    t = jnp.where(inside, _pad(pairs.t, edge), 0)
    v1, v2, d, t = (op.weight * _window_mean(x, op.size) for x in (one, two, d, t))
    v1, v2 = v1 + op.bias, v2 + op.bias
    first, second = _of_both(v1, v2, band)
    return Pairs(v1, v2, d, op.alpha * ((first + second) / 2 - d) + op.beta + t)


def _pad(x: Array, edge: int) -> Array:
    """`edge` rows and columns of zeros around arrays (m, H, W, ...)."""
    return jnp.pad(x, [(0, 0), (edge, edge), (edge, edge)] + [(0, 0)] * (x.ndim - 3))


def _window_mean(x: Array, size: int) -> Array:
    """Means over windows of (m, H, W, ...); the result is size - 1 smaller."""
    height, width = x.shape[1] - size + 1, x.shape[2] - size + 1
    x = lax.optimization_barrier(reduce(add, [x[:, i : i + height] for i in range(size)]))
    x = lax.optimization_barrier(reduce(add, [x[:, :, i : i + width] for i in range(size)]))
    return x / size**2


def _pooled(level: KernelLevel, after: KernelLevel, pairs: Pairs) -> Pairs:
    """The pairs that enter the next level: averages over windows, or every `step`-th pixel.

    A window's variance is the mean of its covariances with itself.
    """
    v1, v2 = (_window_means(level, after, v) for v in (pairs.v1, pairs.v2))
    d, t = (_pair_means(level, after, x) for x in (pairs.d, pairs.t))
    centre = d.shape[-1] // 2
    own1, own2 = _own(d[..., centre])
    first, second = _of_both(own1, own2, after.band)
    return _written_once(Pairs(v1 - own1, v2 - own2, d - (first + second) / 2, t))


def _own(d: Array) -> tuple[Array, Array]:
    """The distances (3 m, ...) of every pair's first image from itself, and of its second."""
    of_first, _, of_second = jnp.split(d, 3)
    return (
        jnp.concatenate([of_first, of_first, of_second]),
        jnp.concatenate([of_first, of_second, of_second]),
    )


def _window_means(level: KernelLevel, after: KernelLevel, v: Array) -> Array:
    """Means over the windows of maps (m, H, W)."""
    for axis, size in ((1, after.height), (2, after.width)):
        window = range(level.pool)
        v = reduce(
            add, [_every(v, axis, level.start[axis - 1] + a, level.step, size) for a in window]
        )
    return v / level.pool**2


def _pair_means(level: KernelLevel, after: KernelLevel, x: Array) -> Array:
    """Means over the windows of both pixels, of (m, H, W, offsets).

    At the fine offset step * d + b - a, pixel step * i + a meets pixel step * (i + d) + b. Rows
    and columns are pooled one after the other in arrays of four axes: of five with few entries
    each, a TPU's compiler can fail.
    """
    size, height, width, _ = x.shape
    rows, columns = (2 * reach + 1 for reach in level.band)
    x = jnp.transpose(x.reshape(size, height, width, columns, rows), (0, 1, 4, 2, 3))
    x = _means_along(level, after, 0, x.reshape(size, height, rows, width * columns))
    x = _means_along(level, after, 1, x.reshape(-1, width, columns))
    rows, columns = (2 * reach + 1 for reach in after.band)
    x = x.reshape(size, after.height, rows, after.width, columns)
    x = jnp.transpose(x, (0, 1, 3, 4, 2))
    return x.reshape(*x.shape[:3], rows * columns)


def _means_along(level: KernelLevel, after: KernelLevel, axis: int, x: Array) -> Array:
    """Means over the windows of rows or columns, of (n, pixels, offsets, ...) along that axis."""
    size, reach = (after.height, after.width)[axis], after.band[axis]
    first = level.band[axis] - level.step * reach
    parts = []
    for a in range(level.pool):
        pixels = _every(x, 1, level.start[axis] + a, level.step, size)
        for b in range(level.pool):
            parts.append(_every(pixels, 2, first + b - a, level.step, 2 * reach + 1))
    return lax.optimization_barrier(reduce(add, parts)) / level.pool**2


def _every(x: Array, axis: int, start: int, step: int, size: int) -> Array:
    """`size` entries of an axis, `step` apart."""
    return lax.slice_in_dim(x, start, start + step * (size - 1) + 1, step, axis)


def _averaged(pairs: Pairs, band: tuple[int, int]) -> Pairs:
    """The global average: one window over all pixels."""
    v1, v2 = (jnp.mean(v, axis=(1, 2)) for v in (pairs.v1, pairs.v2))
    inside = _at_offsets(jnp.ones(pairs.v1.shape, bool), band)
    pixels = pairs.v1.shape[1] * pairs.v1.shape[2]
    d, t = (
        jnp.sum(jnp.where(inside, x, 0), axis=(1, 2, 3)) / pixels**2 for x in (pairs.d, pairs.t)
    )
    own1, own2 = _own(d)
    return Pairs(v1 - own1, v2 - own2, d - (own1 + own2) / 2, t)


def _flattened(pairs: Pairs) -> Pairs:
    """Of the last level's pixel pairs flattening needs those at offset 0, which are all."""
    v1, v2 = (jnp.mean(v, axis=(1, 2)) for v in (pairs.v1, pairs.v2))
    d, t = (jnp.mean(x[..., 0], axis=(1, 2)) for x in (pairs.d, pairs.t))
    return Pairs(v1, v2, d, t)


@jax.custom_vjp
def relu(d: Array, t: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """Distance and tangent kernel after a ReLU; all arrays have one shape.

    Args:
        d: distance of two pre-activations.
        t: their tangent kernel before the ReLU.
        a, b: their variances, which the ReLU halves.
    """
    return _relu_fwd(d, t, a, b)[0]


def _relu_fwd(d: Array, t: Array, a: Array, b: Array) -> tuple:
    found = _angle(d, a, b)
    _, q, theta, rest = found[:4]
    share = (jnp.pi - theta) * _HALF_OVER_PI
    return (d / 2 - q * rest * _HALF_OVER_PI, t * share), (t, found)


def _relu_bwd(residuals: tuple, cotangents: tuple) -> tuple:
    t, (u, q, theta, rest, sine, s1, s2) = residuals
    gd, gt = cotangents
    share = (jnp.pi - theta) * _HALF_OVER_PI
    kink = sine == 0  # Equal or opposite patches: the subgradient 0, as in `kernels.relu`.
    of_t = jnp.where(kink, 0, gt * t / jnp.where(kink, 1, sine))
    gu = (of_t + gd * q * theta) * -_HALF_OVER_PI  # d(rest) / du is theta.
    gq = gd * rest * -_HALF_OVER_PI
    none = q == 0
    over1, over2 = (1 / jnp.where(none, 1, s) for s in (s1, s2))
    over1, over2, gu, gq = lax.optimization_barrier((over1, over2, gu, gq))
    of_d = gu * over1 * over2

    def of_variance(other: Array, own: Array, over: Array) -> Array:
        """With du / da = -(s1 - s2) / (2 s1 q) - u / (2 a)."""
        return (of_d * (other - own) + (gq * other - gu * u * over)) * over / 2

    found = (gd / 2 + of_d, of_variance(s2, s1, over1), of_variance(s1, s2, over2))
    gd, ga, gb = (jnp.where(none, x, y) for x, y in zip((gd / 2, 0, 0), found, strict=True))
    return lax.optimization_barrier((gd, gt * share, ga, gb))


def _angle(d: Array, a: Array, b: Array) -> tuple[Array, ...]:
    """Of two patches: u = 1 - cos(theta), the product of the deviations, theta,
    sin(theta) - theta cos(theta), sin(theta), and the deviations.

    Where a deviation is 0, theta is a right angle, as in `kernels.relu`.
    """
    s1, s2 = jnp.sqrt(a), jnp.sqrt(b)
    q, total = s1 * s2, s1 + s2
    apart = (a - b) / jnp.where(total == 0, 1, total)
    u = (d - apart * apart / 2) / jnp.where(q == 0, 1, q)
    u = jnp.where(q == 0, 1, jnp.clip(u, 0, 2))
    u, q, s1, s2 = lax.optimization_barrier((u, q, s1, s2))
    sine = lax.optimization_barrier(jnp.sqrt(u * (2 - u)))
    theta = jnp.arctan2(sine, 1 - u)
    return lax.optimization_barrier((u, q, theta, sine - theta * (1 - u), sine, s1, s2))


relu.defvjp(_relu_fwd, _relu_bwd)
