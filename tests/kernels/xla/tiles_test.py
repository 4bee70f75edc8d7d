"""Tiles: their width changes nothing, memory is one tile, and no gradient is made unasked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kip_flax import architectures as arch
from kip_flax import kernels
from kip_flax.kernels import near_duplicates
from kip_flax.kernels.plan import make_plan
from kip_flax.kernels.xla import layout, tiles
from kip_flax.kernels.xla.kernel import make_tile_kernel

SHAPE = (6, 6, 2)


@pytest.fixture
def x32():
    """JAX's float64 off: images and cotangents stay float32."""
    with jax.enable_x64(False):
        yield


def images(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, *SHAPE)).astype(np.float32)


@pytest.mark.parametrize("lanes", [pytest.param(3, marks=pytest.mark.slow), 5])
def test_the_width_of_a_tile_changes_nothing(x32, monkeypatch, lanes):
    plan = make_plan(kernels.KernelOptions(arch.convnet_plain(1)), SHAPE)
    x1, x2 = images(2), images(7, 1)
    cotangents = np.random.default_rng(2).normal(size=(2, 7)).astype(np.float32)

    def run(x1, x2):
        one, two = tiles.with_variances(plan, x1), tiles.with_variances(plan, x2)
        k = tiles.pair_kernel(plan, "ntk", one, two)
        return two.variances, k, tiles.fixed_gradient(plan, "ntk", one, two, cotangents)

    at_once = jax.jit(run)(x1, x2)
    monkeypatch.setattr(tiles, "_CPU_LANES", lanes)
    in_tiles = jax.jit(lambda *x: run(*x))(x1, x2)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), at_once, in_tiles
    )


@pytest.mark.parametrize("name", ["convnet", pytest.param("myrtle", marks=pytest.mark.slow)])
def test_the_layout_of_accelerators_changes_nothing(x32, monkeypatch, name):
    """What all lanes share is repeated as it is read there, and written down on CPUs."""
    spec = arch.build(name, {"convnet": 1, "myrtle": 5}[name])
    rng = np.random.default_rng(0)
    x1, x2 = (rng.normal(size=(n, 8, 8, 2)).astype(np.float32) for n in (2, 5))
    cotangents = rng.normal(size=(2, 5)).astype(np.float32)
    kernel = make_tile_kernel(make_plan(kernels.KernelOptions(spec), (8, 8, 2)), "ntk")

    def run(x1, x2):
        k, vjp = jax.vjp(kernel, x1, x2)
        return k, vjp(cotangents)

    written = jax.jit(run)(x1, x2)
    monkeypatch.setattr(layout, "repeats_lanes", lambda: False)
    repeated = jax.jit(lambda *x: run(*x))(x1, x2)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), written, repeated
    )


@pytest.mark.parametrize(
    ("backend", "size", "memory", "lanes"),
    [
        ("cpu", 32, 1, 32),
        ("gpu", 32, 1, 1280),
        ("gpu", 32, 4, 256),
        ("tpu", 32, 1, 256),
        ("tpu", 28, 1, 256),
        ("tpu", 32, 4, 256),
        ("tpu", 8, 1, 2176),
        ("tpu", 96, 4, 128),
    ],
)
def test_lanes_by_device(monkeypatch, backend, size, memory, lanes):
    """A TPU has as many as its cores' own memory holds, by what its compiler says of 256."""
    plan = make_plan(kernels.KernelOptions(arch.convnet(3)), (size, size, 3))
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert tiles.lanes_for(plan, 10**6, memory) == lanes
    assert tiles.lanes_for(plan, 20, memory) == 20


def test_memory_grows_by_what_a_target_is_not_by_what_it_takes(x32):
    """From 64 to 256 targets: the images and their variances, never the planes of a pair."""
    kernel = kernels.make_kernel(arch.convnet_plain(1), implementation="xla")
    grad = jax.jit(jax.grad(lambda s, t: kernel(t, s).sum()))

    def scratch(targets):
        memory = grad.lower(images(3), images(targets)).compile().memory_analysis()
        return memory.temp_size_in_bytes

    few, many = scratch(64), scratch(256)
    pixels = SHAPE[0] * SHAPE[1]
    image_and_variances = 4 * pixels * (SHAPE[2] + 1)
    pair = tiles.bytes_per_lane(make_plan(kernels.KernelOptions(arch.convnet_plain(1)), SHAPE))
    assert few > 0
    assert many - few < 192 * 6 * image_and_variances
    assert many - few < 192 * 3 * pair / 4  # A quarter of what the planes of all pairs would take.


@pytest.mark.parametrize(
    ("wrt", "sizes"), [((), []), (0, [2]), (1, [3]), ((0, 1), [2, 3])], ids=str
)
def test_only_the_gradients_asked_for_are_made(monkeypatch, wrt, sizes):
    made, near = count_gradients(monkeypatch)
    kernel = kernels.make_kernel(arch.conv(1), implementation="xla")

    def loss(x1, x2):
        return kernel(x1, x2).sum()

    jax.make_jaxpr(loss if wrt == () else jax.grad(loss, wrt))(images(2), images(3, 1))
    assert made == near == sizes


def test_a_set_with_itself_takes_one_gradient(monkeypatch):
    made, near = count_gradients(monkeypatch)
    kernel = kernels.make_kernel(arch.conv(1), implementation="xla")
    jax.make_jaxpr(jax.grad(lambda x: kernel(x, x).sum()))(images(4))
    assert made == near == [4]


def count_gradients(monkeypatch):
    """Lists that fill with the number of images of each gradient as it is traced."""
    made, near = [], []

    def counted(function, calls, position):
        def run(*args):
            calls.append(len(jax.tree.leaves(args[position])[0]))
            return function(*args)

        return run

    monkeypatch.setattr(tiles, "fixed_gradient", counted(tiles.fixed_gradient, made, 2))
    monkeypatch.setattr(near_duplicates, "_gradient", counted(near_duplicates._gradient, near, 2))
    return made, near


def test_a_zero_cotangent_costs_nothing(monkeypatch):
    made, _ = count_gradients(monkeypatch)
    kernel = kernels.make_kernel(arch.conv(1), implementation="xla")

    def loss(x):
        return jax.lax.stop_gradient(kernel(x, images(3))).sum() + jnp.sum(x)

    jax.make_jaxpr(jax.grad(loss))(images(2))
    assert made == []
