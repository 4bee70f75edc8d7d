"""The backward pass of one row of a plane: recomputed with what it keeps, then transposed.

The names are those of `rows`; `g` is a cotangent. Four numbers a pixel pair are kept from the
recomputation: the correlation c, D(c), sqrt(1 - c^2), and the slope U r / sqrt(1 - c^2) (0 for
equal patches), U being the tangent kernel before the ReLU.

Constant factors are left out on the way: cotangents come out divided by the `factor` of the stage,
and those of deviations times 2 pi.
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
from kip_flax.kernels.cpu.rows import column, windows
from kip_flax.kernels.cpu.vectors import (
    fma,
    load,
    negative_fma,
    splat,
    stay_apart,
    store,
)

_HALF_OVER_PI = 0.5 / math.pi


@loop
def add_image_gradient(around: Any, image2: Any, channels: int, out: Any, count: int) -> None:
    """The transpose of `rows.mean_product` in the fixed image, of the sums of windows."""
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
    """The sums of windows, written down: the transpose of what a convolution reads."""
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
def rectified_first(
    around_k: Any,
    scale: float,
    bias: float,
    s1: Any,
    r1: Any,
    s2: Any,
    r2: Any,
    k: Any,
    t: Any,
    kept: Any,
    count: int,
) -> None:
    """`rows.rectified_first`, which also keeps what the derivatives need in the rows `kept`."""
    stay_apart()
    scale_, bias_ = splat(k, scale), splat(k, bias)
    ka, kb = column(around_k, -1), column(around_k, 0)
    for i in range(0, count, 2):
        kc, kd = column(around_k, i + 1), column(around_k, i + 2)
        one, two = windows(around_k, ka, kb, kc, kd)
        ka, kb = kc, kd
        _first(fma(one, scale_, bias_), s1, r1, s2, r2, k, t, kept, i)
        if i + 1 < count:
            _first(fma(two, scale_, bias_), s1, r1, s2, r2, k, t, kept, i + 1)


@inlined
def _first(b: Any, s1: Any, r1: Any, s2: Any, r2: Any, k: Any, t: Any, kept: Any, i: int) -> None:
    r = load(r1, i) * load(r2, i)
    c = b * r
    sine = estimated_sine(c)
    d = derivative_kernel(c, sine)
    store(kept[0], i, c)
    store(kept[1], i, d)
    store(kept[2], i, sine)
    store(kept[3], i, b * r * reciprocal_sine(c))
    store(k, i, fma(b, d, load(s1, i) * load(s2, i) * sine))
    store(t, i, b * d)


@loop
def rectified_later(
    around_k: Any,
    around_t: Any,
    scale: float,
    bias: float,
    s1: Any,
    r1: Any,
    s2: Any,
    r2: Any,
    k: Any,
    t: Any,
    kept: Any,
    count: int,
) -> None:
    """`rows.rectified_later`, which also keeps what the derivatives need in the rows `kept`."""
    stay_apart()
    scale_, bias_ = splat(k, scale), splat(k, bias)
    ka, kb = column(around_k, -1), column(around_k, 0)
    ta, tb = column(around_t, -1), column(around_t, 0)
    for i in range(0, count, 2):
        kc, kd = column(around_k, i + 1), column(around_k, i + 2)
        tc, td = column(around_t, i + 1), column(around_t, i + 2)
        one, two = windows(around_k, ka, kb, kc, kd)
        t_one, t_two = windows(around_t, ta, tb, tc, td)
        ka, kb, ta, tb = kc, kd, tc, td
        b = fma(one, scale_, bias_)
        _later(b, fma(t_one, scale_, b), s1, r1, s2, r2, k, t, kept, i)
        if i + 1 < count:
            b = fma(two, scale_, bias_)
            _later(b, fma(t_two, scale_, b), s1, r1, s2, r2, k, t, kept, i + 1)


@inlined
def _later(
    b: Any, u: Any, s1: Any, r1: Any, s2: Any, r2: Any, k: Any, t: Any, kept: Any, i: int
) -> None:
    r = load(r1, i) * load(r2, i)
    c = b * r
    sine = estimated_sine(c)
    d = derivative_kernel_of_positive(c, sine)
    store(kept[0], i, c)
    store(kept[1], i, d)
    store(kept[2], i, sine)
    store(kept[3], i, u * r * reciprocal_sine(c))
    store(k, i, fma(b, d, load(s1, i) * load(s2, i) * sine))
    store(t, i, u * d)


@loop
def rectified(
    around_k: Any,
    around_t: Any,
    scale: float,
    bias: float,
    alpha: float,
    beta: float,
    s1: Any,
    r1: Any,
    s2: Any,
    r2: Any,
    k: Any,
    t: Any,
    kept: Any,
    count: int,
    tangent: bool,
) -> None:
    """`rows.rectified`, which also keeps what the derivatives need in the rows `kept`."""
    stay_apart()
    scale_, bias_ = splat(k, scale), splat(k, bias)
    alpha_, beta_ = splat(k, alpha), splat(k, beta)
    ka, kb = column(around_k, -1), column(around_k, 0)
    ta, tb = column(around_t, -1), column(around_t, 0)
    for i in range(count):
        kc = column(around_k, i + 1)
        b = fma(windows(around_k, ka, kb, kc, kc)[0], scale_, bias_)
        ka, kb = kb, kc
        r = load(r1, i) * load(r2, i)
        c = b * r
        sine = estimated_sine(c)
        d = derivative_kernel(c, sine)
        store(kept[0], i, c)
        store(kept[1], i, d)
        store(kept[2], i, sine)
        store(k, i, fma(b, d, load(s1, i) * load(s2, i) * sine))
        if tangent:
            tc = column(around_t, i + 1)
            u = fma(windows(around_t, ta, tb, tc, tc)[0], scale_, fma(b, alpha_, beta_))
            ta, tb = tb, tc
            store(kept[3], i, u * r * reciprocal_sine(c))
            store(t, i, u * d)


@loop
def rectified_back(
    around_gk: Any,
    around_gt: Any,
    kept: Any,
    alpha: float,
    s2: Any,
    gb: Any,
    gu: Any,
    gs: Any,
    count: int,
    tangent: bool,
) -> None:
    """Cotangents of what `windows` sum of K and T, from those of the windows after the ReLU.

    Those of the deviations are added to `gs`.
    """
    stay_apart()
    alpha_, half_over_pi = splat(gb, alpha), splat(gb, _HALF_OVER_PI)
    ka, kb = column(around_gk, -1), column(around_gk, 0)
    ta, tb = column(around_gt, -1), column(around_gt, 0)
    if tangent:
        for i in range(count):
            kc, tc = column(around_gk, i + 1), column(around_gt, i + 1)
            gk_ = windows(around_gk, ka, kb, kc, kc)[0]
            gt_ = windows(around_gt, ta, tb, tc, tc)[0]
            ka, kb, ta, tb = kb, kc, tb, tc
            d = load(kept[1], i)
            gu_ = gt_ * d
            slope = gt_ * load(kept[3], i)
            gq = negative_fma(slope, load(kept[0], i), gk_ * load(kept[2], i))
            store(gb, i, fma(slope, half_over_pi, fma(gk_, d, alpha_ * gu_)))
            store(gu, i, gu_)
            store(gs, i, fma(gq, load(s2, i), load(gs, i)))
    else:
        for i in range(count):
            kc = column(around_gk, i + 1)
            gk_ = windows(around_gk, ka, kb, kc, kc)[0]
            ka, kb = kb, kc
            store(gb, i, gk_ * load(kept[1], i))
            store(gs, i, fma(gk_ * load(kept[2], i), load(s2, i), load(gs, i)))


@loop
def turned_later(
    around_k: Any,
    around_t: Any,
    scale: float,
    bias: float,
    r1: Any,
    s2: Any,
    r2: Any,
    gk: Any,
    gt: Any,
    gb: Any,
    gu: Any,
    gs: Any,
    count: int,
) -> None:
    """`rectified_later` and `rectified_back` in one, for the last stage of a level."""
    stay_apart()
    scale_, bias_ = splat(gb, scale), splat(gb, bias)
    half_over_pi = splat(gb, _HALF_OVER_PI)
    ka, kb = column(around_k, -1), column(around_k, 0)
    ta, tb = column(around_t, -1), column(around_t, 0)
    for i in range(count):
        kc, tc = column(around_k, i + 1), column(around_t, i + 1)
        b = fma(windows(around_k, ka, kb, kc, kc)[0], scale_, bias_)
        u = fma(windows(around_t, ta, tb, tc, tc)[0], scale_, b)
        ka, kb, ta, tb = kb, kc, tb, tc
        r = load(r1, i) * load(r2, i)
        c = b * r
        sine = estimated_sine(c)
        d = derivative_kernel_of_positive(c, sine)
        gk_, gt_ = load(gk, i), load(gt, i)
        gu_ = gt_ * d
        slope = gt_ * u * (r * reciprocal_sine(c))
        gq = negative_fma(slope, c, gk_ * sine)
        store(gb, i, fma(slope, half_over_pi, fma(gk_, d, gu_)))
        store(gu, i, gu_)
        store(gs, i, fma(gq, load(s2, i), load(gs, i)))


@loop
def turned(
    around_k: Any,
    around_t: Any,
    scale: float,
    bias: float,
    alpha: float,
    beta: float,
    r1: Any,
    s2: Any,
    r2: Any,
    gk: Any,
    gt: Any,
    gb: Any,
    gu: Any,
    gs: Any,
    count: int,
    tangent: bool,
) -> None:
    """`rectified` and `rectified_back` in one, for the last stage of a level."""
    stay_apart()
    scale_, bias_ = splat(gb, scale), splat(gb, bias)
    alpha_, beta_ = splat(gb, alpha), splat(gb, beta)
    half_over_pi = splat(gb, _HALF_OVER_PI)
    ka, kb = column(around_k, -1), column(around_k, 0)
    ta, tb = column(around_t, -1), column(around_t, 0)
    for i in range(count):
        kc = column(around_k, i + 1)
        b = fma(windows(around_k, ka, kb, kc, kc)[0], scale_, bias_)
        ka, kb = kb, kc
        r = load(r1, i) * load(r2, i)
        c = b * r
        sine = estimated_sine(c)
        d = derivative_kernel(c, sine)
        gk_ = load(gk, i)
        gq, gb_ = gk_ * sine, gk_ * d
        if tangent:
            tc = column(around_t, i + 1)
            u = fma(windows(around_t, ta, tb, tc, tc)[0], scale_, fma(b, alpha_, beta_))
            ta, tb = tb, tc
            gt_ = load(gt, i)
            gu_ = gt_ * d
            slope = gt_ * u * (r * reciprocal_sine(c))
            gq = negative_fma(slope, c, gq)
            gb_ = fma(slope, half_over_pi, fma(alpha_, gu_, gb_))
            store(gu, i, gu_)
        store(gb, i, gb_)
        store(gs, i, fma(gq, load(s2, i), load(gs, i)))


@loop
def convolved_back(
    around_gk: Any,
    around_gt: Any,
    alpha: float,
    gb: Any,
    gu: Any,
    count: int,
    tangent: bool,
) -> None:
    """The transpose of `rows.convolved`."""
    alpha_ = splat(gb, alpha)
    ka, kb = column(around_gk, -1), column(around_gk, 0)
    ta, tb = column(around_gt, -1), column(around_gt, 0)
    for i in range(count):
        kc = column(around_gk, i + 1)
        gb_ = windows(around_gk, ka, kb, kc, kc)[0]
        ka, kb = kb, kc
        if tangent:
            tc = column(around_gt, i + 1)
            gt_ = windows(around_gt, ta, tb, tc, tc)[0]
            ta, tb = tb, tc
            gb_ = fma(alpha_, gt_, gb_)
            store(gu, i, gt_)
        store(gb, i, gb_)
