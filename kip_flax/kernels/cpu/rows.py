"""The loops over one row of a plane, which take nearly all the time.

A row is a vector of lanes for each of `count` pixel pairs. K is the covariance, T the tangent
kernel; both already contain the weight of the means that read them (see `program`).

A convolution reads sums over windows of K and T (see `windows` for `around`). The result goes to an
outlet (see `outlets`). The operands of the derivatives are stored in the rows `kept`, unless these
are None (see `gradient_rows`).
"""

from typing import Any, NamedTuple

from numba import types
from numba.extending import overload

from kip_flax.kernels.cpu.compiled import inlined, loop
from kip_flax.kernels.cpu.correlation import (
    derivative_kernel,
    derivative_kernel_of_positive,
    estimated_sine,
    reciprocal_sine,
    sine_of,
)
from kip_flax.kernels.cpu.outlets import put, put_one, put_pair
from kip_flax.kernels.cpu.vectors import fma, load, splat, stay_apart, store
from kip_flax.kernels.cpu.windows import column, windows


class Coefficients(NamedTuple):
    """B = sum over the window(K) + bias, U = alpha B + beta + sum over the window(T).

    The result is multiplied by `factor`.
    """

    bias: float
    alpha: float
    beta: float
    factor: float


class Deviations(NamedTuple):
    """Rows of standard deviations s and their inverses r: fixed side (1), moving side (2).

    s1 contains the factor of the result, divided by 2 pi.
    """

    s1: Any
    r1: Any
    s2: Any
    r2: Any


@loop
def clear(out: Any, count: int) -> None:
    """Writes zeros."""
    zero = splat(out, 0)
    for i in range(count):
        store(out, i, zero)


@loop
def fill(out: Any, value: Any, count: int) -> None:
    """Writes one vector everywhere."""
    for i in range(count):
        store(out, i, value)


@loop
def copy(source: Any, out: Any, count: int) -> None:
    """Copies a row."""
    for i in range(count):
        store(out, i, load(source, i))


@loop
def add_total(source: Any, out: Any, count: int) -> None:
    """Adds the sum of a row to one vector."""
    total = load(out, 0)
    for i in range(count):
        total = total + load(source, i)
    store(out, 0, total)


@loop
def convolved(
    around_k: Any,
    around_t: Any,
    coefficients: Coefficients,
    k: Any,
    t: Any,
    count: int,
    tangent: bool,
) -> None:
    """A convolution that no ReLU follows."""
    stay_apart()
    bias, factor = splat(k, coefficients.bias), splat(k, coefficients.factor)
    alpha, beta = splat(k, coefficients.alpha), splat(k, coefficients.beta)
    ka, kb = column(around_k, -1), column(around_k, 0)
    ta, tb = column(around_t, -1), column(around_t, 0)
    for i in range(count):
        kc = column(around_k, i + 1)
        b = windows(around_k, ka, kb, kc, kc)[0] + bias
        ka, kb = kb, kc
        store(k, i, factor * b)
        if tangent:
            tc = column(around_t, i + 1)
            u = windows(around_t, ta, tb, tc, tc)[0] + fma(b, alpha, beta)
            ta, tb = tb, tc
            store(t, i, factor * u)


@loop
def rectified_first(
    around_k: Any,
    coefficients: Coefficients,
    deviations: Deviations,
    out: Any,
    kept: Any,
    count: int,
) -> None:
    """The first convolution of a network and its ReLU ('ntk'): K of any sign, no T yet."""
    stay_apart()
    k = around_k[0]
    bias, factor = splat(k, coefficients.bias), splat(k, coefficients.factor)
    ka, kb = column(around_k, -1), column(around_k, 0)
    for i in range(0, count, 2):
        kc, kd = column(around_k, i + 1), column(around_k, i + 2)
        one, two = windows(around_k, ka, kb, kc, kd)
        ka, kb = kc, kd
        one = one + bias
        k_one, t_one = _first(one, factor, deviations, kept, i)
        if i + 1 < count:
            two = two + bias
            k_two, t_two = _first(two, factor, deviations, kept, i + 1)
            put_pair(out, i, k_one, t_one, k_two, t_two)
        else:
            put_one(out, i, k_one, t_one)


@loop
def rectified_later(
    around_k: Any,
    around_t: Any,
    coefficients: Coefficients,
    deviations: Deviations,
    out: Any,
    kept: Any,
    count: int,
) -> None:
    """A later convolution and its ReLU ('ntk'): K is not negative, and T exists."""
    stay_apart()
    k = around_k[0]
    bias, factor = splat(k, coefficients.bias), splat(k, coefficients.factor)
    ka, kb = column(around_k, -1), column(around_k, 0)
    ta, tb = column(around_t, -1), column(around_t, 0)
    for i in range(0, count, 2):
        kc, kd = column(around_k, i + 1), column(around_k, i + 2)
        tc, td = column(around_t, i + 1), column(around_t, i + 2)
        one, two = windows(around_k, ka, kb, kc, kd)
        u_one, u_two = windows(around_t, ta, tb, tc, td)
        ka, kb, ta, tb = kc, kd, tc, td
        one = one + bias
        k_one, t_one = _positive(one, u_one + one, factor, deviations, kept, i)
        if i + 1 < count:
            two = two + bias
            k_two, t_two = _positive(two, u_two + two, factor, deviations, kept, i + 1)
            put_pair(out, i, k_one, t_one, k_two, t_two)
        else:
            put_one(out, i, k_one, t_one)


