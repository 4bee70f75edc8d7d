"""The kernel that carries distances against neural_tangents, in float64 and in pairs of float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernel_checks import UNFUSED, VALUES, WIDTH, WITHOUT_X64, near_images, relative

from kip_flax import architectures as arch
from kip_flax import kernels
from kip_flax.kernels.carried_distance import make_carried
from kip_flax.kernels.options import KernelOptions
from kip_flax.kernels.plan import make_plan
from kip_flax.runtime.pair_program import in_pairs

STRIDED = (arch.Conv(), arch.Relu(), arch.Conv(3, 2), arch.Relu(), arch.Flatten(), arch.Dense())
HEAD = (arch.Conv(), arch.Relu(), arch.GlobalAvgPool(), arch.Dense(), arch.Relu(), arch.Dense())
STANDARD = {"parameterization": "standard", "w_std": 1.2, "b_std": 0.3}


def with_gradient(spec, shape, **options):
    """(x1, x2) -> the entries (m,) of m pairs, and their gradients in x1."""
    chosen = KernelOptions(spec, width=WIDTH, **options)
    carried = make_carried(make_plan(chosen, shape), chosen.get)

    def run(x1, x2):
        k, pull = jax.vjp(lambda x1: carried(x1, x2), x1)
        return k, pull(jnp.ones_like(k))[0]

    return run


def reference(spec, x1, x2, **options):
    """The same by neural_tangents in float64, pair by pair."""
    kernel = kernels.make_kernel(spec, implementation="neural_tangents", width=WIDTH, **options)

    def entry(a, b):
        return jax.value_and_grad(lambda a: kernel(a[None], b[None])[0, 0])(a)

    return jax.jit(jax.vmap(entry))(x1.astype(float), x2.astype(float))


def near_pairs(shape):
    """One image against those of `near_images`, and an ordinary pair."""
    rng = np.random.default_rng(1)
    x, other = (rng.normal(size=shape).astype(np.float32) for _ in range(2))
    near = near_images(x)
    return [*near, "ordinary"], np.stack([x] * (len(near) + 1)), np.stack([*near.values(), other])


@pytest.mark.parametrize(
    ("spec", "shape", "options"),
    [
        (arch.fc(2), (3, 2, 3), {}),
        (arch.fc(1), (3, 3, 1), {"get": "nngp", **STANDARD}),
        (arch.conv(2), (4, 5, 3), {"get": "nngp"}),
        pytest.param(arch.convnet(2), (6, 7, 1), {}, marks=pytest.mark.slow),
        pytest.param(arch.convnet(1), (4, 5, 3), STANDARD, marks=pytest.mark.slow),
        (arch.convnet_plain(1), (4, 4, 1), {"get": "nngp", **STANDARD}),
        pytest.param(STRIDED, (5, 6, 1), {}, marks=pytest.mark.slow),
        (HEAD, (4, 3, 2), STANDARD),
    ],
)
def test_in_float64_it_is_neural_tangents(spec, shape, options):
    """Ordinary pairs: near ones are where neural_tangents loses digits."""
    x1, x2 = np.random.default_rng(0).normal(size=(2, 3, *shape))
    k, gradients = jax.jit(with_gradient(spec, shape, **options))(x1, x2)
    want, exact = reference(spec, x1, x2, **options)
    np.testing.assert_allclose(k, want, rtol=1e-12)
    np.testing.assert_allclose(gradients, exact, atol=1e-11 * np.abs(exact).max())


@pytest.mark.parametrize(
    ("spec", "shape", "options"),
    [
        (arch.fc(2), (8, 8, 3), {}),
        pytest.param(arch.convnet_plain(1), (6, 6, 3), {}, marks=pytest.mark.slow),
        pytest.param(arch.fc(1), (8, 8, 1), STANDARD, marks=pytest.mark.slow),
        pytest.param(arch.conv(2), (6, 6, 1), STANDARD, marks=pytest.mark.slow),
        pytest.param(arch.convnet(2), (8, 8, 3), STANDARD, marks=pytest.mark.slow),
        pytest.param(arch.convnet(3), (8, 8, 1), {}, marks=pytest.mark.slow),
        pytest.param(STRIDED, (6, 6, 3), {}, marks=pytest.mark.slow),
        pytest.param(HEAD, (5, 5, 3), {"get": "nngp"}, marks=pytest.mark.slow),
    ],
)
def test_near_images_in_pairs_of_float32(spec, shape, options):
    kinds, x1, x2 = near_pairs(shape)
    with jax.enable_x64(False):
        run = in_pairs(with_gradient(spec, shape, **options))
        k, gradients = jax.jit(run, compiler_options=UNFUSED)(x1, x2)
    want, exact = reference(spec, x1, x2, **options)
    assert k.dtype == gradients.dtype == np.float32
    errors = np.abs(k / want - 1), relative(np.asarray(gradients), np.asarray(exact))
    wrong = (errors[0] > VALUES) | (errors[1] > WITHOUT_X64)
    assert dict(zip(np.array(kinds)[wrong], np.array(errors).T[wrong], strict=True)) == {}


def test_equal_images_have_no_distance():
    """Through pools too, whose distances are differences of means."""
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 1))
    spec = arch.convnet_plain(1)
    k, gradients = jax.jit(with_gradient(spec, x.shape[1:]))(x, x)
    theirs = kernels.make_kernel(spec, implementation="neural_tangents", width=WIDTH)
    np.testing.assert_allclose(k, np.diag(theirs(x, x)), rtol=1e-12)
    assert np.isfinite(gradients).all()
