"""Evaluation against kernel ridge regression in NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from kip_flax import krr, preprocess
from kip_flax.data import Dataset
from kip_flax.kernels.sharded import shard_kernel
from kip_flax.runs import evaluate
from kip_flax.runtime import sharding
from kip_flax.runtime.errors import UserError

S, T, C, REG = 6, 23, 3, 1e-4
SHAPE = (4, 4, 1)
NAMES = ("ant", "bee", "cat")


def rbf(x1, x2):
    """exp(-|a - b|^2 / 64) for every pair of images."""
    difference = x1.reshape(len(x1), 1, -1) - x2.reshape(1, len(x2), -1)
    return jnp.exp(-jnp.sum(difference**2, axis=-1) / 64)


def linear(x1, x2):
    return 1 + jnp.matmul(x1.reshape(len(x1), -1), x2.reshape(len(x2), -1).T, precision="highest")


def problem(seed=0):
    rng = np.random.default_rng(seed)
    support = rng.normal(size=(S, *SHAPE)).astype(np.float32)
    test = rng.normal(size=(T, *SHAPE)).astype(np.float32)
    return support, rng.normal(size=(S, C)).astype(np.float32), test, rng.integers(C, size=T)


def numpy_measures(kernel, support, y_s, test, labels):
    a, b = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (support, test))

    def k(x, z):
        if kernel is linear:
            return 1 + x @ z.T
        return np.exp(-np.square(x[:, None] - z[None]).sum(-1) / 64)

    k_ss = k(a, a)
    pred = k(b, a) @ np.linalg.solve(k_ss + REG * np.trace(k_ss) / S * np.eye(S), y_s)
    error = pred - (np.eye(C)[labels] - 1 / C)
    return np.mean(pred.argmax(1) == labels), 0.5 * np.mean(error**2)


@pytest.mark.parametrize("kernel", [rbf, linear])
@pytest.mark.parametrize("batch_size", [1, 5, 23, 100])
@pytest.mark.parametrize("x64", [False, True])
def test_measures_are_numpys(kernel, batch_size, x64):
    support, y_s, test, labels = problem()
    accuracy, mse = numpy_measures(kernel, support, y_s, test, labels)
    with jax.enable_x64(x64):
        run = evaluate.make_evaluate(kernel, test, labels, reg=REG, batch_size=batch_size)
        measures = run(support, y_s)
    assert measures["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert measures["mse"] == pytest.approx(mse, rel=1e-4)


def test_the_kernel_is_compiled_once_for_all_batches_and_supports():
    traced = []

    def kernel(x1, x2):
        traced.append((len(x1), len(x2)))
        return rbf(x1, x2)

    support, y_s, test, labels = problem()
    run = evaluate.make_evaluate(kernel, test, labels, reg=REG, batch_size=5)
    first, second = run(support, y_s), run(support + 1, y_s)
    assert traced == [(S, S), (5, S)]
    assert first["mse"] != second["mse"]


def test_an_indefinite_kernel_is_refused():
    support, y_s, test, labels = problem()
    run = evaluate.make_evaluate(lambda x1, x2: -rbf(x1, x2), test, labels, reg=REG, batch_size=5)
    with pytest.raises(UserError, match=r"reg=0\.0001"):
        run(support, y_s)


def test_labels_that_are_not_finite_are_refused():
    support, y_s, test, labels = problem()
    run = evaluate.make_evaluate(rbf, test, labels, reg=REG, batch_size=5)
    with pytest.raises(UserError, match=r"labels of the support are not finite: .* raise reg"):
        run(support, np.where(np.arange(len(y_s))[:, None] == 1, np.nan, y_s))


def dataset(seed=0):
    """Three classes of 8-bit pictures, each a noisy pattern of its own."""
    rng = np.random.default_rng(seed)
    patterns = rng.integers(60, 190, size=(C, *SHAPE))

    def draw(n):
        labels = np.arange(n, dtype=np.int32) % C
        return (patterns[labels] + rng.integers(-50, 50, size=(n, *SHAPE))).astype(np.uint8), labels

    (x, y), (x_test, y_test) = draw(60), draw(30)
    return Dataset("npz", x, y, x_test, y_test, NAMES)


@pytest.mark.parametrize("name", ["standard", "zca_normalize"])
def test_a_support_is_evaluated_on_the_test_images(name):
    data = dataset()
    fitted = preprocess.fit(name, data.train_images)
    test = preprocess.apply(fitted, data.test_images)
    config, mesh = default.get_config(), sharding.make_mesh(1, 1)
    config.reg, config.eval.batch_size = REG, 7
    support = preprocess.apply(fitted, data.train_images[:S])
    y_s = np.asarray(krr.centered_one_hot(data.train_labels[:S], C))
    accuracy, mse = numpy_measures(linear, support, y_s, test, data.test_labels)
    got = evaluate.on_test_images(config, data, fitted, linear, mesh)(support, y_s)
    assert got["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert got["mse"] == pytest.approx(mse, rel=1e-4)
    assert accuracy > 0.6


def test_a_mesh_changes_nothing():
    support, y_s, test, labels = problem()
    mesh = sharding.make_mesh()
    kernel = shard_kernel(rbf, mesh)
    run = evaluate.make_evaluate(kernel, test, labels, reg=REG, batch_size=5, mesh=mesh)
    measures = run(*sharding.replicate(mesh, (support, y_s)))
    accuracy, mse = numpy_measures(rbf, support, y_s, test, labels)
    assert measures["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert measures["mse"] == pytest.approx(mse, rel=1e-4)
