"""Label Solve against the closed form in NumPy, float64, with all targets at once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kip_flax import architectures as arch
from kip_flax import kernels, krr
from kip_flax.kernels.sharded import shard_kernel
from kip_flax.krr import label_solve
from kip_flax.runtime import sharding

S, T, CLASSES, REG = 6, 50, 3, 1e-6


def problem():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLASSES, 4, 4, 1))
    labels = np.arange(T) % CLASSES
    x_t = (centres[labels] + rng.normal(size=(T, 4, 4, 1))).astype(np.float32)
    y_t = (np.eye(CLASSES)[labels] - 1 / CLASSES).astype(np.float32)
    return x_t, y_t


@functools.cache
def exact_kernels():
    kernel = jax.jit(kernels.make_kernel(arch.fc(1), implementation="neural_tangents"))
    x_t = problem()[0].astype(float)
    return np.asarray(kernel(x_t[:S], x_t[:S])), np.asarray(kernel(x_t, x_t[:S]))


def summed(tile, kernel=None):
    """The sums over all targets, `tile` at a time, the last tile padded with weight 0."""
    x_t, y_t = problem()
    add_targets = label_solve.make_add_targets(kernel or kernels.make_kernel(arch.fc(1)))
    sums = label_solve.zero_sums(S, CLASSES)
    for start in range(0, T, tile):
        weights = np.zeros(tile, np.float32)
        x, y = (np.full((tile, *a.shape[1:]), 9, np.float32) for a in (x_t, y_t))
        real = len(x_t[start : start + tile])
        weights[:real], x[:real], y[:real] = 1, x_t[start : start + tile], y_t[start : start + tile]
        sums = add_targets(sums, x_t[:S], x, y, weights)
    return sums


@pytest.fixture(scope="module")
def sums():
    return summed(16)


def test_sums_are_the_products_with_all_targets(sums):
    _, k_ts = exact_kernels()
    _, y_t = problem()
    assert sums.gram.dtype == sums.cross.dtype == np.float64
    np.testing.assert_allclose(sums.gram, k_ts.T @ k_ts, rtol=1e-5)
    np.testing.assert_allclose(sums.cross, k_ts.T @ y_t, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tile", [1, 7, T])
def test_the_size_of_a_tile_is_irrelevant(sums, tile):
    other = summed(tile)
    np.testing.assert_allclose(other.gram, sums.gram, rtol=1e-6)
    np.testing.assert_allclose(other.cross, sums.cross, rtol=1e-5, atol=1e-6)


def test_a_mesh_sums_the_same(sums):
    mesh = sharding.make_mesh(4)
    kernel = shard_kernel(kernels.make_kernel(arch.fc(1)), mesh)
    other = summed(T, kernel)  # 50 rows on four devices: padded.
    np.testing.assert_allclose(other.gram, sums.gram, rtol=1e-5)


def test_labels_are_the_closed_form():
    """Design: y* = (K_ss + reg/S I) (K_st K_ts + reg/S I)^-1 K_st y_t, on exact sums."""
    k_ss, k_ts = exact_kernels()
    _, y_t = problem()
    for reg in (REG, 3.0):
        ridge = reg / S * np.eye(S)
        exact = label_solve.Sums(jnp.asarray(k_ts.T @ k_ts), k_ts.T @ y_t)
        want = (k_ss + ridge) @ np.linalg.solve(k_ts.T @ k_ts + ridge, k_ts.T @ y_t)
        labels = label_solve.solve_labels(k_ss, exact, reg)
        assert labels.dtype == np.float32
        np.testing.assert_allclose(labels, want, rtol=1e-5, atol=1e-6)


def loss_of(labels):
    k_ss, k_ts = exact_kernels()
    _, y_t = problem()
    return float(krr.loss(krr.predict(k_ts, krr.solve(k_ss, labels, REG)), y_t))


def test_no_labels_do_better(sums):
    """Solved in float32 tiles: below natural labels, and a minimum: no change of labels helps."""
    x_t, y_t = problem()
    k_ss = jax.jit(kernels.make_kernel(arch.fc(1)))(x_t[:S], x_t[:S])
    labels = label_solve.solve_labels(k_ss, sums, REG)
    best = loss_of(labels)
    assert best < 0.7 * loss_of(y_t[:S])
    rng = np.random.default_rng(3)
    for _ in range(20):
        assert loss_of(labels + 0.05 * rng.normal(size=labels.shape)) > best


def test_float32_sums_of_a_wide_spectrum_have_a_solution():
    """A device without float64, several hundred images: rounding hides the least eigenvalues."""
    rng = np.random.default_rng(0)
    size, targets, classes = 300, 900, 4
    left, _ = np.linalg.qr(rng.normal(size=(targets, size)))
    right, _ = np.linalg.qr(rng.normal(size=(size, size)))
    k_ts = (left * np.geomspace(300, 0.003, size)) @ right.T
    y_t = (k_ts @ rng.normal(size=(size, classes))) / 30 + 0.1 * rng.normal(size=(targets, classes))

    def error():
        sums = label_solve.sum_targets(jnp.asarray(k_ts), jnp.asarray(y_t), jnp.ones(targets))
        fitted = k_ts @ np.asarray(label_solve.solution(sums, 1e-6), np.float64)
        return sums.gram.dtype, np.mean((fitted - y_t) ** 2)

    exact, expected = error()
    with jax.enable_x64(False):
        rounded, found = error()
    assert (exact, rounded) == (np.float64, np.float32)
    assert expected <= found < 1.2 * expected
