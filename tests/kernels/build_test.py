"""The exact kernels in float32 against neural_tangents in float64: values and gradients.

Each batch holds ordinary pairs, identical ones, near-duplicates, and pictures that share their
background. The few cases below cover every kind of layer, size and option once by 'cpu'; most of
those by 'xla' are slow, and the whole product is in `build_slow_test.py`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernel_checks import (
    GRADIENTS,
    VALUES,
    WIDTH,
    WITHOUT_X64,
    check,
    image_sets,
    near_images,
    relative,
    value_and_vjp,
)

from kip_flax import architectures as arch
from kip_flax import kernels
from kip_flax.kernels.symmetry import symmetric
from kip_flax.runtime.errors import UserError

pytestmark = pytest.mark.usefixtures("compiled_kernel")


@pytest.fixture(params=["cpu", "xla"])
def implementation(request):
    """The exact kernels that every test below is for."""
    return request.param


def on_both(*cases, quick=()):
    """Each case by 'cpu' and by 'xla', which takes long to compile: all but `quick` are slow."""
    by_xla = [
        pytest.param("xla", *case, marks=[] if case[0] in quick else [pytest.mark.slow])
        for case in cases
        if case[0] != "fc"  # Dense networks have one kernel.
    ]
    return [("cpu", *case) for case in cases] + by_xla


@pytest.mark.parametrize(
    ("implementation", "name", "depth", "size", "channels", "options"),
    on_both(
        ("fc", 2, 8, 3, {}),
        ("fc", 1, 8, 1, {"parameterization": "standard", "get": "nngp"}),
        ("conv", 2, 8, 3, {}),
        ("convnet", 1, 8, 1, {"get": "nngp"}),
        ("convnet_plain", 2, 9, 3, {"parameterization": "standard"}),
    ),
)
def test_small_images(implementation, name, depth, size, channels, options):
    check(implementation, arch.build(name, depth), *image_sets(size, channels), **options)


@pytest.mark.parametrize("sizes", [(1,), (1, 3)], ids=["1x1 alone", "1x1 and 3x3"])
def test_convolutions_of_a_pixel(sizes):
    """Of odd rows: sums over windows end with the row. Nothing averages over the pixels."""
    layers = [layer for size in sizes for layer in (arch.Conv(size), arch.Relu())]
    spec = (*layers, arch.Flatten(), arch.Dense())
    x1, x2 = image_sets(5, 1)
    k = jax.jit(kernels.make_kernel(spec, implementation="cpu"))(x1, x2)
    theirs = jax.jit(kernels.make_kernel(spec, implementation="neural_tangents"))
    exact = theirs(x1.astype(float), x2.astype(float))
    np.testing.assert_allclose(k, exact, rtol=2e-4)


@pytest.mark.parametrize(
    "implementation", ["cpu", pytest.param("xla", marks=pytest.mark.slow)], indirect=True
)
def test_gradients_of_both_sets_and_more_rows_than_columns(implementation):
    x1, x2 = image_sets(6, 1)
    check(implementation, arch.convnet_plain(1), x2, x1, wrt=(0, 1), w_std=1.2, b_std=0.3)


@pytest.mark.parametrize(
    "implementation", ["cpu", pytest.param("xla", marks=pytest.mark.slow)], indirect=True
)
def test_convnet_at_32x32x3(implementation):
    """CIFAR-10: the published network."""
    x1, x2 = image_sets(32, 3, ("1e-3", "ordinary"))
    check(implementation, arch.convnet(3), x1[:1], x2)


@pytest.mark.slow
@pytest.mark.parametrize("implementation", ["cpu", "xla"], indirect=True)
def test_convnet_at_28x28x1(implementation):
    """MNIST: 28 -> 14 -> 7 -> 3, the last pool drops a row and a column."""
    x1, x2 = image_sets(28, 1, ("same", "1e-3", "background"))
    check(implementation, arch.convnet(3), x1, x2, wrt=())


@pytest.mark.parametrize(
    "implementation", ["cpu", pytest.param("xla", marks=pytest.mark.slow)], indirect=True
)
def test_myrtle_on_rectangles(implementation):
    x1, x2 = image_sets(9, 1)
    check(implementation, arch.myrtle(5), x1[:, :4], x2[:, :4], wrt=())


@pytest.mark.slow
def test_layers_in_an_unusual_order(implementation):
    """A window of 5, pools of 3, a conv without ReLU, global pooling, a hidden dense layer."""
    spec = (
        *(arch.Conv(5), arch.Relu(), arch.AvgPool(3), arch.Conv(), arch.GlobalAvgPool()),
        *(arch.Dense(), arch.Relu(), arch.Dense()),
    )
    check(implementation, spec, *image_sets(7, 2))


def self_kernel(kernel):
    def run(x, weights):
        k, vjp = jax.vjp(lambda x: kernel(x, x), x)
        return k, vjp(weights.astype(k.dtype))[0]

    return jax.jit(run)


@pytest.mark.parametrize(("implementation", "name"), on_both(("fc",), ("convnet_plain",)))
def test_a_set_with_itself(implementation, name):
    """The diagonal, a near-duplicate and an exact copy within the set; asymmetric cotangents."""
    x1, x2 = image_sets(8, 1, ("same", "1e-3", "ordinary"))
    x = np.concatenate([x1, x2])
    rng = np.random.default_rng(2)
    weights, direction = rng.normal(size=(5, 5)), rng.normal(size=x.shape)
    spec = arch.build(name, 1)
    k, gradient = self_kernel(kernels.make_kernel(spec, implementation=implementation))(x, weights)
    theirs = kernels.make_kernel(spec, implementation="neural_tangents")
    want, exact = self_kernel(theirs)(x.astype(float), weights)
    np.testing.assert_allclose(k, want, rtol=VALUES)
    np.testing.assert_allclose(k, k.T, rtol=VALUES)
    assert relative(gradient, exact).max() < GRADIENTS

    # The step is small next to the distance 1e-3 of the near-duplicate.
    total = jax.jit(lambda y: jnp.sum(weights * theirs(y, y)))
    difference = (total(x + 1e-5 * direction) - total(x - 1e-5 * direction)) / 2e-5
    slope = float(np.sum(gradient * direction))
    assert slope == pytest.approx(float(difference), rel=3e-4)


@pytest.mark.parametrize(("implementation", "name"), on_both(("fc",), ("convnet_plain",)))
def test_gradients_are_finite_for_images_without_variance(implementation, name):
    """All-zero, constant and equal images, no bias: the kernel is homogeneous in each image."""
    x, _ = image_sets(8, 1)
    x = np.stack([0 * x[0], 0 * x[0] + 0.5, x[0], x[1], 2 * x[0]])
    kernel = kernels.make_kernel(arch.build(name, 1), b_std=0.0, implementation=implementation)
    k, (gradient,) = value_and_vjp(kernel, (0,))(x, x.copy(), np.ones((5, 5)))
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(k[0], 0)
    np.testing.assert_array_equal(k[:, 0], 0)
    np.testing.assert_allclose(k[4], 2 * k[2], rtol=1e-5)
    if name == "fc":  # Two layers, each with W_std^2 = 2 and one ReLU, which halves, between them.
        np.testing.assert_allclose(np.diag(k), 4 * np.mean(x**2, axis=(1, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize(
    ("implementation", "name", "depth", "options"),
    on_both(
        ("fc", 3, {}),
        ("fc", 1, {"parameterization": "standard"}),
        ("conv", 3, {}),
        ("convnet", 1, {"get": "nngp"}),
        ("convnet_plain", 2, {}),
        quick=("convnet",),
    ),
)
def test_without_float64_in_jax(implementation, name, depth, options):
    """Near-duplicates at every distance, and images that differ in a few pixels only."""
    x = image_sets(8, 3)[0][:1]
    spec = arch.build(name, depth)
    options = {"width": WIDTH, **options}
    ours = value_and_vjp(kernels.make_kernel(spec, implementation=implementation, **options), (0,))
    theirs = kernels.make_kernel(spec, implementation="neural_tangents", **options)
    exact = value_and_vjp(theirs, (0,))
    wrong = {}
    for kind, other in near_images(x[0]).items():
        weights = np.ones((1, 1), np.float32)
        with jax.enable_x64(False):
            k, (gradient,) = ours(x, other[None], weights)
        assert k.dtype == gradient.dtype == np.float32
        want, (true,) = exact(x.astype(float), other[None].astype(float), weights)
        errors = abs(k[0, 0] / want[0, 0] - 1), relative(gradient, true)[0]
        if errors[0] > VALUES or errors[1] > WITHOUT_X64:
            wrong[kind] = errors
    assert wrong == {}


def test_near_duplicates_of_a_network_with_a_relu_after_its_pixels(implementation):
    """The ReLU of a head works on means of pixels, which float32 would have rounded."""
    spec = (
        arch.Conv(3),
        arch.Relu(),
        arch.GlobalAvgPool(),
        arch.Dense(),
        arch.Relu(),
        arch.Dense(),
    )
    rng, weights = np.random.default_rng(0), np.ones((1, 1), np.float32)
    x = rng.normal(size=(1, 6, 6, 2)).astype(np.float32)
    near = (x + 1e-3 * rng.normal(size=x.shape)).astype(np.float32)
    ours = kernels.make_kernel(spec, implementation=implementation)
    theirs = kernels.make_kernel(spec, implementation="neural_tangents")
    _, (exact,) = value_and_vjp(theirs, (0,))(x.astype(float), near.astype(float), weights)
    with jax.enable_x64(False):
        _, (gradient,) = value_and_vjp(ours, (0,))(x, near, weights)
    assert relative(np.asarray(gradient), np.asarray(exact))[0] < WITHOUT_X64


@pytest.mark.parametrize("background", [0.7, -0.4, 0.0])
def test_pictures_on_one_background(implementation, background):
    """Most patches are equal: the rounding of their correlation must not reach the kernel."""
    x = np.full((6, 12, 12, 3), background)
    x[:, 2:5, 3:6] = np.random.default_rng(1).normal(size=(6, 3, 3, 3))
    x = x.astype(np.float32)
    spec = arch.conv(3)
    theirs = kernels.make_kernel(spec, implementation="neural_tangents")
    want = jax.jit(theirs)(x[:2].astype(float), x[2:].astype(float))
    with jax.enable_x64(False):
        k = jax.jit(kernels.make_kernel(spec, implementation=implementation))(x[:2], x[2:])
    np.testing.assert_allclose(k, want, rtol=1e-6)


def test_numpy_images_without_jit(implementation):
    x1, x2 = image_sets(4, 1, ("same", "ordinary"))
    want = jax.jit(kernels.make_kernel(arch.fc(1), implementation="neural_tangents"))(x1, x2)
    kernel = kernels.make_kernel(arch.fc(1), implementation=implementation)
    np.testing.assert_allclose(kernel(x1, x2), want, rtol=VALUES)


def test_symmetric_gives_both_arguments_gradients():
    rng = np.random.default_rng(1)
    x, weights = rng.normal(size=(3, 8)), rng.normal(size=(3, 3))

    def dense(a, b):
        return jnp.tanh(a @ b.T) + (a**2) @ (b**2).T

    def one_sided(x):
        return (weights * symmetric(dense(x, jax.lax.stop_gradient(x)))).sum()

    want = jax.grad(lambda x: (weights * dense(x, x)).sum())(x)
    np.testing.assert_allclose(jax.grad(one_sided)(x), want, rtol=1e-10)


def test_bad_images():
    kernel = kernels.make_kernel(arch.convnet(3))
    with pytest.raises(UserError, match=r"not \(2, 8, 8, 1\) and \(2, 8, 8, 3\)"):
        kernel(jnp.zeros((2, 8, 8, 1)), jnp.zeros((2, 8, 8, 3)))
    with pytest.raises(UserError, match="one image or more of each set, not 0 and 2"):
        kernel(jnp.zeros((0, 8, 8, 1)), jnp.zeros((2, 8, 8, 1)))
    with pytest.raises(UserError, match="not float32 and float64: cast the former"):
        kernel(jnp.zeros((2, 8, 8, 1), jnp.float32), jnp.zeros((2, 8, 8, 1), jnp.float64))


@pytest.mark.parametrize("implementation", ["cpu", "xla", "neural_tangents"])
def test_images_too_small_for_the_pools(implementation):
    small = jnp.zeros((2, 4, 4, 1))
    kernel = kernels.make_kernel(arch.convnet(3), implementation=implementation)
    with pytest.raises(UserError, match="4x4 pixels are too small for 3 pooling"):
        kernel(small, small)
