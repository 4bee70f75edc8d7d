"""Float64 programs in pairs of float32: every rule, gradients, and what has none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kip_flax.runtime.pair_program import in_pairs


def inputs():
    rng = np.random.default_rng(0)
    return tuple(rng.uniform(0.5, 2, (3, 4)).astype(np.float32) for _ in range(2))


def in_float64(fn, *args):
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, jax.jit(fn)(*(x.astype(float) for x in args)))


def moved(a, b):
    """Everything that moves numbers, between two sums that float32 cannot hold."""
    joined = jnp.concatenate([a + 1e-9, jnp.stack([b[0], b[1] * 1.0])])
    one, two = jnp.split(joined[:4], 2)
    rolled = jnp.pad(one, ((0, 0), (1, 0)))[:, :4].T.reshape(2, 4)
    chosen = jnp.where(rolled > 0.9, rolled, -two)
    return (chosen - jnp.broadcast_to(one[0] - 1e-9, (2, 4))).sum(axis=0)


def compared(a, b):
    near = a + (b - a) * 1e-9
    larger, smaller = jnp.maximum(a, near), jnp.minimum(a, near)
    flags = (a < near, a <= near, a > near, a >= near, a == near, a != near)
    return larger - smaller, jnp.clip(a, 0.7, 1.3), [flag.astype(jnp.int32) for flag in flags]


def angles(a, b):
    radius = jnp.sqrt(a * a + jnp.square(b) + b**2 / 3)
    sine = a / radius
    return jnp.arctan2(sine, jnp.sqrt(1 - sine * sine)) - jnp.arctan2(sine, sine * 0 + 1e-9)


def inner(a, b):
    return jax.jit(lambda a: jax.lax.optimization_barrier(a * 2 - b / 4 - 0.5 * (a + 1e-9)))(a)


def gradients(a, b):
    value, pull = jax.vjp(lambda a, b: jnp.sum(jnp.sqrt(a * b) - moved(a, b)), a, b)
    return value, pull(jnp.ones_like(value))


def far_apart(a, b):
    """A difference of 1e-9 that float32 loses, as a number of its own."""
    return ((a + 1e-9) - a) * 1e9, ((b * (1 + 1e-9)) / b - 1) * 1e9


@pytest.mark.parametrize("fn", [moved, compared, angles, inner, gradients])
def test_programs_are_float64s(fn):
    args = inputs()
    want = in_float64(fn, *args)
    with jax.enable_x64(False):
        found = jax.jit(in_pairs(fn))(*args)
    assert jax.tree.structure(found) == jax.tree.structure(want)
    for ours, exact in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        assert ours.dtype == (np.float32 if exact.dtype == np.float64 else exact.dtype)
        np.testing.assert_allclose(ours, exact, rtol=1e-6, atol=1e-12)


def test_small_differences_are_kept():
    for found in jax.jit(in_pairs(far_apart))(*inputs()):
        np.testing.assert_allclose(found, 1, rtol=1e-4)


@pytest.mark.parametrize(("fn", "named"), [(jnp.exp, "'exp'"), (lambda a: a**3, "the square")])
def test_what_has_no_rule_is_named(fn, named):
    with pytest.raises(NotImplementedError, match=named):
        in_pairs(lambda a: fn(a))(inputs()[0])
