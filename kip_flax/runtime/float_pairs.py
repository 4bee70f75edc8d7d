"""Numbers as pairs (high, low) of float32, for devices without float64.

A pair holds a number to 2^-48, and one operation errs by up to 2^-45. A compiler may fuse a product
with a sum, because no product has more than 24 bits. After Dekker, Numerische Mathematik 18, 1971,
and Knuth, The Art of Computer Programming, section 4.2.2.
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

Pair = tuple[Array, Array]

_BITS_OF_ONE = np.float32(1).view(np.int32)
_UPPER_BITS = np.uint32(0xFFFFF000)  # Sign, exponent and 12 bits of the 24.
_HALVINGS = 3  # An angle up to pi is halved so often before its sine's series.
_TERMS = 8  # The next one is 1e-21 there.


def widened(x: Array) -> Pair:
    """A float32 array, or integers that float32 holds, as a pair."""
    high = jnp.asarray(x).astype(jnp.float32)
    return high, jnp.zeros_like(high)


def rounded(a: Pair) -> Array:
    """The nearest float32."""
    return a[0] + a[1]


def one(value: Array) -> Array:
    """A float32 1 that XLA cannot fold: it follows from `value`, known at run time alone."""
    bits = lax.bitcast_convert_type(value, jnp.int32)
    nothing = jnp.minimum(bits & np.int32(2**31 - 1), 0)  # No bit is left for the sign.
    return lax.bitcast_convert_type(nothing + _BITS_OF_ONE, jnp.float32)


def constant(value: float | np.ndarray, unit: Array) -> Pair:
    """A float64 constant as a pair.

    XLA joins constants in (x + 1) - 1 and so removes what `add` computes as a rounding error. The
    pair therefore hangs on `unit`, which is from `one`.
    """
    high, low = _split(np.asarray(value))
    return high * unit, low * unit


def add(a: Pair, b: Pair) -> Pair:
    """a + b."""
    high, error = _exact_sum(a[0], b[0])
    low, lowest = _exact_sum(a[1], b[1])
    high, error = _ordered_sum(high, error + low)
    return _ordered_sum(high, error + lowest)


def negative(a: Pair) -> Pair:
    """-a."""
    return -a[0], -a[1]


def subtract(a: Pair, b: Pair) -> Pair:
    """a - b."""
    return add(a, negative(b))


def multiply(a: Pair, b: Pair) -> Pair:
    """a * b."""
    high, low = _exact_product(a[0], b[0])
    return _ordered_sum(high, low + (a[0] * b[1] + a[1] * b[0]))


def divide(a: Pair, b: Pair) -> Pair:
    """a / b: two digits of long division, each a float32."""
    first = a[0] / b[0]
    left = subtract(a, _scale(b, first))
    return _ordered_sum(first, rounded(left) / b[0])


def sqrt(a: Pair) -> Pair:
    """The square root of a >= 0, by one of Newton's steps; 0 for 0."""
    positive = a[0] > 0
    first = jnp.where(positive, jnp.sqrt(a[0]), 1)
    left = add(a, negative(_exact_product(first, first)))
    high, low = _ordered_sum(first, rounded(left) / (2 * first))
    return jnp.where(positive, high, 0), jnp.where(positive, low, 0)


def arctan2(y: Pair, x: Pair) -> Pair:
    """The angle of a point (x, y) of the upper half of the unit circle, in [0, pi]."""
    angle = jnp.arctan2(y[0], x[0])
    sine, cosine = _sine_and_cosine(angle)
    # The sine of what is left, which is so small that it is its own sine.
    left = subtract(multiply(y, cosine), multiply(x, sine))
    return add(widened(angle), left)


def _sine_and_cosine(angle: Array) -> tuple[Pair, Pair]:
    """Of a float32 angle in [0, pi]: the series of a part of it, doubled again.

    Both are loops, so that the program stays small.
    """
    part, unit = angle / 2**_HALVINGS, widened(one(angle))
    square = _exact_product(part, part)
    of_sine, of_cosine = _series(3), _series(2)  # sin(x) / x - 1 and cos(x) - 1, in x^2.

    def add_term(i: Array, sums: tuple[Pair, Pair]) -> tuple[Pair, Pair]:
        """Horner's rule, the last term first."""
        sine, cosine = (
            multiply(square, add(of, (high[i] * unit[0], low[i] * unit[0])))
            for of, (high, low) in zip(sums, (of_sine, of_cosine), strict=True)
        )
        return sine, cosine

    def double(_: Array, both: tuple[Pair, Pair]) -> tuple[Pair, Pair]:
        sine, less = both  # The cosine less 1.
        twice = by_power_of_two(sine, 2)
        return multiply(twice, add(less, unit)), negative(multiply(twice, sine))

    zero = widened(jnp.zeros_like(angle))
    sine, less = lax.fori_loop(0, _TERMS, add_term, (zero, zero))
    sine = _scale(add(sine, unit), part)
    sine, less = lax.fori_loop(0, _HALVINGS, double, (sine, less))
    return sine, add(less, unit)


def sum_over(a: Pair, axes: tuple[int, ...]) -> Pair:
    """The sum over axes."""
    zero = np.float32(0)
    high, low = lax.reduce(a, (zero, zero), add, axes)
    return high, low


def _series(first: int) -> Pair:
    """The pairs +-1 / n! for the powers n = first, first + 2, ..., the largest first."""
    powers = range(first, first + 2 * _TERMS, 2)
    terms = [(-1) ** (n // 2) / math.factorial(n) for n in reversed(powers)]
    return _split(np.array(terms))


def _split(exact: np.ndarray) -> Pair:
    high = exact.astype(np.float32)
    return jnp.asarray(high), jnp.asarray((exact - high).astype(np.float32))


def _scale(a: Pair, factor: Array) -> Pair:
    """a times a float32."""
    high, low = _exact_product(a[0], factor)
    return _ordered_sum(high, low + a[1] * factor)


def by_power_of_two(a: Pair, factor: float) -> Pair:
    """a times a power of two, which is exact."""
    return a[0] * np.float32(factor), a[1] * np.float32(factor)


def _exact_sum(a: Array, b: Array) -> Pair:
    """The float32 sum and its rounding error."""
    total = a + b
    rest = total - a
    return total, (a - (total - rest)) + (b - rest)


def _ordered_sum(a: Array, b: Array) -> Pair:
    """The float32 sum and its rounding error, where |a| >= |b| or a is 0."""
    total = a + b
    return total, b - (total - a)


def _exact_product(a: Array, b: Array) -> Pair:
    """The float32 product and its rounding error, from four products of 12 bits by 12."""
    (a1, a2), (b1, b2) = _halves(a), _halves(b)
    high, low = _ordered_sum(a1 * b1, a1 * b2)
    high, more = _ordered_sum(high, a2 * b1)
    return _ordered_sum(high, low + more + a2 * b2)


def _halves(x: Array) -> Pair:
    """Two numbers of 12 bits with the sum x."""
    bits = lax.bitcast_convert_type(x, jnp.uint32) & _UPPER_BITS
    upper = lax.bitcast_convert_type(bits, jnp.float32)
    return upper, x - upper
