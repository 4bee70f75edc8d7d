"""The arc-cosine kernel against its integrals, NumPy in float64 and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kip_flax.kernels import relu

GRID = np.concatenate([np.linspace(-1, 1, 20001), 1 - np.logspace(-7, -2, 500)])


def test_closed_forms_are_the_gaussian_integrals():
    """K' = E[relu(a) relu(b)] and D = E[1(a > 0) 1(b > 0)] over correlated Gaussians."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2, 2_000_000))
    for c in (-0.8, -0.1, 0.5, 0.95):
        s1, s2 = 0.7, 1.9
        a, b = s1 * z[0], s2 * (c * z[0] + np.sqrt(1 - c * c) * z[1])
        with jax.enable_x64(True):
            q = jnp.float64(s1 * s2)
            k, t = relu.relu(c * q, jnp.float64(3.0), q)
        mean = np.mean(np.maximum(a, 0) * np.maximum(b, 0))
        assert abs(float(k) - mean) < 4e-3
        assert abs(float(t) - 3 * np.mean((a > 0) & (b > 0))) < 4e-3


def test_polynomial_error_in_float32():
    c = GRID.astype(np.float32)
    exact = c.astype(np.float64)
    d = np.asarray(relu.derivative_kernel(jnp.asarray(c)), np.float64)
    assert d.shape == c.shape
    assert np.abs(d - (np.pi - np.arccos(exact)) / (2 * np.pi)).max() <= 1e-7
    sine = np.asarray(relu.half_sine(jnp.asarray(c)), np.float64)
    assert np.abs(sine - np.sqrt(1 - exact**2) / (2 * np.pi)).max() <= 3e-8


def test_no_cancellation_next_to_one():
    """Relative error of sqrt(1 - c^2), which is nearly zero there."""
    c = (1 - np.logspace(-6.5, -1, 300)).astype(np.float32)
    exact = np.sqrt((1 - c.astype(np.float64)) * (1 + c.astype(np.float64))) / (2 * np.pi)
    np.testing.assert_allclose(relu.half_sine(jnp.asarray(c)), exact, rtol=3e-7)
    slope = 1 / (4 * np.pi**2 * exact)
    far = 1 - c > 1e-6
    np.testing.assert_allclose(relu.derivative_slope(jnp.asarray(c), 1)[far], slope[far], rtol=1e-6)


def test_float64_is_exact():
    with jax.enable_x64(True):
        c = jnp.asarray(GRID)
        want = (np.pi - np.arccos(GRID)) / (2 * np.pi)
        np.testing.assert_allclose(relu.derivative_kernel(c), want, rtol=1e-13, atol=1e-16)
        inside = np.abs(GRID) < 1
        slope = 1 / (2 * np.pi * np.sqrt((1 - GRID[inside]) * (1 + GRID[inside])))
        np.testing.assert_allclose(relu.derivative_slope(c, 3.0)[inside], slope / 3, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_patches(dtype):
    """At c = 1 a ReLU halves covariance and tangent kernel; the slope is the subgradient 0."""
    with jax.enable_x64(True):
        one = jnp.ones((), dtype)
        k, t = relu.relu(3 * one, 5 * one, 3 * one)
        assert k.dtype == dtype
        np.testing.assert_allclose([k, t], [1.5, 2.5], rtol=1e-6)
        assert relu.derivative_slope(one, one) == relu.derivative_slope(-one, one) == 0


def test_a_dead_pixel_pair_is_zero_with_the_gradients_of_uncorrelated_pixels():
    """At c = 0: a quarter of the plane, and sin / 2 pi."""
    zero = jnp.zeros(())
    (k, t), vjp = jax.vjp(relu.relu, zero, zero, zero)
    gradients = vjp((jnp.ones(()), jnp.ones(())))
    assert (k, t) == (0, 0)
    np.testing.assert_allclose(gradients, [0.25, 0.25, 0.5 / np.pi], rtol=1e-6)


@pytest.mark.parametrize("c", [-0.7, 0.0, 0.4, 0.99])
def test_gradient_is_a_finite_difference(c):
    """In b, u and q."""
    q, u = 1.7, 0.6

    def outputs(b, u, q):
        corr = b / q
        d = (np.pi - np.arccos(corr)) / (2 * np.pi)
        return 0.3 * q * (corr * d + np.sqrt(1 - corr**2) / (2 * np.pi)) + 1.1 * u * d

    point = np.array([c * q, u, q])
    with jax.enable_x64(True):
        _, vjp = jax.vjp(relu.relu, *point)
        gradients = vjp((jnp.float64(0.3), jnp.float64(1.1)))
    for i, gradient in enumerate(gradients):
        step = 1e-6 * np.eye(3)[i]
        want = (outputs(*(point + step)) - outputs(*(point - step))) / 2e-6
        assert float(gradient) == pytest.approx(want, rel=1e-6)
