"""The analysis of a set against scikit-learn, NumPy and brute force."""

import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_kernel
from sklearn.metrics import confusion_matrix

from kip_flax.kernels.sharded import shard_kernel
from kip_flax.runs import analysis
from kip_flax.runtime import sharding

RNG = np.random.default_rng(0)
KERNEL = quick_kernel(None)


def images(count, seed):
    return np.random.default_rng(seed).standard_normal((count, 4, 4, 1)).astype(np.float32)


def exact(x1, x2):
    """The same kernel in NumPy, entry by entry."""
    flat1, flat2 = (x.reshape(len(x), -1).astype(np.float64) for x in (x1, x2))
    squares = np.square(flat1[:, None] - flat2[None]).sum(axis=-1)
    return np.exp(-squares / (2 * flat1.shape[1]))


def test_confusion_is_that_of_scikit_learn():
    true, predicted = RNG.integers(0, 5, 300), RNG.integers(0, 4, 300)
    expected = confusion_matrix(true, predicted, labels=range(5))
    np.testing.assert_array_equal(analysis.confusion(predicted, true, 5), expected)


def test_spectrum_and_condition_number():
    root = RNG.standard_normal((6, 6))
    k = root @ root.T
    values = analysis.spectrum(k)
    np.testing.assert_allclose(values, np.linalg.svd(k, compute_uv=False), rtol=1e-9)
    assert analysis.condition(values) == pytest.approx(np.linalg.cond(k), rel=1e-6)
    ridge = 0.1 * np.trace(k) / 6 * np.eye(6)
    assert analysis.condition(values, 0.1) == pytest.approx(np.linalg.cond(k + ridge), rel=1e-6)
    assert analysis.condition(np.array([2.0, -1e-9])) == np.inf


def test_nearest_is_the_largest_cosine_in_an_explicit_feature_space():
    x, s = RNG.standard_normal((40, 7)), RNG.standard_normal((5, 7))
    order, cosines = analysis.nearest(
        x @ s.T, np.square(x).sum(axis=1), np.square(s).sum(axis=1), 3
    )
    for at, vector in enumerate(s):
        every = [row @ vector / np.linalg.norm(row) / np.linalg.norm(vector) for row in x]
        expected = sorted(range(40), key=lambda n: -every[n])[:3]
        assert order[at].tolist() == expected
        np.testing.assert_allclose(cosines[at], np.array(every)[expected])


@pytest.mark.parametrize("axes", [(1, 1), (2, 2)])
def test_the_kernel_does_not_depend_on_batches_or_devices(axes):
    mesh = sharding.make_mesh(*axes)
    batched = analysis.BatchedKernel(shard_kernel(KERNEL, mesh), 8, mesh)
    x, support = images(21, 1), images(5, 2)
    np.testing.assert_allclose(batched.cross(x, support), exact(x, support), rtol=1e-5)
    np.testing.assert_allclose(batched.cross(x[:3], support), exact(x[:3], support), rtol=1e-5)
    np.testing.assert_allclose(batched.gram(support), exact(support, support), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(batched.diagonal(x), np.ones(21), rtol=1e-5)


def test_everything_together_is_plain_linear_algebra():
    mesh = sharding.make_mesh(1, 1)
    final, start, train, test = (images(n, seed) for n, seed in ((6, 3), (6, 4), (50, 5), (30, 6)))
    y_final, y_start = RNG.standard_normal((6, 3)), np.eye(3)[[0, 0, 1, 1, 2, 2]] - 1 / 3
    train_labels, test_labels = RNG.integers(0, 3, 50), RNG.integers(0, 3, 30)
    pixels = RNG.integers(0, 256, (50, 4, 4, 1), dtype=np.uint8)
    reg = 0.1
    found = analysis.analyse(
        (final, jnp.asarray(y_final)),
        (start, y_start),
        analysis.BatchedKernel(KERNEL, 16, mesh),
        analysis.Sample(pixels, train, train_labels, 50),
        analysis.Sample(pixels[:30], test, test_labels, 30),
        reg,
    )

    def predicted(x, y):
        k = exact(x, x)
        return exact(test, x) @ np.linalg.solve(k + reg * np.trace(k) / 6 * np.eye(6), y)

    def counts(pred):
        return confusion_matrix(test_labels, pred.argmax(axis=1), labels=range(3))

    k_ss, k_st = exact(start, start), exact(start, train)
    ridge = reg / 6 * np.eye(6)
    y_t = np.eye(3)[train_labels] - 1 / 3
    fitted = reg * np.trace(k_ss) / 6 * np.eye(6)  # The ridge that scores the labels.
    y_solved = (k_ss + fitted) @ np.linalg.solve(k_st @ k_st.T + ridge, k_st @ y_t)
    np.testing.assert_array_equal(found["confusion"], counts(predicted(final, y_final)))
    np.testing.assert_array_equal(found["initial_confusion"], counts(predicted(start, y_start)))
    solved = predicted(start, y_solved)
    np.testing.assert_array_equal(found["solved_confusion"], counts(solved))
    mse = 0.5 * np.mean(np.square(solved - (np.eye(3)[test_labels] - 1 / 3)))
    accuracy = np.mean(solved.argmax(axis=1) == test_labels)
    np.testing.assert_allclose(found["solved"], [accuracy, mse], rtol=1e-4)
    cosines = exact(train, final)  # k(x, x) is 1.
    order = np.argsort(-cosines, axis=0)[:3].T
    np.testing.assert_array_equal(found["nearest_labels"], train_labels[order])
    np.testing.assert_array_equal(found["nearest_pixels"], pixels[order])
    np.testing.assert_allclose(
        found["eigenvalues"], np.linalg.eigvalsh(exact(final, final))[::-1], rtol=1e-4
    )


def test_labels_that_cannot_be_solved_for_are_reported_as_nan():
    """Twice the same image and no ridge: the sums over the targets are singular."""
    mesh = sharding.make_mesh(1, 1)
    start = images(4, 7).repeat(2, axis=0)
    y = np.eye(2)[[0, 0, 0, 0, 1, 1, 1, 1]] - 0.5
    sample = analysis.Sample(np.zeros((9, 4, 4, 1), np.uint8), images(9, 8), np.arange(9) % 2, 9)
    found = analysis.analyse(
        (images(8, 9), y), (start, y), analysis.BatchedKernel(KERNEL, 16, mesh), sample, sample, 0.0
    )
    assert np.isnan(found["solved"][0])
