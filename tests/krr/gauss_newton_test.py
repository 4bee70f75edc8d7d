"""Gauss-Newton steps against NumPy's dense algebra and losses in float64."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from least_squares import JACOBIAN, KERNEL, KINDS, losses, problem, residuals_of

from kip_flax import krr
from kip_flax.kernels.sharded import shard_jacobian, shard_kernel
from kip_flax.krr import damping, gauss_newton
from kip_flax.runtime import sharding


def stepper(kind, kernel=KERNEL, jacobian=JACOBIAN, block=0):
    residuals = residuals_of(kind, kernel, jacobian)
    return gauss_newton.make_step(residuals, iterations=50, key=jax.random.key(0), block=block)


def first(images, labels):
    return gauss_newton.init(images, labels, least_damping=0.1)


def learnable():
    """Eight batches of 150 targets whose class their pixels tell, and 1,000 other targets."""
    _, _, batch = problem(targets=2200)
    weights = np.random.default_rng(9).normal(size=(9, 3))
    numbers = np.argmax(batch.x.reshape(-1, 9) @ weights, axis=1)
    whole = batch._replace(y=np.asarray(krr.centered_one_hot(numbers, 3)))
    part = [type(batch)(*(a[i : i + 150] for a in whole)) for i in range(0, 1200, 150)]
    return part, type(batch)(*(a[1200:] for a in whole))


@pytest.mark.parametrize("kind", KINDS)
def test_steps_lower_the_loss_elsewhere_and_tell_of_it(kind):
    batches, others = learnable()
    images, labels = batches[0].x[:4], batches[0].y[:4]
    state, step, ratios = first(images, labels), stepper(kind), []
    begin = losses[kind](images, labels, others)
    for batch in batches:
        before = np.array(state.images)
        state, metrics = step(state, *batch)
        assert float(metrics["loss"]) == pytest.approx(
            losses[kind](before, labels, batch), rel=1e-4
        )
        assert metrics["grad_norm"] > 0
        ratios.append(float(metrics["gain_ratio"]))
    assert losses[kind](np.array(state.images), labels, others) < 0.8 * begin
    assert max(ratios) > 0.75
    assert int(state.number) == 8
    np.testing.assert_array_equal(state.labels, labels)


def test_the_images_to_use_are_a_mean_of_those_of_the_steps():
    """Of the n-th step's with weight n (n + 1) (n + 2); the first images are in it no more."""
    batches, _ = learnable()
    state, step, seen = first(batches[0].x[:4], batches[0].y[:4]), stepper("solved"), []
    for batch in batches[:5]:
        state, _ = step(state, *batch)
        seen.append(np.array(state.images))
    assert np.abs(np.diff(seen, axis=0)).max() > 0.01
    mean = np.average(seen, axis=0, weights=[n * (n + 1) * (n + 2) for n in range(1, 6)])
    np.testing.assert_allclose(state.average, mean, atol=1e-5)


def test_a_batch_of_noise_is_left_out_and_changes_nothing():
    images, labels, batch = problem(targets=300)
    step, state = stepper("solved"), first(images, labels)
    moved = []
    for _ in range(6):  # The same batch again: soon it has nothing more to tell.
        before = jax.tree.map(np.array, state)
        state, metrics = step(state, *batch)
        moved.append(np.abs(np.asarray(state.images) - before.images).max())
    assert moved[0] > 0.01
    assert float(metrics["gain_ratio"]) == 0
    assert moved[-1] == 0
    assert float(state.damping) == float(before.damping) < damping.DAMPINGS[-1]


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_move_all_images_and_lower_the_loss_elsewhere(kind):
    batches, others = learnable()
    images, labels = batches[0].x[:4], batches[0].y[:4]
    state, step, moved = first(images, labels), stepper(kind, block=2), []
    begin = losses[kind](images, labels, others)
    for batch in batches:
        before = np.array(state.images)
        state, metrics = step(state, *batch)
        expected = losses[kind](before, labels, batch)
        assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-4)
        moved.append(np.any(before != np.array(state.images), axis=(1, 2, 3)))
    assert np.all(moved[0])
    assert losses[kind](np.array(state.images), labels, others) < 0.8 * begin
    np.testing.assert_array_equal(state.labels, labels)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_by_blocks_is_steps_of_each_with_the_others_held(kind):
    """The second block starts from what the first one left, and entries that are kept are right."""
    batch = learnable()[0][0]
    images, labels = batch.x[:4], batch.y[:4]
    recorded, residuals = [], residuals_of(kind)

    def linearize(support, support_labels, targets, moving, known):
        found = residuals.linearize(support, support_labels, targets, moving, known)
        fresh = residuals.entries(support, targets)
        pairs = zip(jax.tree.leaves(known), jax.tree.leaves(fresh), strict=True)
        apart = jnp.stack([jnp.max(jnp.abs(one - other)) for one, other in pairs])
        jax.debug.callback(
            lambda *seen: recorded.append(seen), found.fit.loss, jnp.max(apart), ordered=True
        )
        return found

    spied = residuals._replace(linearize=linearize)
    step = gauss_newton.make_step(spied, iterations=50, key=jax.random.key(0), block=2)
    state, _ = step(first(images, labels), *batch)
    jax.effects_barrier()
    (one, _), (two, _) = recorded
    assert max(apart for _, apart in recorded) < 1e-4
    assert one == pytest.approx(losses[kind](images, labels, batch), rel=1e-4)
    end = losses[kind](np.array(state.images), labels, batch)
    assert end < two < one


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind):
    images, labels, batch = problem()
    expected, metrics = stepper(kind)(first(images, labels), *batch)
    padded = (np.pad(array, [(0, 2)] + [(0, 0)] * (array.ndim - 1)) for array in batch)
    found, same = stepper(kind)(first(images, labels), *padded)
    np.testing.assert_allclose(found.images, expected.images, atol=2e-3)
    assert float(same["loss"]) == pytest.approx(float(metrics["loss"]), rel=1e-6)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 0.0])
