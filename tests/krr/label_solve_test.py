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
    """The state after all targets, `tile` at a time, the last tile padded with weight 0."""
    x_t, y_t = problem()
    step = label_solve.make_step(kernel or kernels.make_kernel(arch.fc(1)))
    state = label_solve.init(x_t[:S], y_t[:S])
    for start in range(0, T, tile):
        weights = np.zeros(tile, np.float32)
        x, y = (np.full((tile, *a.shape[1:]), 9, np.float32) for a in (x_t, y_t))
        real = len(x_t[start : start + tile])
        weights[:real], x[:real], y[:real] = 1, x_t[start : start + tile], y_t[start : start + tile]
        state = step(state, x, y, weights)
    return state


@pytest.fixture(scope="module")
def state():
    return summed(16)


def test_sums_are_the_products_with_all_targets(state):
    _, k_ts = exact_kernels()
    _, y_t = problem()
    assert state.gram.dtype == state.cross.dtype == np.float64
    np.testing.assert_allclose(state.gram, k_ts.T @ k_ts, rtol=1e-5)
    np.testing.assert_allclose(state.cross, k_ts.T @ y_t, rtol=1e-4, atol=1e-4)
    assert int(state.step) == -(-T // 16)


@pytest.mark.parametrize("tile", [1, 7, T])
def test_the_size_of_a_tile_is_irrelevant(state, tile):
    other = summed(tile)
    np.testing.assert_allclose(other.gram, state.gram, rtol=1e-6)
    np.testing.assert_allclose(other.cross, state.cross, rtol=1e-5, atol=1e-6)


def test_a_mesh_sums_the_same(state):
    mesh = sharding.make_mesh(4)
    kernel = shard_kernel(kernels.make_kernel(arch.fc(1)), mesh)
    other = summed(T, kernel)  # 50 rows on four devices: padded.
    np.testing.assert_allclose(other.gram, state.gram, rtol=1e-5)


def test_labels_are_the_closed_form():
    """Design: y* = (K_ss + reg/S I) (K_st K_ts + reg/S I)^-1 K_st y_t, on exact sums."""
    k_ss, k_ts = exact_kernels()
    _, y_t = problem()
    for reg in (REG, 3.0):
        ridge = reg / S * np.eye(S)
        want = (k_ss + ridge) @ np.linalg.solve(k_ts.T @ k_ts + ridge, k_ts.T @ y_t)
        labels = label_solve.solve_labels(k_ss, jnp.asarray(k_ts.T @ k_ts), k_ts.T @ y_t, reg)
        assert labels.dtype == np.float32
        np.testing.assert_allclose(labels, want, rtol=1e-5, atol=1e-6)


def loss_of(labels):
    k_ss, k_ts = exact_kernels()
    _, y_t = problem()
    return float(krr.loss(krr.predict(k_ts, krr.solve(k_ss, labels, REG)), y_t))


def test_no_labels_do_better(state):
    """Solved in float32 tiles: below natural labels, and a minimum: no change of labels helps."""
    k_ss = jax.jit(kernels.make_kernel(arch.fc(1)))(state.images, state.images)
    labels = label_solve.solve_labels(k_ss, state.gram, state.cross, REG)
    best = loss_of(labels)
    assert best < 0.7 * loss_of(state.labels)
    rng = np.random.default_rng(3)
    for _ in range(20):
        assert loss_of(labels + 0.05 * rng.normal(size=labels.shape)) > best


def test_the_initial_state_is_empty():
    x_t, y_t = problem()
    state = label_solve.init(x_t[:S], y_t[:S])
    assert jax.tree.map(np.shape, (state.gram, state.cross)) == ((S, S), (S, CLASSES))
    assert not np.asarray(state.gram).any()
    assert state.step == 0
    np.testing.assert_array_equal(state.support[0], x_t[:S])
    np.testing.assert_array_equal(state.support[1], y_t[:S])
