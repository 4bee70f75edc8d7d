"""One, two and four devices: the same kernel, loss and gradient, whether or not sizes divide."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import collectives
from kip_flax import architectures as arch
from kip_flax import kernels, krr
from kip_flax.kernels.jacobian import make_jacobian
from kip_flax.kernels.sharded import shard_jacobian, shard_kernel
from kip_flax.runtime import sharding

MESHES = [(2, 2), *(pytest.param(shape, marks=pytest.mark.slow) for shape in ((2, 1), (4, 1)))]
T, S, CLASSES = 11, 7, 3  # Neither divides by 2 or by 4.
pytestmark = pytest.mark.usefixtures("compiled_kernel")


def problem(size=8):
    rng = np.random.default_rng(0)
    x_t, x_s = (rng.normal(size=(n, size, size, 1)).astype(np.float32) for n in (T, S))
    x_t[0] = x_s[0]  # Where the support was drawn from.
    return x_t, np.asarray(krr.centered_one_hot(rng.integers(CLASSES, size=T), CLASSES)), x_s


def results(spec, shape):
    """Kernel of targets and support, loss, and its gradient, on a mesh of `shape`."""
    mesh = sharding.make_mesh(*shape)
    kernel = shard_kernel(kernels.make_kernel(spec), mesh)
    x_t, y_t, x_s = problem()
    targets = sharding.put_targets(mesh, x_t, y_t)
    x_s, y_s = sharding.replicate(mesh, (x_s, y_t[:S]))

    def loss(x_s, x_t, y_t, weights):
        k_ts = kernel(x_t, x_s)
        pred = krr.predict(k_ts, krr.solve(kernel(x_s, x_s), y_s, 1e-3))
        return krr.loss(pred, y_t, weights), k_ts

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, k_ts), gradient = run(x_s, *targets)
    assert gradient.sharding.device_set == set(mesh.devices.flat)
    return k_ts[:T], value, gradient


def check(one, many):
    for a, b in zip(one, many, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5 * np.abs(a).max())


@pytest.fixture(scope="module")
def one_device():
    return results(arch.fc(1), (1, 1))


def test_one_device_is_numpy(one_device):
    """The padded, weighted loss against a NumPy solve of the same kernel without padding."""
    x_t, y_t, x_s = problem()
    kernel = jax.jit(kernels.make_kernel(arch.fc(1), implementation="neural_tangents"))
    k_ss, k_ts = (np.asarray(kernel(x.astype(float), x_s.astype(float))) for x in (x_s, x_t))
    k_reg = k_ss + 1e-3 * np.trace(k_ss) / S * np.eye(S)
    loss = 0.5 * np.mean((k_ts @ np.linalg.solve(k_reg, y_t[:S]) - y_t) ** 2)
    np.testing.assert_allclose(one_device[0], k_ts, rtol=1e-5)
    assert float(one_device[1]) == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_meshes_agree(one_device, shape):
    check(one_device, results(arch.fc(1), shape))


def test_meshes_agree_on_a_convolutional_kernel():
    """Without float64, which would compile the kernel twice."""
    spec, (x_t, _, x_s) = arch.conv(1), problem(4)

    def run(kernel):
        def total(x_s):
            k_ts, k_ss = kernel(x_t, x_s), kernel(x_s, x_s)
            return jnp.sum(k_ts**2) + jnp.sum(k_ss**2), (k_ts, k_ss)

        (value, ks), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(x_s)
        return *ks, value, gradient

    with jax.enable_x64(False):
        kernel = kernels.make_kernel(spec)
        check(run(kernel), run(shard_kernel(kernel, sharding.make_mesh(2, 2))))


def test_a_step_exchanges_support_sized_arrays_only():
    """No collective carries the targets: none is as large as a device's share of them."""
    mesh = sharding.make_mesh(4)
    kernel = shard_kernel(
        lambda a, b: jnp.tanh(a.reshape(len(a), -1) @ b.reshape(len(b), -1).T), mesh
    )
    rng = np.random.default_rng(0)
    x_t, _, _ = sharding.put_targets(mesh, rng.normal(size=(400, 8, 8, 1)), np.zeros((400, 1)))
    x_s = sharding.replicate(mesh, rng.normal(size=(4, 8, 8, 1)))
    grad = jax.jit(jax.grad(lambda s, t: (kernel(t, s) ** 2).sum()))
    found = collectives.collectives(grad.lower(x_s, x_t).compile().as_text())
    assert {one.op for one in found} == {"all-reduce"}
    assert 0 < sum(one.size for one in found) <= x_s.nbytes


@pytest.mark.parametrize("axes", [(2, 1), (2, 2), (1, 4)])
def test_meshes_agree_on_each_pair_s_gradient(axes):
    rng = np.random.default_rng(0)
    x_s, x_t = (rng.normal(size=(n, 4, 4, 1)).astype(np.float32) for n in (3, 8))
    options = kernels.KernelOptions(arch.convnet(1), implementation="cpu")
    jacobian = make_jacobian(options)
    mesh = sharding.make_mesh(*axes)
    spread = jax.jit(shard_jacobian(jacobian, mesh))
    targets, _, _ = sharding.put_targets(mesh, x_t, np.zeros(8))
    k, dk = spread(targets, sharding.replicate(mesh, x_s))
    expected = jacobian(x_t, x_s)
    np.testing.assert_allclose(k, expected[0], rtol=1e-6)
    np.testing.assert_allclose(dk, expected[1], atol=1e-6 * np.abs(expected[1]).max())


def test_images_with_themselves_without_jit():
    x = jnp.asarray(problem()[2]).reshape(S, -1)
    kernel = lambda a, b: jnp.tanh(a @ b.T)  # noqa: E731
    found = shard_kernel(kernel, sharding.make_mesh(2))(x, x)
    np.testing.assert_allclose(found, kernel(x, x), rtol=1e-6)