def test_a_step_that_does_not_help_is_refused(wrong):
    """The trial's kernel says so; the damping has grown with every trial."""
    images, labels, batch = problem()
    step = stepper("solved", kernel=lambda a, b: KERNEL(a, b) * 0 + wrong)
    state, metrics = step(first(images, labels), *batch)
    np.testing.assert_array_equal(state.images, images)
    assert float(state.damping) == pytest.approx(10)
    assert float(metrics["gain_ratio"]) == 0
    assert int(state.number) == 1


def test_no_trial_comes_twice():
    """With a start of 3 the second trial has the most damping, 10; a third would be the same."""
    images, labels, batch = problem()
    residuals, trials = residuals_of("solved", KERNEL, JACOBIAN), []

    def linearize(*arguments):
        found = residuals.linearize(*arguments)

        def refused(moved):
            jax.debug.callback(lambda: trials.append(1), ordered=True)
            loss, after = found.evaluate(moved)
            return loss + 1e3, after

        return found._replace(evaluate=refused)

    step = gauss_newton.make_step(residuals._replace(linearize=linearize), 50, jax.random.key(0))
    start = gauss_newton.init(images, labels, least_damping=3.0)
    state, _ = step(start, *batch)
    jax.effects_barrier()
    np.testing.assert_array_equal(state.images, images)
    assert len(trials) == 2


def test_a_loss_that_is_not_finite_leaves_no_damping():
    """A run looks at the state alone."""
    images, labels, batch = problem()

    def broken(x_t, x_s):
        k, dk = JACOBIAN(x_t, x_s)
        return k * jnp.nan, dk

    state, metrics = stepper("solved", jacobian=broken)(first(images, labels), *batch)
    assert np.isnan(float(metrics["loss"]))
    assert np.isnan(float(state.damping))
    np.testing.assert_array_equal(state.images, images)


def test_a_batch_that_promises_little_leaves_no_damping_behind(monkeypatch):
    """The next batch is free to dare what this one's model would have allowed."""
    choose = damping.choose

    def damped(path, noise, mean, least):
        return choose(path, noise, mean, jnp.float32(8))

    monkeypatch.setattr(damping, "choose", damped)
    images, labels, batch = problem()
    state, metrics = stepper("solved")(first(images, labels), *batch)
    assert float(metrics["damping"]) >= 8
    assert float(metrics["gain_ratio"]) > 0.75
    assert float(state.damping) == pytest.approx(0.1 / 3)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("solved", (2, 2)),
        *(pytest.param("fixed", shape, marks=pytest.mark.slow) for shape in ((2, 2), (3, 1))),
    ],
)
def test_a_mesh_takes_the_same_step(kind, shape):
    images, labels, batch = problem(targets=30)
    expected, metrics = stepper(kind)(first(images, labels), *batch)
    mesh = sharding.make_mesh(*shape)
    step = stepper(kind, shard_kernel(KERNEL, mesh), shard_jacobian(JACOBIAN, mesh))
    targets = sharding.put_targets(mesh, batch.x, batch.y)
    found, same = step(sharding.replicate(mesh, first(images, labels)), *targets)
    np.testing.assert_allclose(found.images, expected.images, atol=2e-3)
    assert float(same["loss"]) == pytest.approx(float(metrics["loss"]), rel=1e-6)


PEAK = """
import resource
import sys

import jax
import numpy as np

from kip_flax import architectures as arch
from kip_flax.kernels import KernelOptions, jacobian, make_kernel, warm_up
from kip_flax.krr import gauss_newton, residuals

options = KernelOptions(arch.conv(1), implementation="cpu")
for compile_ahead in (warm_up, jacobian.warm_up):  # To compile takes more memory than the step.
    compile_ahead(options, lambda _: None)
kernel, of_pairs = make_kernel(options), jacobian.make_jacobian(options)
rng = np.random.default_rng(0)
x = rng.normal(size=(1200, 16, 16, 3)).astype(np.float32)
y = np.eye(10, dtype=np.float32)[rng.integers(10, size=1200)] - 0.1
step = gauss_newton.make_step(
    residuals.with_solved_labels(kernel, of_pairs, 1e-6), 3, jax.random.key(0), int(sys.argv[1])
)
state = gauss_newton.init(x[:200], y[:200], 0.1)
targets = x[200:], y[200:], np.ones(1000, np.float32)
compiled = step.lower(state, *targets).compile()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
jax.block_until_ready(compiled(state, *targets))
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""


@pytest.mark.slow
def test_the_memory_of_a_step_follows_the_block():
    """Gradients of all pairs take 614 MB, those of a block 61."""
    code = [sys.executable, "-c", PEAK]
    runs = [subprocess.run([*code, block], capture_output=True, text=True) for block in ("0", "20")]
    whole, block = (int(run.stdout) for run in runs)
    assert whole > 614e6
    assert block < 0.4 * whole
