"""Private steps: what they add up, draw and move."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import private_runs
import pytest
from least_squares import JACOBIAN, KERNEL
from scipy.optimize import brentq
from scipy.stats import norm

from configs import default
from kip_flax import kernels, krr
from kip_flax.algorithms import base, dp_kip, interface
from kip_flax.algorithms._low_frequencies import low_frequencies
from kip_flax.data import Targets
from kip_flax.kernels import jacobian
from kip_flax.runtime import sharding

SIZE, CLASSES, SHAPE, COUNT = 4, 2, (5, 5, 1), 12


@pytest.fixture(autouse=True)
def quick_parts(monkeypatch):
    """Coarse accounting, and a kernel that compiles at once, whose diagonal moves."""
    private_runs.account_coarsely(monkeypatch)
    monkeypatch.setattr(kernels, "make_kernel", lambda *_: KERNEL)
    monkeypatch.setattr(jacobian, "make_jacobian", lambda *_: JACOBIAN)


def tiny(**changes):
    config = default.get_config()
    config.algorithm, config.support.init = "dp_kip", "noise"
    config.kernel.architecture, config.kernel.depth, config.reg = "fc", 1, 1e-2
    config.support.size, config.batch_size, config.num_steps = SIZE, COUNT, 3
    config.optimizer.name, config.optimizer.momentum = "sgd", 0.0
    config.optimizer.learning_rate = 1.0
    config.privacy.start_std, config.privacy.average = 1.0, 0.0
    config.privacy.start = "noise"
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config


def make_problem(config, devices=1):
    rng = np.random.default_rng(0)
    targets = Targets(
        rng.standard_normal((COUNT, *SHAPE)).astype(np.float32), np.arange(COUNT) % CLASSES, CLASSES
    )
    mesh = sharding.make_mesh(devices)
    kernel = kernels.make_kernel(base.kernel_options(config))
    return interface.Problem(config, targets, kernel, mesh, jax.random.key(0))


def start(config, problem):
    support = base.draw_support(problem.targets, SIZE, "noise", jax.random.key(1))
    state = jax.tree.map(np.array, dp_kip.init(config, *support))
    return sharding.replicate(problem.mesh, state)


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("learned", [True, False])
def test_all_targets_without_noise_and_clipping_are_a_step_of_descent(devices, learned):
    """Against JAX's gradient of the KIP loss. All targets are drawn."""
    clip = 0.3  # No gradient of a target is as large.
    config = tiny(
        privacy__noise_multiplier=1e-12, privacy__clip=clip, support__learn_labels=learned
    )
    problem = make_problem(config, devices)
    state = start(config, problem)
    images, labels = (jnp.asarray(np.asarray(part)) for part in state.current)
    x, y = problem.targets.take(np.arange(COUNT))

    def loss(images, labels):
        alpha = krr.solve(problem.kernel(images, images), labels, config.reg)
        return krr.loss(krr.predict(problem.kernel(x, images), alpha), y)

    gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))(images, labels)
    after, _ = dp_kip.make_step(problem)(state, 1)
    moved = after.current
    for new, old, gradient in zip(moved, (images, labels), gradients, strict=True):
        expected = -gradient if learned or new is moved[0] else 0 * gradient
        largest = np.abs(gradient).max()
        steps = clip * (np.asarray(new, np.float64) - np.asarray(old, np.float64))
        # A step is a difference of images, in units of the clip: it has their rounding.
        tolerance = 2e-3 * largest + clip * 3e-7
        assert largest > 100 * tolerance
        np.testing.assert_allclose(steps, expected, atol=tolerance)


def test_a_batch_of_several_calls_is_that_of_one(monkeypatch):
    config = tiny(privacy__noise_multiplier=1e-12, privacy__clip=0.3)
    problem = make_problem(config)
    whole, _ = dp_kip.make_step(problem)(start(config, problem), 1)
    monkeypatch.setattr(dp_kip, "_GRADIENT_BYTES", 5 * 4 * SIZE * 25)
    assert dp_kip._piece(COUNT, 4 * SIZE * 25) == 5
    before = start(config, problem)
    unmoved = np.array(before.current[0])
    pieces, _ = dp_kip.make_step(problem)(before, 1)
    moved = np.asarray(whole.current[0]) - unmoved
    np.testing.assert_allclose(
        np.asarray(pieces.current[0]) - unmoved, moved, atol=1e-3 * np.abs(moved).max()
    )


