"""What happens to one row of a plane: the loops in which all the time goes.

A row is a vector of lanes for each of `count` pixel pairs. K is the covariance, T the tangent
kernel. `s` are standard deviations, `r` their inverses, of the pixels of the fixed side (1) and the
moving side (2); s1 comes divided by 2 pi.

A convolution reads the sums over windows of K and T. Windows of 3x3 are summed where they are
needed: `around` are the three rows above, here and below, whose columns -1 and `count` are there,
and zero. Others are summed before, by `add_window`, and `around` is one row of sums. The functions
`column` and `windows` hide the difference from the loops.
"""

from typing import Any

from numba.extending import overload

from kip_flax.kernels.cpu.compiled import inlined, loop
from kip_flax.kernels.cpu.correlation import (
    derivative_kernel,
    derivative_kernel_of_positive,
    sine_of,
)
from kip_flax.kernels.cpu.vectors import (
    fma,
    load,
    splat,
    stay_apart,
    store,
)


@loop
def clear(out: Any, count: int) -> None:
    """Zeros."""
    zero = splat(out, 0)
    for i in range(count):
        store(out, i, zero)


@loop
def fill(out: Any, value: Any, count: int) -> None:
    """One vector everywhere."""
    for i in range(count):
        store(out, i, value)


@loop
def copy(source: Any, out: Any, count: int) -> None:
    """The same numbers."""
    for i in range(count):
        store(out, i, load(source, i))


@loop
def add_total(source: Any, out: Any, count: int) -> None:
    """Adds the sum of a row to one vector."""
    total = load(out, 0)
    for i in range(count):
        total = total + load(source, i)
    store(out, 0, total)


def column(around: Any, i: int) -> Any:
    """Column `i` of a window, summed over its rows."""
    raise NotImplementedError


@overload(column)
def _column(around, i):  # type: ignore[no-untyped-def]
    if len(around) == 3:
        return lambda around, i: load(around[0], i) + load(around[1], i) + load(around[2], i)
    return lambda around, i: load(around[0], i)


def windows(around: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """The sums of two neighbouring windows from their columns."""
    raise NotImplementedError


@overload(windows)
def _windows(around, a, b, c, d):  # type: ignore[no-untyped-def]
    if len(around) == 3:

        def sums(around, a, b, c, d):  # type: ignore[no-untyped-def]
            middle = b + c
            return a + middle, middle + d

        return sums
    return lambda around, a, b, c, d: (b, c)


@loop
def add_window(source: Any, reach: int, out: Any, count: int) -> None:
    """Adds the sums of windows of 2 reach + 1 columns in one row."""
    for i in range(count):
        total = load(out, i)
        for j in range(-reach, reach + 1):
            total = total + load(source, i + j)
        store(out, i, total)


@loop
def mean_product(image1: Any, image2: Any, channels: int, out: Any, count: int) -> None:
    """K of the images themselves: the mean over channels (the fixed image is divided by C)."""
    stay_apart()
    if channels == 1:
        for i in range(count):
            store(out, i, load(image1, i) * load(image2, i))
    elif channels == 3:
        for i in range(count):
            j = 3 * i
            one = load(image1, j) * load(image2, j)
            two = fma(load(image1, j + 1), load(image2, j + 1), one)
            store(out, i, fma(load(image1, j + 2), load(image2, j + 2), two))
    else:
        for i in range(count):
            total = splat(out, 0)
            for j in range(i * channels, (i + 1) * channels):
                total = fma(load(image1, j), load(image2, j), total)
            store(out, i, total)


@loop
def convolved(
    around_k: Any,
    around_t: Any,
    scale: float,
    bias: float,
    alpha: float,
    beta: float,
    k: Any,
    t: Any,
    count: int,
    tangent: bool,
) -> None:
    """A convolution that no ReLU follows."""
    stay_apart()
    scale_, bias_ = splat(k, scale), splat(k, bias)
    alpha_, beta_ = splat(k, alpha), splat(k, beta)
    ka, kb = column(around_k, -1), column(around_k, 0)
    ta, tb = column(around_t, -1), column(around_t, 0)
    for i in range(count):
        kc = column(around_k, i + 1)
        b = fma(windows(around_k, ka, kb, kc, kc)[0], scale_, bias_)
        ka, kb = kb, kc
        store(k, i, b)
        if tangent:
            tc = column(around_t, i + 1)
            u = fma(windows(around_t, ta, tb, tc, tc)[0], scale_, fma(b, alpha_, beta_))
            ta, tb = tb, tc
            store(t, i, u)


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
    count: int,
) -> None:
    """The first convolution of a network and its ReLU ('ntk'): K of any sign, no T yet."""
    stay_apart()
    scale_, bias_ = splat(k, scale), splat(k, bias)
    ka, kb = column(around_k, -1), column(around_k, 0)
    for i in range(0, count, 2):
        kc, kd = column(around_k, i + 1), column(around_k, i + 2)
        one, two = windows(around_k, ka, kb, kc, kd)
        ka, kb = kc, kd
        _first(fma(one, scale_, bias_), s1, r1, s2, r2, k, t, i)
        if i + 1 < count:
            _first(fma(two, scale_, bias_), s1, r1, s2, r2, k, t, i + 1)


@inlined
def _first(b: Any, s1: Any, r1: Any, s2: Any, r2: Any, k: Any, t: Any, i: int) -> None:
    c = b * (load(r1, i) * load(r2, i))
    sine = sine_of(c)
    d = derivative_kernel(c, sine)
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
    count: int,
) -> None:
    """A later convolution and its ReLU ('ntk'): K that is not negative, and T."""
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
        _later(b, fma(t_one, scale_, b), s1, r1, s2, r2, k, t, i)
        if i + 1 < count:
            b = fma(two, scale_, bias_)
            _later(b, fma(t_two, scale_, b), s1, r1, s2, r2, k, t, i + 1)


@inlined
def _later(b: Any, u: Any, s1: Any, r1: Any, s2: Any, r2: Any, k: Any, t: Any, i: int) -> None:
    c = b * (load(r1, i) * load(r2, i))
    sine = sine_of(c)
    d = derivative_kernel_of_positive(c, sine)
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
    count: int,
    tangent: bool,
) -> None:
    """Any convolution and its ReLU; without T where no `tangent` kernel is wanted."""
    stay_apart()
    scale_, bias_ = splat(k, scale), splat(k, bias)
    alpha_, beta_ = splat(k, alpha), splat(k, beta)
    ka, kb = column(around_k, -1), column(around_k, 0)
    ta, tb = column(around_t, -1), column(around_t, 0)
    for i in range(count):
        kc = column(around_k, i + 1)
        b = fma(windows(around_k, ka, kb, kc, kc)[0], scale_, bias_)
        ka, kb = kb, kc
        c = b * (load(r1, i) * load(r2, i))
        sine = sine_of(c)
        d = derivative_kernel(c, sine)
        store(k, i, fma(b, d, load(s1, i) * load(s2, i) * sine))
        if tangent:
            tc = column(around_t, i + 1)
            u = fma(windows(around_t, ta, tb, tc, tc)[0], scale_, fma(b, alpha_, beta_))
            ta, tb = tb, tc
            store(t, i, u * d)
