"""Near-duplicates: which pairs, and that they alone are replaced, with an exact gradient.

On a TPU by pairs of float32, which the tests take on a CPU; elsewhere by float64.
"""

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest
from kernel_checks import UNFUSED, VALUES, WITHOUT_X64, relative, value_and_vjp

from kip_flax import architectures as arch
from kip_flax.kernels import make_kernel, near_duplicates
from kip_flax.kernels.options import KernelOptions
from kip_flax.kernels.plan import make_plan


def kernel(a, b):
    """A kernel with all precisions visible; symmetric. (m, ...), (m, ...) -> (m,)."""
    a, b = (x.reshape(len(x), -1) for x in (a, b))
    return jnp.sum(a * b, axis=-1) * (1 - jnp.mean((a - b) ** 2, axis=-1) / 2)


paired = near_duplicates.Paired(kernel, kernel)


@pytest.fixture(params=["cpu", "tpu"])
def platform(request, monkeypatch):
    """The device whose way is taken."""
    monkeypatch.setattr(jax, "default_backend", lambda: request.param)


def dense(a, b):
    pair = jax.vmap(lambda x, y: kernel(x[None], y[None])[0], (None, 0))
    return jax.vmap(pair, (0, None))(a, b)


def image_sets(copies=2):
    rng = np.random.default_rng(0)
    x1 = rng.normal(size=(3, 4, 4, 2)).astype(np.float32)
    ordinary = rng.normal(size=(2, 4, 4, 2))
    noise = rng.normal(size=(copies, 1, 4, 4, 2)) * 1e-2
    return x1, np.concatenate([ordinary, *(x1 + noise), x1]).astype(np.float32)


def test_near_is_the_relative_distance():
    x1, x2 = image_sets()
    scales = 10 ** np.linspace(-4, 0, 40)
    x2 = np.concatenate([x2, *(x1[:1] * (1 + s) for s in scales)]).astype(np.float32)
    a, b = (x.reshape(len(x), 1, -1).astype(float) for x in (x1, x2))
    b = b.transpose(1, 0, 2)
    relative = np.sum((a - b) ** 2, -1) / (np.sum(a * a, -1) + np.sum(b * b, -1))
    mask = np.asarray(near_duplicates.near(x1, x2))
    clear = np.abs(relative - 1e-3) > 1e-5  # The rest is rounding.
    np.testing.assert_array_equal(mask[clear], (relative <= 1e-3)[clear])
    assert clear.mean() > 0.98
    assert 0 < mask.sum() < mask.size


def test_zero_images_are_equal():
    zeros = jnp.zeros((2, 3, 3, 1))
    assert near_duplicates.near(zeros, zeros).all()


@pytest.mark.parametrize("copies", [2, 9], ids=["one chunk", "more pairs than a chunk holds"])
def test_near_pairs_are_replaced_and_others_left(copies, platform):
    x1, x2 = image_sets(copies)
    mask = np.asarray(near_duplicates.near(x1, x2))
    assert (mask.sum() > near_duplicates._CHUNK) == (copies == 9)
    assert mask.sum() % near_duplicates._CHUNK  # The last chunk is not full.
    wrong = jnp.full(mask.shape, -7, jnp.float32)
    k = jax.jit(lambda *x: near_duplicates.corrected(paired, wrong, *x))(x1, x2)
    exact = dense(x1.astype(float), x2.astype(float))
    np.testing.assert_allclose(k, np.where(mask, exact, -7), rtol=1e-7)


@pytest.mark.parametrize("copies", [2, 9], ids=["one chunk", "more pairs than a chunk holds"])
def test_gradients_of_the_replaced_pairs(copies, platform):
    """In both images, summed over the pairs of each; the kernel given keeps its own elsewhere."""
    x1, x2 = image_sets(copies)
    mask = np.asarray(near_duplicates.near(x1, x2))
    weights = np.random.default_rng(1).normal(size=mask.shape)

    def ours(a, b):
        return (weights * near_duplicates.corrected(paired, 3 * dense(a, b), a, b)).sum()

    def theirs(a, b):
        k = dense(a, b)
        return (weights * jnp.where(mask, k, 3 * k)).sum()

    gradients = jax.jit(jax.grad(ours, (0, 1)))(x1, x2)
    exact = jax.jit(jax.grad(theirs, (0, 1)))(x1.astype(float), x2.astype(float))
    for gradient, want in zip(gradients, exact, strict=True):
        assert gradient.dtype == np.float32
        np.testing.assert_allclose(gradient, want, rtol=1e-5, atol=1e-6 * np.abs(want).max())


