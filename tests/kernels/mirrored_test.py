"""`mirrored`: against the mean of the four kernels by neural_tangents in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kip_flax import architectures as arch
from kip_flax import kernels, krr
from kip_flax.kernels.jacobian import make_jacobian
from kip_flax.kernels.sharded import shard_jacobian, shard_kernel
from kip_flax.runtime import sharding
from kip_flax.runtime.errors import UserError

pytestmark = pytest.mark.usefixtures("compiled_kernel")

SPECS = {
    "fc": (arch.fc(2), (4, 6, 3)),
    "convnet": (arch.convnet(1), (5, 4, 1)),  # The last row is dropped, and no column.
    "strided": (
        (arch.Conv(), arch.Relu(), arch.Conv(3, 2), arch.Relu(), arch.Flatten(), arch.Dense()),
        (4, 5, 2),
    ),
}
SLOW = ("fc", "cpu"), ("convnet", "xla"), ("strided", "cpu")
CASES = [("convnet", "cpu"), *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]


def images(shape, sizes=(3, 5)):
    rng = np.random.default_rng(0)
    return [rng.normal(size=(n, *shape)).astype(np.float32) for n in sizes]


def four_kernels(spec):
    """The mean over both mirror images of both arguments."""
    kernel = kernels.make_kernel(spec, implementation="neural_tangents")

    def mean(x1, x2):
        sides = [(a, b) for a in (x1, x1[:, :, ::-1]) for b in (x2, x2[:, :, ::-1])]
        return sum(kernel(a, b) for a, b in sides) / 4

    return mean


def close(ours, theirs, tolerance=2e-5):
    theirs = np.asarray(theirs)
    np.testing.assert_allclose(ours, theirs, atol=tolerance * np.abs(theirs).max())


@pytest.mark.parametrize(("name", "implementation"), CASES)
def test_it_is_the_mean_of_four_kernels(name, implementation):
    """Values and gradients in both arguments, of two sets and of one with itself."""
    spec, shape = SPECS[name]
    x1, x2 = images(shape)
    ours = kernels.make_kernel(spec, implementation=implementation, mirrored=True)
    theirs = four_kernels(spec)
    weights = np.random.default_rng(1).normal(size=(5, 5))

    def of_two(kernel):
        def total(x1, x2):
            k = kernel(x1, x2)
            return jnp.sum(k * weights[:3]), k

        return jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))

    def with_itself(kernel):
        def total(x):
            k = kernel(x, x)
            return jnp.sum(k * weights), k

        return jax.jit(jax.grad(total, has_aux=True))

    for run, arguments in ((of_two, (x1, x2)), (with_itself, (x2,))):
        exact = run(theirs)(*(x.astype(float) for x in arguments))
        jax.tree.map(close, run(ours)(*arguments), exact)


@pytest.mark.parametrize(("name", "implementation"), CASES)
def test_each_pair_has_its_own_gradient(name, implementation, monkeypatch):
    """As the sum of a target's entries, of which each reads one support image; piece by piece."""
    spec, shape = SPECS[name]
    monkeypatch.setattr("kip_flax.kernels.jacobian._MOST", 8 * 3 * int(np.prod(shape)))
    x_t, x_s = images(shape, (3, 4))
    options = kernels.KernelOptions(spec, implementation=implementation, mirrored=True)
    k, dk = jax.jit(make_jacobian(options))(x_t, x_s)
    kernel = four_kernels(spec)
    close(k, kernel(x_t.astype(float), x_s.astype(float)))
    row = jax.jit(jax.grad(lambda x_s, x: kernel(x[None], x_s).sum()))
    exact = jnp.stack([row(x_s.astype(float), x.astype(float)) for x in x_t])
    close(dk, jnp.swapaxes(exact, 0, 1).reshape(dk.shape))


@pytest.mark.slow
def test_a_mesh_changes_nothing():
    spec, shape = SPECS["fc"]
    x1, x2 = images(shape, (6, 5))
    options = kernels.KernelOptions(spec, mirrored=True)
    mesh = sharding.make_mesh(2, 2)
    kernel, jacobian = kernels.make_kernel(options), make_jacobian(options)
    close(jax.jit(shard_kernel(kernel, mesh))(x1, x2), kernel(x1, x2))
    close(jax.jit(lambda x: shard_kernel(kernel, mesh)(x, x))(x2), kernel(x2, x2))
    jax.tree.map(close, jax.jit(shard_jacobian(jacobian, mesh))(x1, x2), jacobian(x1, x2))


def test_it_is_regression_on_a_support_doubled_by_mirror_images():
    spec, shape = SPECS["convnet"]
    x_t, x_s = images(shape, (4, 5))
    y_s = np.random.default_rng(1).normal(size=(5, 2))
    plain, mirrored = (kernels.make_kernel(spec, mirrored=flag) for flag in (False, True))
    doubled = np.concatenate([x_s, x_s[:, :, ::-1]])
    found = []
    for kernel, x, y in ((mirrored, x_s, y_s), (plain, doubled, np.concatenate([y_s, y_s]))):
        k_ss, k_ts = (np.asarray(kernel(a, x), float) for a in (x, x_t))
        found.append(k_ts @ np.linalg.solve(k_ss, y))
    np.testing.assert_allclose(*found, rtol=1e-3, atol=1e-3)
    alpha = krr.solve(jnp.asarray(mirrored(x_s, x_s)), y_s, 1e-9)
    np.testing.assert_allclose(krr.predict(mirrored(x_t, x_s), alpha), found[0], atol=1e-3)


@pytest.mark.parametrize(
    ("spec", "shape", "columns"),
    [
        (arch.convnet(1), (4, 5, 1), "2 columns of 5"),
        (arch.convnet(3), (28, 28, 1), "3 columns of 7"),
        (SPECS["strided"][0], (5, 4, 1), "2 columns of 4"),
    ],
)
def test_layers_that_tell_left_from_right_are_refused(spec, shape, columns):
    x = np.ones((2, *shape), np.float32)
    options = kernels.KernelOptions(spec, mirrored=True)
    for function in (kernels.make_kernel(options), make_jacobian(options)):
        with pytest.raises(UserError, match=f"left and right alike.*{columns}"):
            function(x, x.copy())
