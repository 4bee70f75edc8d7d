"""The gradient of every target apart, against JAX's own of one target at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kip_flax import architectures, kernels, krr
from kip_flax.kernels import jacobian
from kip_flax.kernels.options import KernelOptions
from kip_flax.krr import per_target
from kip_flax.krr.per_target import Gradients
from kip_flax.krr.residuals import Batch

SUPPORT, TARGETS, CLASSES, SHAPE = 4, 5, 3, (6, 6, 1)
REG = 1e-2


def problem(seed=0):
    rng = np.random.default_rng(seed)
    images, x = (
        jnp.asarray(rng.standard_normal((n, *SHAPE)), jnp.float32) for n in (SUPPORT, TARGETS)
    )
    labels = jnp.asarray(rng.standard_normal((SUPPORT, CLASSES)), jnp.float32)
    y = krr.centered_one_hot(np.arange(TARGETS) % CLASSES, CLASSES)
    return images, labels, Batch(x, y, jnp.ones(TARGETS))


def gradients_of(of_pairs, images, labels, batch, basis=None):
    of_support, gradients = per_target.make_gradients(of_pairs, REG, basis)
    return jax.jit(gradients)(jax.jit(of_support)(images, labels), batch)


def one_at_a_time(kernel, images, labels, batch):
    """The gradients of the losses of single targets, by JAX through the whole of KRR."""

    def loss(images, labels, x, y):
        alpha = krr.solve(kernel(images, images), labels, REG)
        return krr.loss(krr.predict(kernel(x[None], images), alpha), y[None])

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))
    found = [gradient(images, labels, x, y) for x, y in zip(batch.x, batch.y, strict=True)]
    flat = [np.asarray(images).reshape(SUPPORT, -1) for images, _ in found]
    return Gradients(np.stack(flat), np.stack([labels for _, labels in found]))


@pytest.mark.parametrize(
    ("spec", "implementation"),
    [
        (architectures.fc(2), "xla"),
        pytest.param(architectures.convnet(1), "xla", marks=pytest.mark.slow),
        pytest.param(architectures.convnet(1), "cpu", marks=pytest.mark.slow),
        pytest.param(architectures.myrtle(5), "cpu", marks=pytest.mark.slow),
    ],
)
def test_they_are_those_of_each_target_alone(spec, implementation):
    options = KernelOptions(spec, implementation=implementation)
    images, labels, batch = problem()
    found = gradients_of(jacobian.make_jacobian(options), images, labels, batch)
    kernel = kernels.make_kernel(spec, implementation="xla")
    exact = one_at_a_time(kernel, images, labels, batch)
    for part, right in zip(found, exact, strict=True):
        np.testing.assert_allclose(part, right, rtol=1e-3, atol=2e-4 * np.abs(right).max())


def test_along_a_basis_they_are_the_products_with_its_rows():
    images, labels, batch = problem()
    basis = np.linalg.qr(np.random.default_rng(2).standard_normal((36, 5)))[0].T
    of_pairs = jacobian.make_jacobian(KernelOptions(architectures.fc(1), implementation="xla"))
    whole = gradients_of(of_pairs, images, labels, batch)
    part = gradients_of(of_pairs, images, labels, batch, jnp.asarray(basis, jnp.float32))
    largest = np.abs(whole.images).max()
    np.testing.assert_allclose(part.images, whole.images @ basis.T, atol=1e-5 * largest)
    np.testing.assert_array_equal(part.labels, whole.labels)


def norm(*arrays):
    return np.sqrt(sum(np.sum(np.square(np.asarray(array, np.float64))) for array in arrays))


@pytest.mark.parametrize("clip", [1e-6, 0.5, 1e3])
def test_one_target_more_or_less_moves_the_sum_by_the_clip_at_most(clip):
    """The sensitivity, over all neighbours of a data set with targets of very unlike gradients."""
    rng = np.random.default_rng(1)
    sizes = np.array([1e-8, 1e-3, 0.4, 1.0, 30.0, 1e6])[:, None, None]
    gradients = Gradients(
        *(jnp.asarray(sizes * rng.standard_normal((6, 4, n)), jnp.float32) for n in (9, 3))
    )
    clipped = jax.jit(per_target.clipped_sum)
    everyone = clipped(gradients, jnp.ones(6), clip)
    moved = []
    for target in range(6):
        others = clipped(gradients, jnp.ones(6).at[target].set(0), clip)
        moved.append(norm(everyone.images - others.images, everyone.labels - others.labels))
    exact = np.minimum(clip, norm_of_each(gradients))
    # A difference of sums has the rounding of the sums: 6 clips at the most.
    np.testing.assert_allclose(moved, exact, rtol=1e-4, atol=1e-6 * clip)
    alone = per_target.clipped_sum(Gradients(*(part[-1:] for part in gradients)), jnp.ones(1), clip)
    assert norm(*alone) <= clip


def norm_of_each(gradients):
    return np.array([norm(*parts) for parts in zip(*gradients, strict=True)])


@pytest.mark.parametrize("broken", [np.nan, np.inf, 3e38])
def test_a_target_whose_gradient_is_not_finite_adds_nothing(broken):
    images = jnp.ones((2, 1, 4), jnp.float32).at[0, 0, 0].set(broken)
    labels = jnp.zeros((2, 1, 3), jnp.float32)
    found = per_target.clipped_sum(Gradients(images, labels), jnp.ones(2), 0.5)
    alone = per_target.clipped_sum(Gradients(images[1:], labels[1:]), jnp.ones(1), 0.5)
    np.testing.assert_array_equal(found.images, alone.images)
    assert norm(*found) == pytest.approx(0.5, rel=1e-4)
