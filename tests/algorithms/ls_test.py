"""The state of Label Solve, from nothing seen to all targets summed."""

import jax
import numpy as np

from kip_flax.algorithms import ls

S, T, CLASSES = 6, 10, 3


def test_the_initial_state_is_empty_and_tiles_are_counted():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(T, 4, 4, 1)).astype(np.float32)
    labels = rng.normal(size=(T, CLASSES)).astype(np.float32)
    state = ls.first_state(images[:S], labels[:S])
    assert jax.tree.map(np.shape, tuple(state.sums)) == ((S, S), (S, CLASSES))
    assert {a.dtype for a in state.sums} == {np.dtype(np.float64)}
    assert not np.asarray(state.gram).any()
    assert state.step == 0
    np.testing.assert_array_equal(state.support[0], images[:S])
    np.testing.assert_array_equal(state.support[1], labels[:S])

    def linear(a, b):
        return a.reshape(len(a), -1) @ b.reshape(len(b), -1).T

    update, weights = ls.make_update(linear), np.ones(T, np.float32)
    for _ in range(2):
        state = update(state, images, labels, weights)
    assert state.step == 2
    k_ts = linear(images, images[:S])
    np.testing.assert_allclose(state.gram, 2 * k_ts.T @ k_ts, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(state.cross, 2 * k_ts.T @ labels, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(state.images, images[:S])
