"""The backward pass of one row of a plane: recompute it and its operands, then transpose.

The names are those of `rows`; `g` is a cotangent. The recomputation keeps four numbers per pixel
pair: the correlation c, D(c) with the factor of the result, sqrt(1 - c^2), and the slope
U r / sqrt(1 - c^2) (0 for equal patches). At the first ReLU the slope is c / sqrt(1 - c^2), and c
itself is not kept.

The cotangents of the deviations s1 do not contain the factor of s1.
"""

import math
from typing import Any

from kip_flax.kernels.cpu.compiled import inlined, loop
from kip_flax.kernels.cpu.correlation import (
    derivative_kernel,
    derivative_kernel_of_positive,
    estimated_sine,
    reciprocal_sine,
)
from kip_flax.kernels.cpu.outlets import Rows, cotangent_pair
from kip_flax.kernels.cpu.rows import Coefficients, Deviations
from kip_flax.kernels.cpu.vectors import fma, load, negative_fma, splat, stay_apart, store
from kip_flax.kernels.cpu.windows import column, windows

_HALF_OVER_PI = 0.5 / math.pi


@loop
def add_image_gradient(around: Any, image2: Any, channels: int, out: Any, count: int) -> None:
    """Adds the transpose of `windows.mean_product` in the fixed image, at the window sums."""
    stay_apart()
    ga, gb = column(around, -1), column(around, 0)
    for i in range(count):
        gc = column(around, i + 1)
        here, j = windows(around, ga, gb, gc, gc)[0], i * channels
        ga, gb = gb, gc
        if channels == 3:
            store(out, j, fma(here, load(image2, j), load(out, j)))
            store(out, j + 1, fma(here, load(image2, j + 1), load(out, j + 1)))
            store(out, j + 2, fma(here, load(image2, j + 2), load(out, j + 2)))
        else:
            for j in range(i * channels, (i + 1) * channels):
                store(out, j, fma(here, load(image2, j), load(out, j)))


@loop
def summed(around: Any, out: Any, count: int) -> None:
    """Writes the sums over windows: the transpose of a convolution's reads."""
    stay_apart()
    a, b = column(around, -1), column(around, 0)
    for i in range(0, count, 2):
        c, d = column(around, i + 1), column(around, i + 2)
        one, two = windows(around, a, b, c, d)
        store(out, i, one)
        if i + 1 < count:
            store(out, i + 1, two)
        a, b = c, d


@loop
def rectified_back(
    around_gk: Any,
    around_gt: Any,
    kept: Any,
    coefficients: Coefficients,
    s2: Any,
    gb: Any,
    gu: Any,
    gs: Any,
    count: int,
    tangent: bool,
) -> None:
    """Writes the cotangents of the window sums before a ReLU, given those of the sums after it.

    `gb` and `gu` take those of K's and T's sums; those of the deviations are added to `gs`.
    """
    stay_apart()
    alpha, share = splat(gb, coefficients.alpha), splat(gb, coefficients.factor * _HALF_OVER_PI)
    ka, kb = column(around_gk, -1), column(around_gk, 0)
    ta, tb = column(around_gt, -1), column(around_gt, 0)
    if tangent:
        for i in range(count):
            kc, tc = column(around_gk, i + 1), column(around_gt, i + 1)
            gk = windows(around_gk, ka, kb, kc, kc)[0]
            gt = windows(around_gt, ta, tb, tc, tc)[0]
            ka, kb, ta, tb = kb, kc, tb, tc
            d = load(kept[1], i)
            gu_ = gt * d
            slope = gt * load(kept[3], i)
            gq = negative_fma(slope, load(kept[0], i), gk * load(kept[2], i))
            store(gb, i, fma(slope, share, fma(gk, d, alpha * gu_)))
            store(gu, i, gu_)
            store(gs, i, fma(gq, load(s2, i), load(gs, i)))
    else:
        for i in range(count):
            kc = column(around_gk, i + 1)
            gk = windows(around_gk, ka, kb, kc, kc)[0]
            ka, kb = kb, kc
            store(gb, i, gk * load(kept[1], i))
            store(gs, i, fma(gk * load(kept[2], i), load(s2, i), load(gs, i)))


@loop
def first_back(
    around_gk: Any,
    around_gt: Any,
    kept: Any,
    coefficients: Coefficients,
    s2: Any,
    gb: Any,
    gs: Any,
    count: int,
) -> None:
    """`rectified_back` for `rows.rectified_first`: U's cotangent is part of B's."""
    stay_apart()
    share = splat(gb, coefficients.factor * _HALF_OVER_PI)
    ka, kb = column(around_gk, -1), column(around_gk, 0)
    ta, tb = column(around_gt, -1), column(around_gt, 0)
    for i in range(0, count, 2):
        kc, kd = column(around_gk, i + 1), column(around_gk, i + 2)
        tc, td = column(around_gt, i + 1), column(around_gt, i + 2)
        gk, gk_two = windows(around_gk, ka, kb, kc, kd)
        gt, gt_two = windows(around_gt, ta, tb, tc, td)
        ka, kb, ta, tb = kc, kd, tc, td
        _first_back(gk, gt, kept, share, s2, gb, gs, i)
        if i + 1 < count:
            _first_back(gk_two, gt_two, kept, share, s2, gb, gs, i + 1)


