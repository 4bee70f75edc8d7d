"""Compiled variances against those of plain JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kip_flax import architectures as arch
from kip_flax import kernels
from kip_flax.kernels.cpu import pairs
from kip_flax.kernels.plan import make_plan
from kip_flax.kernels.xla import variances as xla_variances

pytestmark = pytest.mark.usefixtures("compiled_kernel")


@pytest.mark.parametrize(
    ("spec", "size"), [(arch.convnet(2), 9), (arch.myrtle(5), 9), (arch.conv(2), 6)]
)
def test_variances_against_xla(spec, size):
    """Two programs for the same numbers: values and gradients in float64."""
    x = np.random.default_rng(0).normal(size=(18, size, size, 2))
    plan = make_plan(kernels.KernelOptions(spec, w_std=1.3, b_std=0.2), x.shape[1:])
    programs = pairs.make_programs(plan, channels=2, tangent=True)
    found, ends = pairs.variances(programs, x.reshape(18, -1))

    def plain(x):
        levels, _ = xla_variances.variances(plan, x)
        return jnp.concatenate([v.reshape(18, -1) for maps in levels for v in maps], axis=1)

    @jax.jit
    def plain_and_gradient(x, g):
        values, vjp = jax.vjp(plain, x)
        return values, vjp(g)[0]

    g = np.random.default_rng(1).normal(size=found.shape)
    want, exact = plain_and_gradient(x, g)
    np.testing.assert_allclose(found, want, rtol=1e-11)
    gradient = pairs.variances_gradient(programs, x.reshape(18, -1), found, g, 0 * ends)
    np.testing.assert_allclose(gradient, np.reshape(exact, (18, -1)), rtol=1e-8, atol=1e-10)