def test_without_near_pairs_nothing_runs(platform):
    """Not one chunk: a pair kernel of NaN would show."""
    x1, x2 = map(jnp.asarray, image_sets())
    k = jnp.ones((3, 2), jnp.float32)

    def nan(a, b):
        return jnp.sum(a * b, axis=(1, 2, 3)) + jnp.nan

    nans = near_duplicates.Paired(nan, nan)
    np.testing.assert_array_equal(near_duplicates.corrected(nans, k, x1, x2[:2]), k)


def test_near_pairs_are_float64s_with_the_switch_off():
    """Values and gradients are what they are with it on."""
    x1, x2 = image_sets()
    weights = np.random.default_rng(1).normal(size=(3, len(x2))).astype(np.float32)

    def measured(x1, x2):
        def value(x1):
            k = near_duplicates.corrected(paired, jnp.zeros((3, len(x2)), jnp.float32), x1, x2)
            return jnp.sum(weights * k), k

        return jax.jit(jax.grad(value, has_aux=True))(x1)

    on = measured(x1, x2)
    with jax.enable_x64(False):
        off = measured(x1, x2)
    for a, b in zip(off, on, strict=True):
        assert a.dtype == np.float32
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("chunk", "copies"), [(1, 2), (5, 9)])
def test_on_a_tpu_as_many_pairs_at_once_as_its_memory_holds(chunk, copies, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    x1, x2 = image_sets(copies)
    seen = []

    def counted(a, b):
        seen.append(len(a))
        return kernel(a, b)

    k = jnp.zeros((3, len(x2)), jnp.float32)
    found = near_duplicates.corrected(near_duplicates.Paired(kernel, counted, chunk), k, x1, x2)
    assert set(seen) == {chunk}
    mask = np.asarray(near_duplicates.near(x1, x2))
    exact = dense(x1.astype(float), x2.astype(float))
    np.testing.assert_allclose(found, np.where(mask, exact, 0), rtol=1e-7)


def test_large_images_go_one_at_a_time():
    """512 MiB of arrays at most, unless one pair takes more."""
    sizes = {}
    for spec in (arch.fc(1), arch.convnet(3), arch.myrtle(5)):
        for size in (8, 32):
            plan = make_plan(KernelOptions(spec), (size, size, 3))
            sizes[spec, size] = near_duplicates.make_paired(plan, "ntk", kernel).chunk
    assert list(sizes.values()) == [16, 16, 16, 3, 16, 1]


@pytest.mark.slow
def test_an_xla_kernel_on_a_tpu(monkeypatch):
    """The whole kernel on its way there: near pairs have the gradient of float64."""
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 1)).astype(np.float32)
    near = (x + 1e-4 * np.random.default_rng(1).normal(size=x.shape)).astype(np.float32)
    theirs = make_kernel(arch.convnet_plain(1), implementation="neural_tangents")
    want, exact = value_and_vjp(theirs, (0,))(x.astype(float), near.astype(float), np.ones((2, 2)))
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    with jax.enable_x64(False):
        ours = make_kernel(arch.convnet_plain(1), implementation="xla")
        k, (gradient,) = value_and_vjp(ours, (0,), UNFUSED)(x, near, np.ones((2, 2), np.float32))
    np.testing.assert_allclose(k, want, rtol=VALUES)
    assert relative(np.asarray(gradient), np.asarray(exact[0])).max() < WITHOUT_X64


def test_the_work_grows_with_the_near_pairs_and_not_with_its_square():
    """A chunk reads no array of all pairs: the whole mask is read once, before the first."""
    x = jnp.ones((40, 2, 2, 1), jnp.float32)
    traced = jax.make_jaxpr(lambda *x: near_duplicates.corrected(paired, jnp.zeros((40, 40)), *x))

    def loops(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "while":
                yield equation.params["body_jaxpr"].jaxpr
            for inner in jax.extend.core.jaxprs_in_params(equation.params):
                yield from loops(inner)

    (body,) = loops(traced(x, x).jaxpr)
    whole = [
        equation.primitive.name
        for equation in body.eqns
        if any(np.prod(out.aval.shape) >= 40 * 40 for out in equation.outvars)
    ]
    assert whole == ["scatter"]  # The chunk's values, written in place.
