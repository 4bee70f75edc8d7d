"""Pairs of float32 against float64, compiled: XLA keeps what a rounding error is made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kip_flax.runtime import float_pairs as pairs

SIZE = 4000
CLOSE = 2**-45


def split(exact):
    """Pairs of float32 and the float64 numbers that they are."""
    high = exact.astype(np.float32)
    low = (exact - high).astype(np.float32)
    return (jnp.asarray(high), jnp.asarray(low)), high.astype(float) + low


def numbers(seed):
    rng = np.random.default_rng(seed)
    return split(rng.normal(size=SIZE) * 10 ** rng.uniform(-3, 3, SIZE))


def value(pair):
    high, low = pair
    assert high.dtype == low.dtype == np.float32
    return np.asarray(high, float) + np.asarray(low, float)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (pairs.add, np.add),
        (pairs.subtract, np.subtract),
        (pairs.multiply, np.multiply),
        (pairs.divide, np.divide),
    ],
)
def test_arithmetic_is_float64s(ours, theirs):
    (a, x), (b, y) = numbers(1), numbers(2)
    want = theirs(x, y)
    sums = ours in (pairs.add, pairs.subtract)
    scale = np.abs(x) + np.abs(y) if sums else np.abs(want)
    assert np.max(np.abs(value(jax.jit(ours)(a, b)) - want) / scale) < CLOSE


def test_square_roots():
    a, x = split(10 ** np.random.default_rng(0).uniform(-12, 3, SIZE))
    np.testing.assert_allclose(value(jax.jit(pairs.sqrt)(a)), np.sqrt(x), rtol=CLOSE)
    assert value(pairs.sqrt(pairs.widened(np.zeros(2)))).tolist() == [0, 0]


def test_angles_from_nothing_to_pi():
    small = 10 ** np.random.default_rng(0).uniform(-9, 0, SIZE)
    angles = np.concatenate([small, np.pi - small, np.linspace(0, np.pi, SIZE)])
    (sine, s), (cosine, c) = split(np.sin(angles)), split(np.cos(angles))
    found = value(jax.jit(pairs.arctan2)(sine, cosine))
    np.testing.assert_allclose(found, np.arctan2(s, c), atol=2**-44)


def test_sums_over_axes():
    a, x = split(np.random.default_rng(0).normal(size=(5, 40, 30)))
    found = value(jax.jit(lambda a: pairs.sum_over(a, (0, 2)))(a))
    np.testing.assert_allclose(found, x.sum((0, 2)), atol=2**-42)


@pytest.mark.parametrize("number", [0.0, -0.0, -2.5, 1e-40, np.inf, -np.inf, np.nan])
def test_one_is_1(number):
    assert jax.jit(pairs.one)(jnp.float32(number)) == 1


def test_a_small_number_survives_a_constant():
    """XLA turns (x + 1) - 1 into x where 1 is a constant: the rounding error would be lost."""

    def there_and_back(x):
        one = pairs.constant(1.0, pairs.one(x.ravel()[0]))
        return pairs.subtract(pairs.add(one, pairs.widened(x)), one)

    for x in (jnp.float32(1e-6), jnp.geomspace(1e-7, 1e-5, 100, dtype=jnp.float32)):
        np.testing.assert_allclose(value(jax.jit(there_and_back)(x)), x, rtol=1e-6)


def test_powers_of_two_are_exact():
    a, x = numbers(3)
    np.testing.assert_array_equal(value(pairs.by_power_of_two(a, -0.25)), -x / 4)