def test_a_run_with_a_target_less_differs_by_the_clip_at_most():
    """The sensitivity of a whole step, by brute force over all neighbours."""
    config = tiny(privacy__noise_multiplier=1e-12, privacy__clip=0.01)
    problem = make_problem(config)
    state = start(config, problem)
    of_support, add = map(jax.jit, dp_kip.make_add(problem))
    support = of_support(*state.current)
    x, y = problem.targets.take(np.arange(COUNT))

    def total(weights):
        sums = dp_kip.GradientSums(jnp.zeros((SIZE, 25)), jnp.zeros((SIZE, CLASSES)))
        found = add(sums, support, x, y, jnp.asarray(weights, jnp.float32))
        return np.concatenate([np.asarray(part, np.float64).ravel() for part in found])

    everyone = total(np.ones(COUNT))
    distances = [np.linalg.norm(everyone - total(1 - row)) for row in np.eye(COUNT)]
    assert max(distances) <= 0.01
    assert max(distances) > 0.009  # Here the gradients are larger than the clip.


def test_the_noise_is_normal_and_as_large_as_it_is_said_to_be():
    config = tiny(batch_size=6)
    state = dp_kip.init(config, jnp.zeros((40, 30, 30, 1)), jnp.zeros((40, 50)))
    sums = dp_kip.GradientSums(jnp.zeros((40, 900)), jnp.zeros((40, 50)))
    move = dp_kip.make_move(config, 3.0)
    found = []
    for number in range(2):
        after, metrics = move(state, sums, jax.random.key_data(jax.random.key(number)))
        noise = np.concatenate([np.asarray(part).ravel() for part in after.params.values()])
        assert metrics["grad_norm"] == pytest.approx(np.linalg.norm(noise), rel=1e-5)
        found.append(6 / 3 * noise)
    one, other = found
    count = one.size
    assert abs(one.mean()) < 4 / np.sqrt(count)
    assert one.std() == pytest.approx(1, abs=4 / np.sqrt(2 * count))
    assert np.mean(one**4) == pytest.approx(3, abs=4 * np.sqrt(96 / count))
    assert abs(np.corrcoef(one, other)[0, 1]) < 4 / np.sqrt(count)
    images, labels = after.params["images"].ravel(), after.params["labels"].ravel()
    assert abs(np.corrcoef(images[: labels.size], labels)[0, 1]) < 4 / np.sqrt(labels.size)


def test_images_stay_in_the_low_frequencies():
    """Start, gradients and noise: of 25 numbers an image has 4."""
    config = tiny(privacy__frequencies=2, privacy__noise_multiplier=1.0)
    problem = make_problem(config)
    state = start(config, problem)
    step = dp_kip.make_step(problem)
    basis = low_frequencies(SHAPE, 2)
    before = np.array(state.params["images"])
    state, _ = step(state, 1)
    moved = np.array(state.params["images"]) - before
    for images in (before, moved):
        rows = images.reshape(SIZE, -1)
        np.testing.assert_allclose(rows @ basis.T @ basis, rows, atol=1e-5)
        assert np.linalg.norm(rows) > 0.1


def test_every_target_is_drawn_with_the_same_chance_and_on_its_own():
    keys = [jax.random.fold_in(jax.random.key(5), number) for number in range(400)]
    drawn = np.zeros((400, 30))
    for row, key in zip(drawn, keys, strict=True):
        row[dp_kip.poisson_draw(30, 0.2, key)] = 1
    np.testing.assert_allclose(drawn.mean(0), 0.2, atol=4.5 * np.sqrt(0.16 / 400))
    assert drawn.sum(1).var() == pytest.approx(30 * 0.16, rel=0.35)  # 0 for a fixed size.
    np.testing.assert_array_equal(dp_kip.poisson_draw(30, 1.0, keys[0]), np.arange(30))


