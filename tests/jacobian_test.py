"""Per-pair gradients against those of the kernel itself, pair by pair, and finite differences."""

import jax
import numpy as np
import pytest

from kip_flax import architectures as arch
from kip_flax import kernels
from kip_flax.kernels import jacobian as jacobian_lib

SPECS = {
    "fc": (arch.fc(2), (4, 4, 1)),
    "conv": (arch.conv(2), (5, 4, 1)),
    "convnet": (arch.convnet(2), (8, 8, 1)),
    "colour": (arch.convnet(1), (7, 6, 3)),
    "myrtle": (arch.myrtle(5), (8, 8, 1)),
    "relu in the head": (
        (arch.Conv(3), arch.Relu(), arch.Flatten(), arch.Dense(), arch.Relu(), arch.Dense()),
        (4, 4, 1),
    ),
}
IMPLEMENTATIONS = ("cpu", "xla")


def images(shape, sizes=(3, 21), dtype=np.float32):
    rng = np.random.default_rng(0)
    return [rng.normal(size=(n, *shape)).astype(dtype) for n in sizes]


@pytest.mark.parametrize("get", kernels.GETS)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", SPECS)
def test_entries_and_their_gradients_are_the_reference_s(name, implementation, get):
    spec, shape = SPECS[name]
    x_s, x_t = images(shape)
    jacobian = jax.jit(jacobian_lib.make_jacobian(spec, get=get, implementation=implementation))
    k, dk = jacobian(x_t, x_s)
    reference = kernels.make_kernel(spec, get=get, implementation="neural_tangents")
    x_s, x_t = x_s.astype(float), x_t.astype(float)
    expected = np.asarray(reference(x_t, x_s))
    np.testing.assert_allclose(k, expected, rtol=2e-5)
    assert dk.shape == (3, 21, *shape)
    for t in (0, 20):  # An entry reads one support image: the sum's gradient is that of each.
        gradients = np.asarray(jax.grad(lambda x: reference(x_t[t : t + 1], x).sum())(x_s))  # noqa: B023
        scale = np.abs(gradients).max()
        np.testing.assert_allclose(dk[:, t], gradients, atol=2e-5 * scale)
