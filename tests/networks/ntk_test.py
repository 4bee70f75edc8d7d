"""Empirical tangent kernels and learning rates against neural_tangents; wide networks against ours.

Finite equals infinite: the mean over random networks of our modules of their covariance (NNGP) and
of their tangent kernel is our infinite-width kernel, up to the statistical error of the mean.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import monte_carlo
from kip_flax import architectures as arch
from kip_flax import kernels
from kip_flax.kernels import reference
from kip_flax.networks import build, ntk


def images(n, shape):
    return np.asarray(jax.random.normal(jax.random.key(0), (n, *shape), jnp.float32))


def check(found, precision):
    for get, (deviation, error) in found.items():
        assert error.max() < precision, get  # Else it could not fail.
        z = deviation / error
        assert np.abs(z).max() < 4, (get, z)


SMALL = {
    "fc": (arch.fc(2), (4, 4, 1)),
    "conv": (arch.conv(2), (4, 4, 1)),
    "convnet": (arch.convnet(1), (4, 4, 1)),
    "convnet_plain": (arch.convnet_plain(2), (4, 4, 1)),
    "myrtle": (arch.myrtle(5), (4, 4, 1)),
}


_SLOW = ("myrtle", "convnet", "convnet_plain", "conv")  # A quarter of a minute each.


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n in _SLOW else []) for n in arch.ARCHITECTURES],
)
def test_wide_networks_have_our_kernel(name):
    spec, shape = SMALL[name]
    # That compiles in a quarter of the time; kernels/build_test holds it against ours.
    implementation = "xla" if name in ("fc", "convnet_plain") else "neural_tangents"
    check(
        monte_carlo.agreement(spec, shape, 256, "ntk", 60, implementation=implementation),
        precision=0.05,
    )


def test_wide_networks_have_our_kernel_in_the_standard_parameterisation():
    spec, shape = SMALL["fc"]
    check(monte_carlo.agreement(spec, shape, 256, "standard", samples=60), precision=0.05)


@pytest.mark.slow
def test_a_kernel_that_is_5_percent_off_is_found_out():
    spec, shape = SMALL["fc"]
    (deviation, error) = monte_carlo.agreement(spec, shape, 256, "ntk", samples=300)["ntk"]
    assert np.abs(deviation / error).max() < 4
    assert np.abs((deviation + 0.05) / error).max() > 4


@pytest.mark.slow
@pytest.mark.parametrize("parameterization", kernels.PARAMETERIZATIONS)
@pytest.mark.parametrize("name", monte_carlo.CASES)
def test_wider_networks_have_our_kernel_closer(name, parameterization):
    spec, shape = monte_carlo.CASES[name]
    samples = 150 if name.startswith("fc") else 100  # Its outputs vary more: nothing is averaged.
    found = monte_carlo.agreement(spec, shape, 512, parameterization, samples)
    check(found, precision=0.03)


def network(shape=(6, 6, 2), classes=3):
    make = functools.partial(build.make_network, arch.convnet(1), shape, classes, width=12)
    net = build.functions(make)
    params, other = jax.jit(net.init)(jax.random.key(0))
    return lambda p, x: net.apply(p, other, x), params


def theirs(apply, params, x, reduced):
    nt = reference.neural_tangents()

    def f(p, x):
        y = apply(p, x)
        return jnp.sum(y, axis=-1) / y.shape[-1] ** 0.5 if reduced else y[:, 0]

    kernel = nt.empirical_ntk_fn(f, trace_axes=(), implementation=1)
    return jax.jit(lambda x: kernel(x, None, params))(x)


def test_the_empirical_kernel_is_that_of_neural_tangents():
    apply, params = network()
    x = images(5, (6, 6, 2))
    ours = jax.jit(lambda x: ntk.ntk(lambda p, x: apply(p, x)[:, 0], params, x, x[:3]))(x)
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
    ours = jax.jit(functools.partial(ntk.max_learning_rate, apply, momentum=momentum))
    assert float(ours(params, x)) == pytest.approx(float(expected), rel=1e-3)


def test_the_maximum_learning_rate_is_where_gradient_descent_turns():
    """A linear network on one class: above the rate the loss grows, below it falls."""
    make = functools.partial(
        build.make_network, (arch.Flatten(), arch.Dense()), (3, 3, 1), 1, width=1
    )
    net = build.functions(make)
    params, other = net.init(jax.random.key(0))
    x = images(8, (3, 3, 1))
    apply = lambda p, x: net.apply(p, other, x)  # noqa: E731
    rate = ntk.max_learning_rate(apply, params, x)

    def losses(rate):
        def step(p, _):
            value, grad = jax.value_and_grad(lambda p: 0.5 * jnp.mean(apply(p, x) ** 2))(p)
            return jax.tree.map(lambda a, b: a - rate * b, p, grad), value

        return jax.lax.scan(step, params, length=200)[1]

    assert losses(0.98 * rate)[-1] < losses(0.98 * rate)[0]
    assert losses(1.02 * rate)[-1] > losses(1.02 * rate)[0]


def test_the_largest_eigenvalue_is_not_the_first_guess():
    """The kernel diag(2^0.5, 0): the first product with equal entries has the norm 1."""
    largest = ntk.max_eigenvalue(lambda p, x: p * x, jnp.ones(2), jnp.array([2**0.25, 0.0]))
    assert float(largest) == pytest.approx(2**0.5, rel=1e-3)
