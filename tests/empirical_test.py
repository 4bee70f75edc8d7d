"""Empirical tangent kernels and learning rates against neural_tangents; wide networks against ours.

Finite equals infinite: the mean over random networks of our modules of their covariance (NNGP) and
of their tangent kernel is our infinite-width kernel, up to the statistical error of the mean.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kip_flax import architectures as arch
from kip_flax import empirical, kernels, networks
from kip_flax.kernels import reference

W_STD, B_STD = 2**0.5, 0.1


def images(n, shape, seed=0):
    """Unit-variance images, of which each pair is a little alike."""
    common, own = (
        jax.random.normal(jax.random.key(seed + i), (m, *shape), jnp.float32)
        for i, m in enumerate((1, n))
    )
    return np.asarray(0.6 * common + 0.8 * own)


def sampler(spec, shape, width, parameterization, outputs):
    """key, images (n, ...) -> NNGP and NTK (n, n) of one random network."""
    net = networks.functions(
        functools.partial(
            *(networks.make_network, spec, shape, outputs),
            width=width,
            w_std=W_STD,
            b_std=B_STD,
            parameterization=parameterization,
        )
    )

    def sample(key, x):
        params, other = net.init(key)
        values = net.apply(params, other, x)
        ntk = empirical.ntk(lambda p, x: net.apply(p, other, x)[:, 0], params, x, x)
        return values @ values.T / outputs, ntk

    return sample


def agreement(spec, shape, width, parameterization, samples, n=3, outputs=64):
    """For NNGP and NTK: z = (mean - ours) / standard error of all pairs, and that error over ours.

    The pairs share their networks: all z of a kernel are off together, or none.
    """
    x = images(n, shape)
    sample = jax.jit(sampler(spec, shape, width, parameterization, outputs))
    drawn = [sample(key, x) for key in jax.random.split(jax.random.key(7), samples)]
    found = {}
    for get, values in zip(("nngp", "ntk"), zip(*drawn, strict=True), strict=True):
        values = np.stack(values).astype(np.float64)
        kernel = kernels.make_kernel(
            *(spec, W_STD, B_STD, parameterization, width, get), implementation="xla"
        )
        ours = np.asarray(kernel(x, x), np.float64)
        error = values.std(axis=0, ddof=1) / samples**0.5
        found[get] = (values.mean(axis=0) - ours) / error, error / ours
    return found


def check(found, precision):
    for get, (z, relative) in found.items():
        assert relative.max() < precision, get  # Else it could not fail.
        assert np.abs(z).max() < 4, (get, z)


SMALL = {
    "fc": (arch.fc(2), (4, 4, 1)),
    "conv": (arch.conv(2), (4, 4, 1)),
    "convnet": (arch.convnet(1), (4, 4, 1)),
    "convnet_plain": (arch.convnet_plain(2), (4, 4, 1)),
    "myrtle": (arch.myrtle(5), (4, 4, 1)),
}


@pytest.mark.parametrize("name", arch.ARCHITECTURES)
def test_wide_networks_have_our_kernel(name):
    spec, shape = SMALL[name]
    check(agreement(spec, shape, 256, "ntk", samples=60), precision=0.05)


def test_wide_networks_have_our_kernel_in_the_standard_parameterisation():
    spec, shape = SMALL["convnet_plain"]
    check(agreement(spec, shape, 256, "standard", samples=60), precision=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("parameterization", kernels.PARAMETERIZATIONS)
@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        (arch.fc(1), (8, 8, 3)),
        (arch.fc(3), (8, 8, 3)),
        (arch.conv(3), (8, 8, 3)),
        (arch.convnet(3), (8, 8, 3)),
        (arch.convnet_plain(3), (8, 8, 3)),
        (arch.convnet(2), (7, 9, 1)),
        (arch.myrtle(5), (8, 8, 3)),
        (arch.myrtle(7), (8, 8, 3)),
        (arch.myrtle(10), (8, 8, 3)),
    ],
)
def test_wider_networks_have_our_kernel_closer(spec, shape, parameterization):
    check(agreement(spec, shape, 512, parameterization, samples=100), precision=0.03)


def network(shape=(6, 6, 2), classes=3):
    make = functools.partial(networks.make_network, arch.convnet(1), shape, classes, width=12)
    net = networks.functions(make)
    params, other = net.init(jax.random.key(0))
    return lambda p, x: net.apply(p, other, x), params


def theirs(apply, params, x, reduced):
    nt = reference.neural_tangents()

    def f(p, x):
        y = apply(p, x)
        return jnp.sum(y, axis=-1) / y.shape[-1] ** 0.5 if reduced else y[:, 0]

    return nt.empirical_ntk_fn(f, trace_axes=(), implementation=1)(x, None, params)


def test_the_empirical_kernel_is_that_of_neural_tangents():
    apply, params = network()
    x = images(5, (6, 6, 2))
    ours = empirical.ntk(lambda p, x: apply(p, x)[:, 0], params, x, x[:3])
    expected = theirs(apply, params, x, reduced=False)[:, :3]
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_maximum_learning_rate_is_that_of_neural_tangents(momentum, monkeypatch):
    predict = reference.neural_tangents()._src.predict
    monkeypatch.setattr(predict, "_is_on_cpu", lambda _: False)  # That way asks SciPy of old.
    apply, params = network()
    x = images(20, (6, 6, 2))
    kernel = theirs(apply, params, x, reduced=True)
    expected = predict.max_learning_rate(kernel, y_train_size=x.shape[0] * 3, momentum=momentum)
    ours = jax.jit(functools.partial(empirical.max_learning_rate, apply, momentum=momentum))
    assert float(ours(params, x)) == pytest.approx(float(expected), rel=1e-3)


def test_the_maximum_learning_rate_is_where_gradient_descent_turns():
    """A linear network on one class: above the rate the loss grows, below it falls."""
    make = functools.partial(
        networks.make_network, (arch.Flatten(), arch.Dense()), (3, 3, 1), 1, width=1
    )
    net = networks.functions(make)
    params, other = net.init(jax.random.key(0))
    x = images(8, (3, 3, 1))
    apply = lambda p, x: net.apply(p, other, x)  # noqa: E731
    rate = empirical.max_learning_rate(apply, params, x)

    def losses(rate):
        def step(p, _):
            value, grad = jax.value_and_grad(lambda p: 0.5 * jnp.mean(apply(p, x) ** 2))(p)
            return jax.tree.map(lambda a, b: a - rate * b, p, grad), value

        return jax.lax.scan(step, params, length=200)[1]

    assert losses(0.98 * rate)[-1] < losses(0.98 * rate)[0]
    assert losses(1.02 * rate)[-1] > losses(1.02 * rate)[0]