@loop
def rectified_alone(
    around_k: Any, coefficients: Coefficients, deviations: Deviations, out: Any, count: int
) -> None:
    """Any convolution and its ReLU, without T."""
    stay_apart()
    k = around_k[0]
    bias, factor = splat(k, coefficients.bias), splat(k, coefficients.factor)
    ka, kb = column(around_k, -1), column(around_k, 0)
    for i in range(0, count, 2):
        kc, kd = column(around_k, i + 1), column(around_k, i + 2)
        one, two = windows(around_k, ka, kb, kc, kd)
        ka, kb = kc, kd
        one = one + bias
        k_one = _signed(one, one, factor, deviations, None, i)[0]
        if i + 1 < count:
            two = two + bias
            k_two = _signed(two, two, factor, deviations, None, i + 1)[0]
            put_pair(out, i, k_one, None, k_two, None)
        else:
            put_one(out, i, k_one, None)


@loop
def rectified(
    around_k: Any,
    around_t: Any,
    coefficients: Coefficients,
    deviations: Deviations,
    out: Any,
    kept: Any,
    count: int,
    tangent: bool,
) -> None:
    """Any convolution and its ReLU, with T if `tangent`."""
    stay_apart()
    k = around_k[0]
    bias, factor = splat(k, coefficients.bias), splat(k, coefficients.factor)
    alpha, beta = splat(k, coefficients.alpha), splat(k, coefficients.beta)
    ka, kb = column(around_k, -1), column(around_k, 0)
    ta, tb = column(around_t, -1), column(around_t, 0)
    for i in range(count):
        kc = column(around_k, i + 1)
        b = windows(around_k, ka, kb, kc, kc)[0] + bias
        ka, kb = kb, kc
        u = b
        if tangent:
            tc = column(around_t, i + 1)
            u = windows(around_t, ta, tb, tc, tc)[0] + fma(b, alpha, beta)
            ta, tb = tb, tc
        k_, t_ = _signed(b, u, factor, deviations, kept, i)
        put_one(out, i, k_, t_)


@inlined
def _first(b: Any, factor: Any, deviations: Deviations, kept: Any, i: int) -> Any:
    """K and T after the first ReLU at one pixel pair; U is B, and the kept slope also gives c."""
    c = b * (load(deviations.r1, i) * load(deviations.r2, i))
    sine, reciprocal = sines(kept, c)
    d = derivative_kernel(c, sine, factor)
    keep(kept, i, None, d, sine, c * reciprocal)
    return fma(b, d, load(deviations.s1, i) * load(deviations.s2, i) * sine), b * d


@inlined
def _signed(b: Any, u: Any, factor: Any, deviations: Deviations, kept: Any, i: int) -> Any:
    """K and T after any ReLU at one pixel pair, from B and U."""
    r = load(deviations.r1, i) * load(deviations.r2, i)
    c = b * r
    sine, reciprocal = sines(kept, c)
    d = derivative_kernel(c, sine, factor)
    keep(kept, i, c, d, sine, u * r * reciprocal)
    return fma(b, d, load(deviations.s1, i) * load(deviations.s2, i) * sine), u * d


@inlined
def _positive(b: Any, u: Any, factor: Any, deviations: Deviations, kept: Any, i: int) -> Any:
    """Like `_signed`, for B that is not negative."""
    r = load(deviations.r1, i) * load(deviations.r2, i)
    c = b * r
    sine, reciprocal = sines(kept, c)
    d = derivative_kernel_of_positive(c, sine, factor)
    keep(kept, i, c, d, sine, u * r * reciprocal)
    return fma(b, d, load(deviations.s1, i) * load(deviations.s2, i) * sine), u * d


def sines(kept: Any, c: Any) -> Any:
    """sqrt(1 - c^2) and its inverse; the inverse is not computed if `kept` is None."""
    raise NotImplementedError


@overload(sines)
def _sines(kept, c):  # type: ignore[no-untyped-def]
    if kept == types.none:

        def alone(kept, c):  # type: ignore[no-untyped-def]
            sine = sine_of(c)
            return sine, sine

        return alone
    return lambda kept, c: (estimated_sine(c), reciprocal_sine(c))


def keep(kept: Any, i: int, c: Any, d: Any, sine: Any, slope: Any) -> None:
    """Stores the operands of the derivatives, unless `kept` is None."""
    raise NotImplementedError


@overload(keep)
def _keep(kept, i, c, d, sine, slope):  # type: ignore[no-untyped-def]
    if kept == types.none:
        return lambda kept, i, c, d, sine, slope: None

    def write(kept, i, c, d, sine, slope):  # type: ignore[no-untyped-def]
        put(kept[0], i, c)
        store(kept[1], i, d)
        store(kept[2], i, sine)
        store(kept[3], i, slope)

    return write
