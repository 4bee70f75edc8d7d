"""Feature kernels against the exact kernel, NumPy, finite differences, and on other devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kip_flax import architectures as arch
from kip_flax import kernels, krr
from kip_flax.krr import feature_kernel
from kip_flax.networks import build, zoo
from kip_flax.runtime import batching

W_STD, B_STD = 2**0.5, 0.1
SHAPE, CLASSES = (8, 8, 2), 3


def images(n, shape=SHAPE, seed=0):
    """Of unit variance, and each pair a little alike."""
    common, own = (
        jax.random.normal(jax.random.key(seed + i), (m, *shape), jnp.float32)
        for i, m in enumerate((1, n))
    )
    return 0.6 * common + 0.8 * own


def network(width=8, spec=None, **blocks):
    spec = arch.convnet_plain(2) if spec is None else spec
    make = functools.partial(build.make_network, spec, SHAPE, CLASSES, width=width, **blocks)
    return build.functions(make)


def drawn(net, number, seed=0):
    """Parameters and other state of several networks, stacked."""
    return jax.jit(jax.vmap(net.init))(jax.random.split(jax.random.key(seed), number))


def stacked(net, networks, x):
    return jax.jit(jax.vmap(net.features, (0, 0, None)))(*networks, x)


@pytest.mark.slow
@pytest.mark.parametrize("spec", [arch.convnet_plain(2), arch.fc(2)])
def test_more_and_wider_networks_come_to_the_exact_kernel(spec):
    """Within four standard errors each time, and the error falls as the root of their number."""
    x = images(3)
    exact = kernels.make_kernel(spec, w_std=W_STD, b_std=B_STD, get="nngp", implementation="xla")(
        x, x
    )
    precision = []
    for width, number in ((32, 40), (64, 80), (128, 160)):
        net = network(width, spec)
        estimate = jax.jit(lambda f: feature_kernel.nngp(f, f, W_STD, B_STD))
        features = stacked(net, drawn(net, number, width), x)
        each = np.stack([np.asarray(estimate(f), np.float64) for f in features])
        np.testing.assert_allclose(estimate(features), each.mean(axis=0), rtol=1e-5)
        error = each.std(axis=0, ddof=1) / number**0.5
        assert np.abs((each.mean(axis=0) - exact) / error).max() < 4
        precision.append((error / exact).max())
    assert precision[2] < 0.03
    assert precision[2] < 0.4 * precision[0]  # A quarter: the root of 4 times 4.


def numpy_loss(f_s, y_s, f_t, y_t, weights, reg):
    """Everything in float64, features scaled and the bias one more of them."""

    def row(f):
        flat = np.moveaxis(np.asarray(f, np.float64), 0, 1).reshape(f.shape[1], -1)
        return np.hstack([W_STD * flat / flat.shape[1] ** 0.5, np.full((len(flat), 1), B_STD)])

    s, t = row(f_s), row(f_t)
    k = s @ s.T
    alpha = np.linalg.solve(k + reg * np.trace(k) / len(k) * np.eye(len(k)), y_s)
    squares = np.mean((t @ s.T @ alpha - y_t) ** 2, axis=1)
    return 0.5 * np.sum(squares * weights) / np.sum(weights)


def problem(net, number=3, size=4, targets=7):
    networks = drawn(net, number)
    rng = np.random.default_rng(0)
    y_s, y_t = (rng.normal(size=(n, CLASSES)).astype(np.float32) for n in (size, targets))
    weights = np.array([1.0] * (targets - 1) + [0.0], np.float32)
    batch = feature_kernel.FeatureBatch(
        stacked(net, networks, images(targets, seed=5)), y_t, weights
    )
    return networks, images(size), jnp.asarray(y_s), batch


def through_features(net, networks, batch, reg, kernel):
    def loss(x, y):
        features = jax.vmap(net.features, (0, 0, None))(*networks, x)
        return feature_kernel.loss(kernel, (features, y), batch, reg)[0]

    return loss


NNGP = functools.partial(feature_kernel.nngp, w_std=W_STD, b_std=B_STD)


@pytest.mark.parametrize("normalization", list(build.NORMALIZATIONS))
def test_the_loss_is_numpys_and_its_gradient_that_of_finite_differences(normalization):
    net = network(normalization=normalization)
    networks, x, y, batch = problem(net)
    both = jax.jit(jax.value_and_grad(through_features(net, networks, batch, 1e-2, NNGP), (0, 1)))
    value, ours = both(x, y)
    f_s = stacked(net, networks, x)
    expected = numpy_loss(f_s, y, batch.features, batch.y, batch.weights, 1e-2)
    assert float(value) == pytest.approx(expected, rel=1e-5)

    # The same in float64 from the first pixel on, but for the predictions.
    wide = jax.tree.map(lambda a: a.astype(jnp.float64), (networks, x, y, batch))
    in64 = through_features(net, wide[0], wide[3], 1e-2, NNGP)
    in64 = jax.jit(jax.value_and_grad(in64, (0, 1)))
    _, grads = in64(*wide[1:3])
    direction = jax.tree.map(lambda g: g / jnp.linalg.norm(g.ravel()), grads)
    lines = list(zip(wide[1:3], direction, strict=True))
    for i in (0, 1):
        there = [a + 1e-2 * d * (j == i) for j, (a, d) in enumerate(lines)]
        back = [a - 1e-2 * d * (j == i) for j, (a, d) in enumerate(lines)]
        (ahead, _), (behind, _) = in64(*there), in64(*back)
        slope = (float(ahead) - float(behind)) / 2e-2
        assert slope == pytest.approx(float(jnp.linalg.norm(grads[i].ravel())), rel=5e-3)
    for found, exact in zip(ours, grads, strict=True):
        np.testing.assert_allclose(found, exact, rtol=1e-3, atol=1e-4 * float(jnp.abs(exact).max()))


@pytest.mark.parametrize("images", [5, 30, 39, 60])
def test_predictions_hold_where_images_are_as_many_as_features(images):
    """A ridge of 1e-6 is below the rounding of a kernel in float32."""
    rng = np.random.default_rng(images)
    f_s, f_t = (np.maximum(rng.normal(size=(n, 40)), 0).astype(np.float32) for n in (images, 20))
    y = rng.normal(size=(images, 3)).astype(np.float32)

    def numpys(f_s):
        f_s, k = np.asarray(f_s, np.float64), f_s.astype(np.float64) @ f_s.T
        k += 1e-6 * np.trace(k) / images * np.eye(images)
        return f_t.astype(np.float64) @ f_s.T @ np.linalg.solve(k, y)

    found = feature_kernel.predict(jnp.asarray(f_s), jnp.asarray(y), jnp.asarray(f_t), 1e-6)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, numpys(f_s), atol=1e-5 * np.abs(numpys(f_s)).max())

    def total(f_s):
        return jnp.sum(feature_kernel.predict(f_s, jnp.asarray(y), jnp.asarray(f_t), 1e-6))

    direction = rng.normal(size=f_s.shape)
    step = 1e-7 * direction
    slope = (numpys(f_s + step).sum() - numpys(f_s - step).sum()) / 2e-7
    gradient = jax.grad(total)(jnp.asarray(f_s))
    assert float(np.sum(np.asarray(gradient) * direction)) == pytest.approx(slope, rel=1e-3)


def test_targets_get_no_gradient():
    net = network()
    networks, x, y, batch = problem(net)
    f_s = stacked(net, networks, x)
    grads = jax.grad(
        lambda f: feature_kernel.loss(NNGP, (f_s, y), batch._replace(features=f), 1e-2)[0]
    )(batch.features)
    np.testing.assert_array_equal(grads, 0)


@pytest.mark.parametrize("name", ["mlp", "convnet_in"])
def test_networks_of_the_zoo_give_a_kernel_of_their_own(name):
    """The readout of one network is linear in its features: both kernels say the same."""
    make = functools.partial(zoo.make_network, name, SHAPE, CLASSES)
    net = build.functions(make)
    params, other = jax.jit(net.init)(jax.random.key(0))
    x = images(5)
    features = jax.jit(net.features)(params, other, x)
    last = jax.tree.leaves(params)[-2:]  # Bias, then kernel.
    kernel, bias = sorted(last, key=lambda leaf: -leaf.ndim)
    np.testing.assert_allclose(
        features @ kernel + bias, jax.jit(net.apply)(params, other, x), rtol=1e-4, atol=1e-5
    )
    expected = np.asarray(features, np.float64) @ np.asarray(features, np.float64).T
    np.testing.assert_allclose(feature_kernel.linear(features, features), expected, rtol=1e-5)


@pytest.mark.parametrize("pixels", [2048, 128], ids=["one pass", "passes of two"])
def test_features_in_passes_are_those_at_once(pixels, monkeypatch):
    monkeypatch.setattr(batching, "PIXELS", pixels)
    net = network(normalization="batch")
    params, other = jax.jit(net.init)(jax.random.key(0))
    other = jax.tree.map(lambda leaf: leaf + 0.1, other)  # Running averages that show.
    x = images(7)
    found = jax.jit(functools.partial(feature_kernel.in_passes, net.features))(params, other, x)
    expected = jax.jit(net.features)(params, other, x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_networks_one_after_the_other_are_those_side_by_side():
    net = network()
    networks, x, _, _ = problem(net)
    found = jax.jit(functools.partial(feature_kernel.of_networks, net.features))(*networks, x)
    np.testing.assert_allclose(found, stacked(net, networks, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pixels", [2048, 128], ids=["one pass", "passes of two"])
def test_gradients_in_passes_are_those_of_all_at_once(pixels, monkeypatch):
    monkeypatch.setattr(batching, "PIXELS", pixels)
    net = network()
    networks, x, _, _ = problem(net, size=5)
    weights = jax.random.normal(jax.random.key(3), stacked(net, networks, x).shape, jnp.float32)
    expected = jax.jit(jax.grad(lambda x: jnp.sum(weights * stacked(net, networks, x))))(x)
    found = jax.jit(functools.partial(feature_kernel.image_gradients, net.features))
    np.testing.assert_allclose(found(networks, x, weights), expected, rtol=1e-4, atol=1e-5)


def test_the_loss_of_exact_features_is_that_of_the_kernel():
    """Where features are the images themselves, this is kernel ridge regression as ever."""
    f_s, f_t = images(4, (6,)), images(5, (6,), seed=9)
    y_s, y_t = images(4, (CLASSES,), seed=3), images(5, (CLASSES,), seed=4)
    batch = feature_kernel.FeatureBatch(f_t, y_t, jnp.ones(5))
    value, predictions = feature_kernel.loss(feature_kernel.linear, (f_s, y_s), batch, 1e-3)
    expected = krr.predict(f_t @ f_s.T, krr.solve(f_s @ f_s.T, y_s, 1e-3))
    np.testing.assert_allclose(predictions, expected, rtol=1e-4)
    assert float(value) == pytest.approx(float(krr.loss(expected, y_t)), rel=1e-5)
