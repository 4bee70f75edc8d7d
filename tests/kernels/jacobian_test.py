"""Per-pair gradients against those of the kernel in float64, target by target."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kip_flax import architectures as arch
from kip_flax import kernels
from kip_flax.kernels import jacobian as jacobian_lib
from kip_flax.kernels.cpu import pair_gradients
from kip_flax.runtime.errors import UserError

pytestmark = pytest.mark.usefixtures("compiled_kernel")

SPECS = {
    "fc": (arch.fc(2), (4, 4, 1)),
    "conv": (arch.conv(2), (5, 4, 1)),
    "convnet": (arch.convnet(2), (8, 8, 1)),
    "colours, odd sizes": (arch.convnet(2), (7, 6, 3)),
    "all offsets": (
        (arch.Conv(), arch.Relu(), arch.AvgPool(), arch.Conv(), arch.GlobalAvgPool(), arch.Dense()),
        (6, 6, 1),
    ),
    "relu in the head": (
        (arch.Conv(), arch.Relu(), arch.Flatten(), arch.Dense(), arch.Relu(), arch.Dense()),
        (4, 4, 1),
    ),
}


def make_jacobian(spec, implementation="cpu", **options):
    options = kernels.KernelOptions(spec, implementation=implementation, **options)
    return jacobian_lib.make_jacobian(options)


def images(shape, sizes=(3, 21), dtype=np.float32):
    rng = np.random.default_rng(0)
    return [rng.normal(size=(n, *shape)).astype(dtype) for n in sizes]


def gradients_of(kernel, x_t, x_s):
    """An entry reads one support image: the gradient of a target's sum is that of each entry."""
    of_target = jax.jit(jax.grad(lambda images, x: kernel(x[None], images).sum()))
    return np.swapaxes(jnp.stack([of_target(x_s, x) for x in x_t]), 0, 1)


def check(jacobian, kernel, x_t, x_s, tolerance):
    """A float32 `jacobian` against the gradients of a `kernel` in float64."""
    k, dk = jax.jit(jacobian)(x_t, x_s)
    assert dk.dtype == jnp.float32
    assert dk.shape == (len(x_s), len(x_t), x_s[0].size)
    x_s, x_t = x_s.astype(float), x_t.astype(float)
    np.testing.assert_allclose(k, jax.jit(kernel)(x_t, x_s), rtol=tolerance)
    expected = gradients_of(kernel, x_t[[0, -1]], x_s).reshape(len(x_s), 2, -1)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(dk[:, [0, -1]], expected, atol=tolerance * scale)


@pytest.mark.parametrize("get", kernels.GETS)
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n in ("fc", "convnet") else []) for n in SPECS],
)
def test_each_pair_s_gradient_is_the_kernel_s(name, get):
    spec, shape = SPECS[name]
    x_s, x_t = images(shape)
    jacobian = make_jacobian(spec, get=get)
    kernel = kernels.make_kernel(spec, get=get, implementation="cpu")
    check(jacobian, kernel, x_t, x_s, 2e-5)


@pytest.mark.parametrize("name", SPECS)
def test_the_gradients_of_all_targets_add_up_to_that_of_a_weighted_sum(name):
    """One backward pass in float64 sees every lane of a tile."""
    spec, shape = SPECS[name]
    x_s, x_t = images(shape)
    weights = np.random.default_rng(1).normal(size=(len(x_t), len(x_s)))
    _, dk = jax.jit(make_jacobian(spec))(x_t, x_s)
    kernel = kernels.make_kernel(spec, implementation="cpu")

    def total(support):
        return jnp.sum(weights * kernel(x_t.astype(float), support))

    expected = jax.jit(jax.grad(total))(x_s.astype(float)).reshape(len(x_s), -1)
    found = np.einsum("ts,stp->sp", weights, np.asarray(dk, np.float64))
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    "implementation", [pytest.param("xla", marks=pytest.mark.slow), "neural_tangents"]
)
def test_kernels_without_code_of_their_own_go_target_by_target(implementation):
    x_s, x_t = images((3, 3, 1))
    spec = arch.fc(1)
    jacobian = make_jacobian(spec, implementation=implementation)
    kernel = kernels.make_kernel(spec, implementation="cpu")
    check(jacobian, kernel, x_t, x_s, 2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("get", kernels.GETS)
@pytest.mark.parametrize("name", SPECS)
def test_each_pair_s_gradient_is_the_reference_s(name, get):
    spec, shape = SPECS[name]
    x_s, x_t = images(shape)
    jacobian = make_jacobian(spec, get=get)
    reference = kernels.make_kernel(spec, get=get, implementation="neural_tangents")
    check(jacobian, reference, x_t, x_s, 2e-5)


def test_near_duplicates_have_the_gradients_of_float64():
    """A run begins with training images, which are targets too."""
    x_s, x_t = images((8, 8, 1))
    x_t[-1] = x_s[1] * (1 + 1e-4)
    spec = arch.convnet(2)
    kernel = kernels.make_kernel(spec, implementation="cpu")
    check(make_jacobian(spec), kernel, x_t, x_s, 5e-6)


@pytest.fixture
def tile_calls(monkeypatch):
    """The arguments of each call of the compiled tiles, as they come."""
    calls = []
    original = pair_gradients.tiles_jacobian

    def kept(*args):
        calls.append(args)
        original(*args)

    monkeypatch.setattr(pair_gradients, "tiles_jacobian", kept)
    return calls


def test_many_support_images_go_in_blocks_of_rows(tile_calls):
    x_s, x_t = images((4, 4, 1), (19, 33))
    spec = arch.convnet(1)
    k, dk = make_jacobian(spec)(x_t, x_s)
    assert {args[6] for args in tile_calls} == {(0, 7), (7, 14), (14, 19)}
    few = make_jacobian(spec)(x_t, x_s[12:15])
    np.testing.assert_allclose(k[:, 12:15], few[0], rtol=1e-6)
    np.testing.assert_allclose(dk[12:15], few[1], atol=1e-6 * np.abs(few[1]).max())


@pytest.mark.parametrize(("size", "most", "count"), [(6, 4, 3), (7, 6, 1), (6, 0, 1), (6, 6, 6)])
def test_gradients_too_many_to_hold_twice_come_in_pieces(
    monkeypatch, tile_calls, size, most, count
):
    x_s, x_t = images((4, 4, 1), (size, 9))
    make = partial(make_jacobian, arch.convnet(1))
    k, dk = jax.jit(make())(x_t, x_s)
    tile_calls.clear()
    monkeypatch.setattr(jacobian_lib, "_MOST", most * x_t.nbytes)
    in_pieces = jax.jit(make())(x_t, x_s)
    assert {len(args[1]) for args in tile_calls} == {count}
    assert len(tile_calls) >= size // count
    np.testing.assert_array_equal(in_pieces[0], k)
    np.testing.assert_array_equal(in_pieces[1], dk)


@pytest.mark.parametrize("implementation", ["cpu", "xla"])
def test_images_of_different_shapes_are_refused(implementation):
    jacobian = make_jacobian(arch.convnet(1), implementation)
    (x_t,), (x_s,) = images((4, 4, 1), sizes=(2,)), images((6, 6, 1), sizes=(3,))
    with pytest.raises(UserError, match=r"not \(2, 4, 4, 1\) and \(3, 6, 6, 1\)"):
        jacobian(x_t, x_s)
