"""The compiled kernel as JAX sees it: devices, processes, what is computed and what is not.

Its numbers are tested with those of 'xla' in `build_test.py` and `plan_test.py`.
"""

import concurrent.futures
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from own_process import output_of

from kip_flax import architectures as arch
from kip_flax import kernels
from kip_flax.kernels.cpu import pairs, threads
from kip_flax.kernels.jacobian import make_jacobian
from kip_flax.kernels.sharded import shard_kernel
from kip_flax.runtime import sharding

SPEC = arch.convnet(2)
pytestmark = pytest.mark.usefixtures("compiled_kernel")


def images(n, size=8, channels=1, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, size, size, channels))
    return jnp.asarray(x, jnp.float32)


def kernel_and_gradient(kernel, x1, x2):
    weights = np.random.default_rng(1).normal(size=(len(x1), len(x2)))
    k, vjp = jax.vjp(kernel, x1, x2)
    return k, *vjp(jnp.asarray(weights, k.dtype))


def test_results_do_not_depend_on_the_number_of_threads(monkeypatch):
    """Bit for bit: a run can be resumed on another machine."""
    x1, x2 = images(11), images(70, seed=1)
    kernel = kernels.make_kernel(SPEC, implementation="cpu")
    run = jax.jit(functools.partial(kernel_and_gradient, kernel))
    results = []
    for count in (1, 3):
        pool = concurrent.futures.ThreadPoolExecutor(count)
        monkeypatch.setattr(threads, "_pool", lambda pool=pool: pool)
        results.append(jax.tree.map(np.asarray, run(x1, x2)))
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_devices_share_the_work_and_the_pool():
    x1, x2 = images(9), images(7, seed=1)
    kernel = kernels.make_kernel(SPEC, implementation="cpu")
    mesh = sharding.make_mesh(2, 2)
    spread = jax.jit(lambda a, b: kernel_and_gradient(shard_kernel(kernel, mesh), a, b))
    for one, other in zip(spread(x1, x2), kernel_and_gradient(kernel, x1, x2), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6 * np.abs(other).max())
    assert threads._pool()._max_workers == threads.count()


@pytest.mark.parametrize(("asked", "calls"), [((0,), 1), ((1,), 1), ((0, 1), 2)])
def test_only_the_gradients_that_are_asked_for(monkeypatch, asked, calls):
    seen = []
    original = pairs.gradient
    monkeypatch.setattr(pairs, "gradient", lambda *args: (seen.append(1), original(*args))[1])
    kernel = kernels.make_kernel(SPEC, implementation="cpu")
    jax.jit(jax.grad(lambda a, b: kernel(a, b).sum(), asked))(images(3), images(4, seed=1))
    assert len(seen) == calls


def test_a_set_with_itself_computes_one_triangle(monkeypatch):
    seen = []
    original = pairs.tiles_forward

    def counted(*args):
        seen.append(args[7])
        return original(*args)

    monkeypatch.setattr(pairs, "tiles_forward", counted)
    x = images(40)
    kernel = kernels.make_kernel(SPEC, implementation="cpu")
    same = kernel(x, x)
    assert seen
    assert all(seen)
    seen.clear()
    np.testing.assert_allclose(same, kernel(x, x + 0), rtol=1e-6)
    assert not any(seen)
    np.testing.assert_array_equal(same, same.T)


def test_near_duplicates_are_computed_in_parts(monkeypatch):
    """All pairs of images of little contrast are near; memory does not hold them all at once."""
    rng = np.random.default_rng(0)
    x1, x2 = (1 + 0.01 * rng.normal(size=(n, 6, 6, 1)).astype(np.float32) for n in (3, 5))
    kernel = kernels.make_kernel(SPEC, implementation="cpu")
    jacobian = make_jacobian(kernels.KernelOptions(SPEC, implementation="cpu"))
    whole = (*kernel_and_gradient(kernel, x1, x2), *jacobian(x1, x2))
    sizes = []
    original = pairs.near_values
    monkeypatch.setattr(
        pairs, "near_values", lambda p, sides: (sizes.append(len(sides.x1)), original(p, sides))[1]
    )
    monkeypatch.setattr(pairs, "_NEAR_PAIRS", 4)
    parts = (*kernel_and_gradient(kernel, x1, x2), *jacobian(x1, x2))
    assert sizes == [4, 4, 4, 3] * 2
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_one_core_is_enough():
    """JAX's callbacks wait for arrays: not for the thread that they run on."""
    code = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import jax, numpy as np
from kip_flax import architectures, kernels
kernel = kernels.make_kernel(architectures.convnet(1), implementation="cpu")
x = np.random.default_rng(0).normal(size=(3000, 16, 16, 3)).astype("f")
step = jax.jit(jax.value_and_grad(lambda a, b: kernel(b, a).sum()))
for _ in range(3):
    value, gradient = step(x[:2], x)
print(np.isfinite(gradient).all())
"""
    assert output_of(code).strip() == "True"
