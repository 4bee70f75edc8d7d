"""Each pair's own gradient by 'xla', against that of the compiled kernel in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kip_flax import architectures as arch
from kip_flax import kernels
from kip_flax.kernels.jacobian import make_jacobian
from kip_flax.kernels.xla import tiles

SPECS = {
    "convnet": (arch.convnet(1), (6, 5, 2)),
    "conv": (arch.conv(1), (3, 3, 1)),
    "global pooling": (
        (arch.Conv(), arch.Relu(), arch.AvgPool(), arch.Conv(), arch.GlobalAvgPool(), arch.Dense()),
        (6, 6, 1),
    ),
}


def expected_of(spec, get, x_t, x_s):
    """The kernel and the gradient of each entry in float64, target by target."""
    kernel = jax.jit(kernels.make_kernel(spec, get=get, implementation="cpu"))
    x_t, x_s = x_t.astype(float), x_s.astype(float)
    gradients = [jax.grad(lambda s, t=t: kernel(t[None], s).sum())(x_s) for t in x_t]
    return kernel(x_t, x_s), np.swapaxes(np.stack(gradients), 0, 1).reshape(len(x_s), len(x_t), -1)


def check(spec, get, x_t, x_s, expected, tolerance):
    options = kernels.KernelOptions(spec, get=get, implementation="xla")
    k, dk = jax.jit(make_jacobian(options))(x_t, x_s)
    assert (k.dtype, dk.dtype) == (jnp.float32, jnp.float32)
    np.testing.assert_allclose(k, expected[0], atol=tolerance * np.abs(expected[0]).max())
    np.testing.assert_allclose(dk, expected[1], atol=tolerance * np.abs(expected[1]).max())


@pytest.mark.parametrize(
    ("name", "get"),
    [
        ("conv", "nngp"),
        pytest.param("convnet", "ntk", marks=pytest.mark.slow),
        pytest.param("convnet", "nngp", marks=pytest.mark.slow),
        pytest.param("conv", "ntk", marks=pytest.mark.slow),
        pytest.param("global pooling", "ntk", marks=pytest.mark.slow),
    ],
)
def test_each_pair_has_its_own_gradient(name, get, monkeypatch):
    """Five targets in tiles of two: the last tile is filled up."""
    spec, shape = SPECS[name]
    rng = np.random.default_rng(0)
    x_s, x_t = (rng.standard_normal((n, *shape), np.float32) for n in (3, 5))
    monkeypatch.setattr(tiles, "_CPU_LANES", 2)
    check(spec, get, x_t, x_s, expected_of(spec, get, x_t, x_s), 2e-5)


@pytest.mark.parametrize("x64", [True, False])
def test_near_duplicates_have_the_gradients_of_float64(x64):
    """A run begins with training images, which are targets too."""
    rng = np.random.default_rng(0)
    x_s, x_t = (rng.standard_normal((n, 3, 3, 1), np.float32) for n in (2, 3))
    x_t[-1] = x_s[1] * (1 + 1e-4)
    expected = expected_of(arch.conv(1), "ntk", x_t, x_s)
    with jax.enable_x64(x64):
        check(arch.conv(1), "ntk", x_t, x_s, expected, 5e-6)