@inlined
def _first_back(gk: Any, gt: Any, kept: Any, share: Any, s2: Any, gb: Any, gs: Any, i: int) -> None:
    sine, tangent = load(kept[2], i), load(kept[3], i)  # c is their product.
    slope = gt * tangent
    store(gb, i, fma(slope, share, (gk + gt) * load(kept[1], i)))
    gq = negative_fma(slope, tangent, gk) * sine
    store(gs, i, fma(gq, load(s2, i), load(gs, i)))


@loop
def rectified_later_forward_back(
    around_k: Any,
    around_t: Any,
    coefficients: Coefficients,
    deviations: Deviations,
    source: Any,
    gb: Any,
    gu: Any,
    gs: Any,
    count: int,
) -> None:
    """`rows.rectified_later` and `rectified_back` in one, for the last stage of a level.

    The cotangents of its result come from `source`: see `outlets`.
    """
    stay_apart()
    bias, factor = splat(gb, coefficients.bias), splat(gb, coefficients.factor)
    share = splat(gb, coefficients.factor * _HALF_OVER_PI)
    ka, kb = column(around_k, -1), column(around_k, 0)
    ta, tb = column(around_t, -1), column(around_t, 0)
    for i in range(0, count, 2):
        kc, kd = column(around_k, i + 1), column(around_k, i + 2)
        tc, td = column(around_t, i + 1), column(around_t, i + 2)
        one, two = windows(around_k, ka, kb, kc, kd)
        u_one, u_two = windows(around_t, ta, tb, tc, td)
        ka, kb, ta, tb = kc, kd, tc, td
        one, two = one + bias, two + bias
        gk, gt, gk_two, gt_two = cotangent_pair(source, i)
        _forward_back(one, u_one + one, gk, gt, factor, share, deviations, gb, gu, gs, i)
        if i + 1 < count:
            _forward_back(
                two, u_two + two, gk_two, gt_two, factor, share, deviations, gb, gu, gs, i + 1
            )


@inlined
def _forward_back(
    b: Any,
    u: Any,
    gk: Any,
    gt: Any,
    factor: Any,
    share: Any,
    deviations: Deviations,
    gb: Any,
    gu: Any,
    gs: Any,
    i: int,
) -> None:
    r = load(deviations.r1, i) * load(deviations.r2, i)
    c = b * r
    sine = estimated_sine(c)
    d = derivative_kernel_of_positive(c, sine, factor)
    gu_ = gt * d
    slope = gt * u * (r * reciprocal_sine(c))
    gq = negative_fma(slope, c, gk * sine)
    store(gb, i, fma(slope, share, fma(gk, d, gu_)))
    store(gu, i, gu_)
    store(gs, i, fma(gq, load(deviations.s2, i), load(gs, i)))


@loop
def rectified_forward_back(
    around_k: Any,
    around_t: Any,
    coefficients: Coefficients,
    deviations: Deviations,
    source: Rows,
    gb: Any,
    gu: Any,
    gs: Any,
    count: int,
    tangent: bool,
) -> None:
    """`rows.rectified` and `rectified_back` in one, for the last stage of a level."""
    stay_apart()
    bias, factor = splat(gb, coefficients.bias), splat(gb, coefficients.factor)
    alpha, beta = splat(gb, coefficients.alpha), splat(gb, coefficients.beta)
    share = splat(gb, coefficients.factor * _HALF_OVER_PI)
    ka, kb = column(around_k, -1), column(around_k, 0)
    ta, tb = column(around_t, -1), column(around_t, 0)
    for i in range(count):
        kc = column(around_k, i + 1)
        b = windows(around_k, ka, kb, kc, kc)[0] + bias
        ka, kb = kb, kc
        r = load(deviations.r1, i) * load(deviations.r2, i)
        c = b * r
        sine = estimated_sine(c)
        d = derivative_kernel(c, sine, factor)
        gk = load(source.k, i)
        gq, gb_ = gk * sine, gk * d
        if tangent:
            tc = column(around_t, i + 1)
            u = windows(around_t, ta, tb, tc, tc)[0] + fma(b, alpha, beta)
            ta, tb = tb, tc
            gt = load(source.t, i)
            gu_ = gt * d
            slope = gt * u * (r * reciprocal_sine(c))
            gq = negative_fma(slope, c, gq)
            gb_ = fma(slope, share, fma(alpha, gu_, gb_))
            store(gu, i, gu_)
        store(gb, i, gb_)
        store(gs, i, fma(gq, load(deviations.s2, i), load(gs, i)))


@loop
def convolved_back(
    around_gk: Any,
    around_gt: Any,
    coefficients: Coefficients,
    gb: Any,
    gu: Any,
    count: int,
    tangent: bool,
) -> None:
    """The transpose of `rows.convolved`."""
    alpha, factor = splat(gb, coefficients.alpha), splat(gb, coefficients.factor)
    ka, kb = column(around_gk, -1), column(around_gk, 0)
    ta, tb = column(around_gt, -1), column(around_gt, 0)
    for i in range(count):
        kc = column(around_gk, i + 1)
        gb_ = factor * windows(around_gk, ka, kb, kc, kc)[0]
        ka, kb = kb, kc
        if tangent:
            tc = column(around_gt, i + 1)
            gu_ = factor * windows(around_gt, ta, tb, tc, tc)[0]
            ta, tb = tb, tc
            gb_ = fma(alpha, gu_, gb_)
            store(gu, i, gu_)
        store(gb, i, gb_)