@pytest.mark.parametrize("rate", [1 / 60, 0.999999999, 1.0])
def test_the_same_targets_are_drawn_with_and_without_float64(rate):
    """Or a run that goes on where there is none adds the same noise to other targets."""
    drawn = []
    for wide in (True, False):
        with jax.enable_x64(wide):
            drawn.append(dp_kip.poisson_draw(60_000, rate, jax.random.key(3)))
    np.testing.assert_array_equal(*drawn)
    expected = 60_000 * rate
    assert len(drawn[0]) == pytest.approx(expected, abs=4.5 * np.sqrt(expected * (1 - rate)) + 1e-6)


def test_a_step_that_draws_no_target_moves_by_its_noise():
    config = tiny(batch_size=1, privacy__noise_multiplier=2.0)
    problem = make_problem(config)
    state = start(config, problem)
    nothing = next(number for number in range(1, 50) if not len(drawn_at(state, number, 1 / COUNT)))
    before = np.array(state.params["images"])
    after, _ = dp_kip.make_step(problem)(state, nothing)
    assert np.std(after.params["images"] - before) == pytest.approx(2.0, rel=0.25)


def drawn_at(state, number, rate):
    return dp_kip.poisson_draw(COUNT, rate, dp_kip.step_keys(state, number)[0])


def test_the_noise_of_the_first_means_keeps_their_share_of_the_budget():
    """Against the exact curve of the Gaussian mechanism (Balle and Wang, ICML 2018, theorem 8)."""
    share, epsilon, delta, clip, count = 0.3, 4.0, 1e-5, 0.5, 4000
    config = tiny(
        privacy__start="means",
        privacy__means_share=share,
        privacy__means_clip=clip,
        privacy__epsilon=epsilon,
        privacy__delta=delta,
        privacy__noise_multiplier=1.0,
        support__size=CLASSES,
    )
    images = np.full((count, *SHAPE), 0.25, np.float32)
    targets = Targets(images, np.arange(count) % CLASSES, CLASSES)
    problem = interface.Problem(config, targets, None, sharding.make_mesh(1), jax.random.key(0))
    support = np.zeros((CLASSES, *SHAPE), np.float32), np.eye(CLASSES, dtype=np.float32)
    draws = []
    for seed in range(60):
        config.privacy.noise_seed = seed
        state = dp_kip.init(config, *support)
        keys = dp_kip.step_keys(state, 1)
        after, _ = dp_kip.start_at_means(problem, state, None, *keys)
        draws.append(np.asarray(after.current[0]) - 0.25)
    size = np.sqrt(2) * clip * np.sqrt(25) / (count / CLASSES)  # Of one noise multiplier.
    noise = np.std(draws) / size

    def spent(noise, epsilon):
        a, b = 1 / (2 * noise), epsilon * noise
        return norm.cdf(a - b) - np.exp(epsilon) * norm.cdf(-a - b)

    least = brentq(lambda noise: spent(noise, share * epsilon) - delta, 0.5, 50)
    assert noise == pytest.approx(least, rel=0.06)


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_the_first_step_sets_the_images_to_means_of_their_classes(average, monkeypatch):
    monkeypatch.setattr(dp_kip._private_budget, "means_noise", lambda config: 0.0)
    config = tiny(
        privacy__start="means",
        privacy__means_clip=1e3,
        privacy__noise_multiplier=1.0,
        privacy__average=average,
        support__size=CLASSES,
    )
    problem = make_problem(config)
    support = base.draw_support(problem.targets, CLASSES, "noise", jax.random.key(1))
    state = jax.tree.map(np.array, dp_kip.init(config, *support))
    before = sharding.replicate(problem.mesh, state)
    after, _ = dp_kip.make_step(problem)(before, 1)
    data = problem.targets
    means = np.stack([data.images[data.labels == c].mean(axis=0) for c in range(CLASSES)])
    images, labels = (np.array(part) for part in after.current)
    assert int(after.step) == 1
    np.testing.assert_allclose(images, means, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(after.support[0], images)
    np.testing.assert_array_equal(labels, support[1])
    moved, _ = dp_kip.make_step(problem)(after, 2)
    assert np.abs(moved.current[0] - images).max() > 0


def test_the_secret_comes_from_the_operating_system_unless_it_is_given():
    images, labels = jnp.zeros((SIZE, *SHAPE)), jnp.zeros((SIZE, CLASSES))

    def secret(**changes):
        return tuple(np.asarray(dp_kip.init(tiny(**changes), images, labels).secret))

    assert len({secret() for _ in range(5)}) == 5
    assert secret(privacy__noise_seed=4) == secret(privacy__noise_seed=4, seed=1)
    assert secret(privacy__noise_seed=4) != secret(privacy__noise_seed=5)


def test_the_schedule_ends_where_the_budget_does():
    """A run of 500 steps whose budget ends it early moves as one that was to be as short."""
    fields = {"privacy__noise_multiplier": 3.0, "optimizer__schedule": "cosine"}
    fields["privacy__noise_seed"] = 3
    long = tiny(num_steps=500, **fields)
    total = dp_kip.total_steps(long, COUNT)
    assert 2 < total < 100
    after = []
    for config in (long, tiny(num_steps=total, **fields)):
        problem = make_problem(config)
        state, step = start(config, problem), dp_kip.make_step(problem)
        for number in (1, 2):
            state, _ = step(state, number)
        after.append(np.asarray(state.params["images"]))
    np.testing.assert_array_equal(*after)


def test_the_gradients_are_those_of_the_configured_kernel(monkeypatch):
    asked = []
    monkeypatch.setattr(jacobian, "make_jacobian", lambda one: asked.append(one) or JACOBIAN)
    config = tiny(kernel__b_std=0.3, kernel__kind="nngp", privacy__noise_multiplier=1.0)
    dp_kip.make_step(make_problem(config))
    assert asked == [base.kernel_options(config)]


def test_targets_are_padded_no_more_than_devices_ask_for(monkeypatch):
    """One call of 13 targets or a few more; 13 is no multiple of the devices."""
    config = tiny(privacy__noise_multiplier=1e-12)
    problem = make_problem(config, devices=2)
    monkeypatch.setattr(dp_kip, "_piece", lambda *_: 13)
    padded, put = [], sharding.put_targets

    def watched(*args):
        found = put(*args)
        padded.append(len(found[2]))
        return found

    monkeypatch.setattr(sharding, "put_targets", watched)
    monkeypatch.setattr(dp_kip, "pinned", lambda function, mesh: lambda first, *rest: first)
    dp_kip.make_step(problem)(start(config, problem), 1)
    assert padded == [14]


@pytest.mark.parametrize("frequencies", [0, 4])
def test_the_bytes_that_a_plan_counts_are_those_that_xla_takes(monkeypatch, frequencies):
    shape = (16, 16, 1)

    def opaque(x_t, x_s):
        """A kernel of which XLA knows the shapes alone, as of the compiled one."""
        shapes = (len(x_t), len(x_s)), (len(x_s), len(x_t), 16 * 16)
        out = [jax.ShapeDtypeStruct(each, jnp.float32) for each in shapes]
        return tuple(jax.pure_callback(None, out, x_t, x_s))

    monkeypatch.setattr(jacobian, "make_jacobian", lambda *_: opaque)
    config = tiny(batch_size=200, privacy__frequencies=frequencies)
    targets = dp_kip._rows_of_call(config, shape, 1)
    assert targets > 200  # A call takes more than the mean batch.
    problem = make_problem(config)
    known = Targets(np.zeros((targets, *shape), np.float32), np.zeros(targets, int), CLASSES)
    of_support, add = dp_kip.make_add(dataclasses.replace(problem, targets=known))
    images, labels, x, y, weights = (
        jax.ShapeDtypeStruct(each, jnp.float32)
        for each in (
            (SIZE, *shape),
            (SIZE, CLASSES),
            (targets, *shape),
            (targets, CLASSES),
            (targets,),
        )
    )
    support = jax.eval_shape(of_support, images, labels)
    of_images = jax.ShapeDtypeStruct(support.derivatives.shape[1:], jnp.float32)
    sums = dp_kip.GradientSums(of_images, labels)
    compiled = jax.jit(add).lower(sums, support, x, y, weights).compile()
    taken = compiled.memory_analysis().temp_size_in_bytes + support.derivatives.size * 4
    counted = dp_kip.kept_gradients(config, shape, 200, 1)
    assert counted.images == SIZE
    assert counted.bytes == pytest.approx(taken, rel=0.25)
